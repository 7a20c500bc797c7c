"""Body sizes and walking poses of a drawn person, in body units (1 = an adult's height, y up from the ground).

In profile the figure faces +x; the canvas mirrors it for the other side. Seen from the front, +x is the person's
left; from behind, +x is the person's right.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from train.pedestrians.people import Person, Shot

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Body:
    """Heights (`*_y`, from the ground), half widths seen from the front, depths in profile, limb radii, lengths."""

    height: float
    head: float
    chin_y: float
    shoulder_y: float
    waist_y: float
    hip_y: float
    crotch_y: float
    knee_y: float
    ankle_y: float
    shoulder: float
    waist: float
    hip: float
    bust: float
    belly: float
    back: float
    seat: float
    thigh: float
    calf: float
    arm: float
    neck: float
    arm_length: float
    width: float
    stoop: float


@dataclass(frozen=True, slots=True)
class Arm:
    """Joints of one arm. `front`: it passes in front of the body; `side`: -1 or 1, outward direction in the picture."""

    shoulder: Point
    elbow: Point
    wrist: Point
    front: bool
    side: float


@dataclass(frozen=True, slots=True)
class Leg:
    """Joints of one leg. `tilt` turns the foot (radians, toes up is positive), `size` enlarges a near foot."""

    hip: Point
    knee: Point
    ankle: Point
    tilt: float
    size: float
    front: bool
    side: float


@dataclass(frozen=True, slots=True)
class Pose:
    """A body in one moment of its walk; in profile `lean` and `curve` bend the trunk forward above the hip.

    `ground` is the height of the pavement: above 0 where a wide step lets the trunk sink.
    """

    right_arm: Arm
    left_arm: Arm
    right_leg: Leg
    left_leg: Leg
    hip_y: float
    lean: float
    curve: float
    ground: float

    def spine(self, y: float) -> float:
        """Horizontal place of the trunk's axis at height `y`."""
        above = max(0.0, y - self.hip_y)
        return self.lean * above + self.curve * above * above


def measure(person: Person) -> Body:
    """Sizes of a person from sex, age, build and the four small numbers of `body`."""
    woman, child, elderly = person.sex == "woman", person.age == "child", person.age == "elderly"
    tall, headed, broad, legs = person.body
    height = (0.97 if woman else 1.0) + 0.022 * tall
    if child:
        height = 0.70 + 0.025 * tall
    elif elderly:
        height = height * 0.95
    head = (0.138 if child else 0.146) * (1.0 + 0.03 * headed)
    width = height * (1.06 if child else 1.0)
    girth = {"slim": 0.8, "average": 1.0, "heavy": 1.42}[person.build]
    bone = {"slim": 0.93, "average": 1.0, "heavy": 1.12}[person.build]
    limb = {"slim": 0.82, "average": 1.0, "heavy": 1.28}[person.build]
    curvy = woman and not child
    chin_y = height - head
    shoulder_y = chin_y - (0.012 if elderly else 0.032) * height
    crotch_y = height * ((0.43 if child else 0.465) + 0.012 * legs)
    hip_y = crotch_y + 0.055 * height
    shoulder = (0.102 if curvy else (0.108 if child else 0.122)) * bone + 0.004 * broad
    return Body(
        height=height,
        head=head,
        chin_y=chin_y,
        shoulder_y=shoulder_y,
        waist_y=hip_y + 0.36 * (shoulder_y - hip_y),
        hip_y=hip_y,
        crotch_y=crotch_y,
        knee_y=crotch_y * 0.57,
        ankle_y=0.042 * height,
        shoulder=shoulder * width,
        waist=(0.067 if curvy else 0.083) * girth * width,
        hip=(0.098 if curvy else 0.086) * (0.45 + 0.55 * girth) * width,
        bust=(0.068 if curvy else 0.06) * (0.5 + 0.5 * girth) * width,
        belly=(0.048 if curvy else 0.052) * (girth**1.7) * width,
        back=0.058 * (0.6 + 0.4 * girth) * width,
        seat=(0.078 if curvy else 0.066) * (0.5 + 0.5 * girth) * width,
        thigh=(0.049 if curvy else 0.046) * limb * width,
        calf=0.031 * limb * width,
        arm=(0.0225 if curvy else 0.0265) * limb * width,
        neck=(0.026 if curvy else 0.032) * bone * width,
        arm_length=0.178 * height * (0.94 if child else 1.0),
        width=width,
        stoop=1.0 if elderly else 0.0,
    )


def _swing(shot: Shot) -> float:
    """How far the right leg is ahead, -1 to 1."""
    return math.sin(2 * math.pi * shot.stride) * (0.25 + 0.75 * shot.gait)


def pose(person: Person, shot: Shot, body: Body) -> Pose:
    """The moment of the walk that a shot caught."""
    return _side_pose(person, shot, body) if shot.view in ("left", "right") else _front_pose(person, shot, body)


def held_in_right(person: Person) -> bool:
    """Whether the carried thing is in the right hand: the left pulls a suitcase, the right bears a handbag."""
    return person.bag == "suitcase"


def _front_leg(body: Body, side: float, ahead: float, *, facing: bool) -> Leg:
    # Towards the viewer means lower and larger in the picture.
    near = ahead if facing else -ahead
    hip_x = side * max(body.thigh * 1.0, body.hip - body.thigh * 1.02)
    foot_x = side * (body.thigh * 0.8 + 0.006)
    knee_x = hip_x * 0.5 + foot_x * 0.5
    rise = 0.05 * max(0.0, -near) * body.height
    drop = 0.014 * max(0.0, near) * body.height
    ankle = (foot_x * (1.0 - 0.12 * abs(near)), body.ankle_y + rise - drop)
    knee = (knee_x + side * 0.006 * near, body.knee_y + rise * 0.35 - drop)
    return Leg((hip_x, body.crotch_y + 0.02), knee, ankle, 0.0, 1.0 + 0.1 * near, near >= 0, side)


def _front_arm(person: Person, body: Body, side: float, ahead: float, *, facing: bool, right: bool) -> Arm:
    length = body.arm_length
    shoulder = (side * (body.shoulder - body.arm * 1.12), body.shoulder_y - 0.046 * body.height)
    out = max(body.shoulder + body.arm * 0.35, body.waist + body.arm * 0.9)
    elbow = (side * out, shoulder[1] - length * (0.94 - 0.06 * abs(ahead)))
    inward = 0.022 * ahead if facing else -0.01 * ahead
    reach = 0.94 - 0.2 * max(0.0, ahead) - 0.06 * max(0.0, -ahead)
    low = max(out + 0.004, body.hip + body.arm * 0.7)
    wrist = (side * (low - inward), elbow[1] - length * reach)
    front = (ahead >= 0) == facing
    if right == held_in_right(person) and (facing or person.carried == "umbrella"):
        if person.carried == "cup":
            wrist = (side * body.shoulder * 0.62, elbow[1] + length * 0.34)
        elif person.carried == "phone":
            wrist = (side * body.shoulder * 0.66, elbow[1] + length * 0.74)
        elif person.carried == "book":
            wrist = (side * body.shoulder * 0.30, elbow[1] + length * 0.10)
        elif person.carried == "umbrella":
            wrist = (side * (low + 0.008), elbow[1] - length * 0.86)
        if person.carried not in ("none", "umbrella"):
            return Arm(shoulder, (side * (out + 0.006), elbow[1] + 0.01), wrist, facing, side)
    carries = (right and person.bag == "handbag") or (not right and person.bag == "suitcase")
    if carries:
        wrist = (side * (low + 0.01), elbow[1] - length * 0.9)
    return Arm(shoulder, elbow, wrist, front, side)


def _front_pose(person: Person, shot: Shot, body: Body) -> Pose:
    facing = shot.view == "front"
    right = -1.0 if facing else 1.0
    ahead = _swing(shot)
    return Pose(
        right_arm=_front_arm(person, body, right, -ahead, facing=facing, right=True),
        left_arm=_front_arm(person, body, -right, ahead, facing=facing, right=False),
        right_leg=_front_leg(body, right, ahead, facing=facing),
        left_leg=_front_leg(body, -right, -ahead, facing=facing),
        hip_y=body.hip_y,
        lean=0.0,
        curve=0.0,
        ground=0.0,
    )


def _side_leg(body: Body, phase: float, gait: float, *, near: bool) -> Leg:
    swing, speed = math.sin(phase), math.cos(phase)
    thigh = 0.36 * gait * swing + 0.05
    bend = 0.06 + gait * (0.8 * max(0.0, speed) * (1.0 if swing < 0.4 else 0.5) + 0.16 * max(0.0, -swing))
    long, low = body.crotch_y + 0.03 - body.knee_y, body.knee_y - body.ankle_y
    hip = (0.0, body.crotch_y + 0.03)
    knee = (hip[0] + long * math.sin(thigh), hip[1] - long * math.cos(thigh))
    shank = thigh - bend
    ankle = (knee[0] + low * math.sin(shank), knee[1] - low * math.cos(shank))
    return Leg(hip, knee, ankle, max(-0.85, min(0.3, shank * 0.9)), 1.0, near, 1.0 if near else -1.0)


def _side_arm(person: Person, body: Body, shoulder: Point, swing: float, *, near: bool, right: bool) -> Arm:
    length = body.arm_length
    upper, lower = 0.46 * swing - 0.04, 0.46 * swing + 0.2 + 0.2 * max(0.0, swing)
    if right == held_in_right(person) and person.carried != "none":
        upper, lower = {"cup": (-0.3, 1.75), "phone": (-0.12, 2.35), "book": (-0.36, 1.45), "umbrella": (0.3, 0.62)}[
            person.carried
        ]
    elif (right and near and person.bag == "handbag") or (not right and person.bag == "suitcase"):
        upper, lower = (0.04, 0.1) if right else (-0.55, -0.3)
    elbow = (shoulder[0] + length * math.sin(upper), shoulder[1] - length * math.cos(upper))
    wrist = (elbow[0] + length * 0.92 * math.sin(lower), elbow[1] - length * 0.92 * math.cos(lower))
    return Arm(shoulder, elbow, wrist, near, 1.0 if near else -1.0)


def _side_pose(person: Person, shot: Shot, body: Body) -> Pose:
    near_right = shot.view == "right"
    gait = 0.25 + 0.75 * shot.gait
    phase = 2 * math.pi * shot.stride
    right = _side_leg(body, phase, gait, near=near_right)
    left = _side_leg(body, phase + math.pi, gait, near=not near_right)
    # The lower foot stands on the ground, so the trunk sinks in a wide step.
    ground = min(leg.ankle[1] + 0.03 * min(0.0, leg.tilt) for leg in (right, left)) - body.ankle_y
    lean, curve = 0.03 + 0.05 * gait + 0.08 * body.stoop, 0.55 * body.stoop
    joint_y = body.shoulder_y - 0.035 * body.height
    above = joint_y - body.hip_y
    joint = (lean * above + curve * above * above - 0.006, joint_y)
    swing = math.sin(phase) * gait
    return Pose(
        right_arm=_side_arm(person, body, joint, -swing, near=near_right, right=True),
        left_arm=_side_arm(person, body, joint, swing, near=not near_right, right=False),
        right_leg=right,
        left_leg=left,
        hip_y=body.hip_y,
        lean=lean,
        curve=curve,
        ground=ground,
    )

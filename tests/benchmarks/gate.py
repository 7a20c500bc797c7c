"""How often the gate promotes a candidate that is truly better, equal or worse, against the number of marks.

    python -m tests.benchmarks.gate [--trials 400] [--flip 0.2] [--control 0.04] [--json]

Beside each share stand the mean changes of the gate's two measures: how often a held-out hit beats a held-out miss, and
the precision of hits in the gallery.

Nothing is trained: scores are drawn. A person has four pictures among 600, and the served version scores picture and
caption as `skill` (if it is the person) plus noise; captions differ in how hard they are. The first ten results are
marked by ground truth, as users do, so the marks carry the same selection as real ones; a share `--flip` of the
verdicts is turned round. The candidate's noise is correlated with the served version's, and its skill is higher, equal
or lower. Skills are set so that R@1 is that of `mini` on the street (about 25 %) and so many points more or less. The
base set is taken to have stayed as it was.

The control, which learnt shuffled marks, is drawn as the candidate is, with other noise of the same size. Its R@1
differs from the served version's by `--control`, by default not at all; "as control" is the share of candidates
promoted whose control gains as much as they do: all of them are false.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from train.finetuning.gate import Evidence, GateConfig, OnBase, check_marks, hit_precision, hits_over_misses, judge

PICTURES, SHOTS, TOP = 600, 4, 10
SPREAD = 0.8
"""Standard deviation of a caption's ease; the noise of a score has 1."""
AGREEMENT = 0.8
"""Correlation of the two versions' noise: fine-tuning moves scores, it does not draw new ones. Two rounds of `mini` on
validation users had 0.79 and 0.86, among pictures of other people."""
MARKS = (100, 200, 300, 400, 600, 1000)
CHANGES = (-0.04, -0.02, 0.0, 0.04, 0.08, 0.12)


def draw(captions: int, skills: tuple[float, ...], rng: np.random.Generator) -> list[NDArray[np.float64]]:
    """Scores (captions, PICTURES) of the served version and of others, by skill; the first SHOTS columns show the
    person. Each of the others has noise of its own beside what it shares with the served version."""
    ease = rng.normal(0, SPREAD, (captions, 1))
    noise = rng.normal(size=(captions, PICTURES))
    match = np.arange(PICTURES) < SHOTS
    found = [noise + match * (skills[0] + ease)]
    for skill in skills[1:]:
        fresh = rng.normal(size=(captions, PICTURES))
        other = AGREEMENT * noise + np.sqrt(1 - AGREEMENT**2) * fresh
        found.append(other + match * (skill + ease))
    return found


def r1(skill: float, *, captions: int = 3_000) -> float:
    """R@1 of a version of this skill."""
    (scores,) = draw(captions, (skill,), np.random.default_rng(0))
    return float((scores.argmax(axis=1) < SHOTS).mean())


def skill_of(wanted: float) -> float:
    """The skill whose R@1 is `wanted`, by bisection."""
    low, high = 0.0, 6.0
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (middle, high) if r1(middle) < wanted else (low, middle)
    return (low + high) / 2


@dataclass(frozen=True, slots=True)
class Trial:
    """Whether the gate let a candidate serve, and how its two measures changed; NaN where nothing was judged."""

    promoted: bool
    order: float = float("nan")
    precision: float = float("nan")


def trial(captions: int, skills: tuple[float, float, float], seed: int, flip: float) -> Trial:
    """One candidate before the gate; `skills` of the served version, the candidate and the control."""
    rng = np.random.default_rng(seed)
    before, after, control = draw(captions, skills, rng)
    shown = np.argsort(-before, axis=1)[:, :TOP]
    judged = np.zeros(before.shape, np.int8)
    match = (shown < SHOTS) ^ (rng.random(shown.shape) < flip)
    np.put_along_axis(judged, shown, np.where(match, 1, -1).astype(np.int8), axis=1)
    config = GateConfig(resamples=1000, seed=seed)
    people = np.arange(captions)
    order = hits_over_misses(judged, before)
    if check_marks(order, people, np.ones(captions, bool), config) is not None:
        return Trial(False)
    rest = np.ones(judged.shape, bool)  # as in a round: nobody knows which unmarked pictures show the person, too
    sides = (hits_over_misses(judged, after), hit_precision(judged, before, rest), hit_precision(judged, after, rest))
    verdict = judge(
        Evidence(order, *sides, people, hits_over_misses(judged, control), OnBase(0.93, 0.93, 0.93)), config
    )
    changes = (verdict.numbers[name]["mean"] for name in ("order_change", "held_out_change"))
    return Trial(verdict.decision == "promoted", *changes)


@dataclass(frozen=True, slots=True)
class Power:
    """Of many candidates the share promoted, and the mean changes of both measures; None where marks were too few."""

    promoted: float
    order: float | None
    precision: float | None

    def __str__(self) -> str:
        if self.order is None or self.precision is None:
            return "too few marks"
        return f"{self.promoted:6.1%} ({self.order:+.1%}, {self.precision:+.1%})"


def power(
    marks: int, change: float, *, control: float = 0.0, start: float = 0.25, trials: int = 400, flip: float = 0.0
) -> Power:
    """What becomes of candidates whose true R@1 differs by `change` from `start`, and their control's by `control`."""
    skills = skill_of(start), skill_of(start + change), skill_of(start + control)
    found = [trial(marks // TOP, skills, seed, flip) for seed in range(trials)]
    judged = [one for one in found if not np.isnan(one.order)]
    share = float(np.mean([one.promoted for one in found]))
    if not judged:
        return Power(share, None, None)
    return Power(
        share, float(np.mean([one.order for one in judged])), float(np.mean([one.precision for one in judged]))
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=400)
    parser.add_argument("--flip", type=float, default=0.0, help="share of the verdicts turned round")
    parser.add_argument("--control", type=float, default=0.0, help="how far the control's true R@1 is above the start")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    found: list[dict[str, Any]] = []
    for marks in MARKS:
        line = []
        for change in CHANGES:
            settings = {"trials": given.trials, "flip": given.flip}
            one = power(marks, change, control=given.control, **settings)
            row = {"marks": marks, "change": change, "control": given.control, **settings, **asdict(one)}
            text = f"{change:+.0%}: {one}"
            if change > 0:
                row["false"] = power(marks, change, control=change, **settings).promoted
                text += f", as control {row['false']:.1%}"
            line.append(text)
            found.append(row)
        if not given.json:
            print(f"{marks:5d} marks  " + "  ".join(line), flush=True)
    if given.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()

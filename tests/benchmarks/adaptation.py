"""What the unlabelled measures of adaptation are worth: their changes beside the true change of R@1, over domains.

    python -m tests.benchmarks.adaptation [--json]

Adaptation is promoted by measures that read no label of the gallery (`train.finetuning.adaptation`). Here the gallery's
labels are known, so each adapted version's true change of R@1 on other people of the gallery's domain stands beside
the changes of those measures. Versions are good and bad on purpose: adapted to the gallery for few and many steps, to
the gallery of another domain, to noise, and without a teacher. Reported are the table, Spearman's rank correlation of
each measure with the true change within and over all domains, and how often the gate was right: promoted what is truly
better, refused what is truly worse.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from core.backbones import load_backbone
from core.model import UPPerson
from train.captioned_images import CaptionedPictures
from train.finetuning.adaptation import Adaptation, Unlabelled, judge_adaptation, measure, train
from train.finetuning.replay import BASE_PEOPLE, REPLAY_PEOPLE
from train.finetuning.start import held_back, r1
from train.pedestrians import AnyDomain, load, takes
from train.studies.simulate import GALLERY_PEOPLE, GALLERY_SHOTS, TEST_PEOPLE


@dataclass(frozen=True, slots=True)
class Case:
    """One adapted version: changes of the unlabelled measures, the decision, and the true change of R@1."""

    domain: str
    how: str
    styled: float
    consistency: float
    base: float
    decision: str
    true_before: float
    true_after: float

    @property
    def gain(self) -> float:
        """The true change of R@1 on other people of the gallery's domain."""
        return self.true_after - self.true_before


def variants(given: Adaptation, other: NDArray[np.uint8]) -> dict[str, Adaptation]:
    """Ways of adapting to the gallery, right and wrong, by name."""

    def stepped(steps: int, **settings: Any) -> Adaptation:
        optimisation = replace(given.config.optimisation, max_steps=steps, min_steps=steps)
        return replace(given, config=replace(given.config, optimisation=optimisation, **settings))

    noise = np.random.default_rng(0).integers(0, 256, given.gallery.shape, dtype=np.uint8)
    return {
        "as shipped": given,
        "15 steps": stepped(15),
        "no style": stepped(40, styled=0.0),
        "another domain's style": replace(stepped(40), gallery=other),
        "style of noise": replace(stepped(40), gallery=noise),
        "no teacher, high rate": replace(
            given,
            config=replace(
                given.config,
                distil=0.0,
                optimisation=replace(given.config.optimisation, lr=2e-2, max_steps=40),
            ),
        ),
    }


def cases(domain: AnyDomain, known: CaptionedPictures, base: CaptionedPictures, size: tuple[int, int]) -> list[Case]:
    """All variants on the gallery of one domain."""
    others = [name for name in get_args(AnyDomain) if name != domain]
    gallery = load(takes(domain, "users", GALLERY_PEOPLE, GALLERY_SHOTS), size).pixels
    other = load(takes(others[0], "users", GALLERY_PEOPLE, GALLERY_SHOTS), size).pixels
    test = load(takes(domain, "test", TEST_PEOPLE, 2), size)
    replay, watched = held_back(known)
    assert replay is not None
    assert watched is not None
    served = UPPerson(load_backbone("mini"))
    given = Adaptation(served, replay, watched, base, gallery)
    before, found = r1(served, test), []
    for how, variant in variants(given, other).items():
        model = train(variant)
        seen = measure(given, model)
        verdict = judge_adaptation(seen, given.gate)
        found.append(
            Case(
                domain, how, *_changes(seen), decision=verdict.decision, true_before=before, true_after=r1(model, test)
            )
        )
    return found


def _changes(seen: Unlabelled) -> tuple[float, float, float]:
    styled = float((seen.styled_after - seen.styled_before).mean())
    return styled, seen.consistency_after - seen.consistency_before, seen.base_after - seen.base_before


def spearman(one: list[float], other: list[float]) -> float:
    """Rank correlation of two lists without ties worth minding."""
    ranks = [np.argsort(np.argsort(values)) for values in (one, other)]
    return float(np.corrcoef(*ranks)[0, 1])


MEASURES: dict[str, Callable[[Case], float]] = {
    "styled pairs": lambda case: case.styled,
    "consistency": lambda case: case.consistency,
    "base set": lambda case: case.base,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    size = load_backbone("mini").image_size
    known, base = (
        load(takes("studio", "replay", REPLAY_PEOPLE, 1), size),
        load(takes("studio", "base", BASE_PEOPLE, 2), size),
    )
    found: list[Case] = []
    if not given.json:
        print("| gallery | adapted | styled pairs | consistency | base R@1 | gate | true R@1 |\n" + "| --- " * 7 + "|")
    for domain in get_args(AnyDomain):
        for case in cases(domain, known, base, size):
            found.append(case)
            if not given.json:
                cells = f"{case.styled:+.1%} | {case.consistency:+.1%} | {case.base:+.1%} | {case.decision}"
                print(
                    f"| {domain} | {case.how} | {cells} | {case.true_before:.1%} -> {case.true_after:.1%} |", flush=True
                )
    gains = [case.gain for case in found]
    correlations = {name: spearman([value(case) for case in found], gains) for name, value in MEASURES.items()}
    right = [(case.decision == "promoted") == (case.gain > 0) for case in found]
    if given.json:
        print(json.dumps({"cases": [asdict(case) for case in found], "spearman": correlations, "right": sum(right)}))
        return
    print(
        "\n"
        + ", ".join(f"Spearman of {name} with the true change: {value:+.2f}" for name, value in correlations.items())
    )
    print(f"The gate was right in {sum(right)} of {len(right)} cases.")


if __name__ == "__main__":
    main()

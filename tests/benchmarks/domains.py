"""How much of what `mini` misses on the street is due to pictures, and how much to words: R@1 of every combination.

    python -m tests.benchmarks.domains

500 unseen people x 2 pictures of each domain, described by annotators of either: all that the text tower alone could
ever gain on the street is what the street's words cost there.
"""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import numpy as np

from core.backbones import load_backbone
from core.model import UPPerson
from train import pedestrians
from train.embed import embed_captions, embed_pixels
from train.metrics import rank_metrics
from train.pedestrians import SEEDS, Domain, Take
from train.pedestrians.captions import describe
from train.studies.simulate import TEST_PEOPLE


def caption_of(take: Take, words: Domain) -> str:
    """What an annotator of domain `words` says of a picture."""
    voice = np.random.default_rng([SEEDS[take.use], take.pid, 4, take.number, 0, int(words == "street")])
    return describe(take.person(), replace(take.shot(), domain=words), voice)


def main() -> None:
    backbone = load_backbone("mini")
    model = UPPerson(backbone)
    domains: tuple[Domain, ...] = get_args(Domain)
    print(f"| pictures | {' | '.join(f'{words} words' for words in domains)} |\n| --- | --- | --- |")
    for domain in domains:
        data = pedestrians.load(pedestrians.takes(domain, "test", TEST_PEOPLE, 2), backbone.image_size)
        assert [caption_of(take, domain) for take in data.takes] == list(data.captions)
        images, found = embed_pixels(model, data.pixels), []
        for words in domains:
            texts = embed_captions(model, [caption_of(take, words) for take in data.takes])
            found.append(f"{rank_metrics(texts @ images.T, data.pids, data.pids).r1:.1%}")
        print(f"| {domain} | {' | '.join(found)} |", flush=True)


if __name__ == "__main__":
    main()

"""The ablation in the small: each PETL component on and off, on drawn people.

`mini`, pretrained on the studio, is tuned on street pictures of training identities with all their pairs known, and
tested on other identities of the street and, for what it forgets, of the studio.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from core.backbones import Backbone
from core.device import quick_in_bf16
from core.encoder import normalise
from core.model import PETL_SEED, UPPerson
from core.petl import AdapterKind, PetlConfig
from train import pedestrians
from train.augment import augment_pixels
from train.embed import embed_captions, embed_pixels
from train.finetuning.start import MINI_PETL
from train.losses import identity_targets, masked_sdm
from train.metrics import rank_metrics
from train.pedestrians import Domain, SyntheticSet
from train.precision import quick_step
from train.studies.choices import FULL, ROW_NAMES, check_rows

DOMAINS: tuple[Domain, ...] = ("street", "studio")
PAPER = {"all three": 74.17, FULL: 68.19}
"""R@1 in percent on CUHK-PEDES, ViT-B/16 (UP-Person, arXiv 2504.10084), where the paper's page of facts has it."""


def _only(*methods: str, gain: float | None = MINI_PETL.prefix_gain, adapter: AdapterKind = "l_adapter") -> PetlConfig:
    return PetlConfig(
        prefix_length=MINI_PETL.prefix_length if "prefix" in methods else 0,
        prefix_gain=gain,
        lora_rank=MINI_PETL.lora_rank if "LoRA" in methods else 0,
        adapter_reduction=MINI_PETL.adapter_reduction if "adapter" in methods else 0,
        adapter=adapter,
    )


ROWS: dict[str, PetlConfig | None] = {
    "frozen": None,
    "S-Prefix": _only("prefix"),
    "LoRA": _only("LoRA"),
    "L-Adapter": _only("adapter"),
    "S-Prefix + LoRA": _only("prefix", "LoRA"),
    "S-Prefix + L-Adapter": _only("prefix", "adapter"),
    "LoRA + L-Adapter": _only("LoRA", "adapter"),
    "all three": MINI_PETL,
    "image tower alone": replace(MINI_PETL, towers=("image",)),
    "text tower alone": replace(MINI_PETL, towers=("text",)),
    "prefix without gain": _only(
        "prefix", gain=None
    ),  # starts where S-Prefix does, not at U(0, 0.01) as the vanilla one
    "vanilla adapter": _only("adapter", adapter="sequential"),
    FULL: None,
}
assert tuple(ROWS) == ROW_NAMES


@dataclass(frozen=True, slots=True)
class AblateConfig:
    """`rows` of `ROWS`; `people` training identities in `shots` street pictures each; `batch` pairs a step; `judged`
    unseen identities of each domain in two pictures each. Full tuning wants a smaller rate than PETL weights do."""

    seeds: int = 3
    people: int = 1000
    shots: int = 2
    steps: int = 70
    batch: int = 64
    lr: float = 2.5e-3
    full_lr: float = 3e-4
    judged: int = 500
    rows: tuple[str, ...] = tuple(ROWS)

    def __post_init__(self) -> None:
        check_rows(self.rows)
        for name in ("seeds", "people", "shots", "steps", "judged"):
            if getattr(self, name) < 1:
                raise ValueError(f"AblateConfig.{name} must be at least 1, not {getattr(self, name)}")
        if not 2 <= self.batch <= self.people * self.shots:
            raise ValueError(f"a batch of {self.batch} does not fit {self.people * self.shots} pictures (at least 2)")
        if not 0 < self.lr < 1 or not 0 < self.full_lr < 1:
            raise ValueError(f"rates lie between 0 and 1, not {self.lr} and {self.full_lr}")


def ablate(
    backbone: Backbone,
    config: AblateConfig,
    *,
    cache: Path | None = None,
    progress: Callable[[float], None] = lambda _: None,
) -> dict[str, Any]:
    """Train and measure the rows; R@1 of each seed, which decides the PETL weights' start and the order of the pairs.

    Drawn sets are kept in `cache`.
    """
    began = time.monotonic()
    size = backbone.image_size
    data = pedestrians.load(pedestrians.takes("street", "training", config.people, config.shots), size, cache=cache)
    tests = {d: pedestrians.load(pedestrians.takes(d, "test", config.judged, 2), size, cache=cache) for d in DOMAINS}
    rows: dict[str, dict[str, Any]] = {}
    runs = [(name, seed) for name in config.rows for seed in range(1 if name == "frozen" else config.seeds)]
    for done, (name, seed) in enumerate(runs):
        model, trained = fresh(backbone, name, seed)
        if trained:
            _tune(model, trained, data, config, lr=config.full_lr if name == FULL else config.lr, seed=seed)
        row = rows.setdefault(name, {"parameters": sum(p.numel() for p in trained), **{d: [] for d in DOMAINS}})
        for domain, test in tests.items():
            row[domain].append(_r1(model, test))
        progress((done + 1) / len(runs))
    return {
        "config": asdict(config),
        "generator": pedestrians.VERSION,
        "precision": "bf16" if quick_in_bf16() else "fp32",
        "rows": rows,
        "paper": PAPER,
        "seconds": round(time.monotonic() - began),
    }


def table(report: dict[str, Any]) -> Iterator[str]:
    """Yield the report of `ablate` as lines of text: means over seeds and, of two or more, sample standard
    deviations.
    """
    yield f"{'':22}{'parameters':>12}{'street R@1':>16}{'studio R@1':>16}{'CUHK-PEDES, in the paper':>26}"
    for name, row in report["rows"].items():
        cells = (_over_seeds(row[d]) for d in DOMAINS)
        paper = f"{report['paper'][name]:.2f}" if name in report["paper"] else ""
        yield f"{name:22}{row['parameters']:>12,}" + "".join(f"{cell:>16}" for cell in cells) + f"{paper:>26}"
    config = report["config"]
    yield f"{config['steps']} steps of {config['batch']} pairs in {report['precision']}; in percent, over seeds"


def _over_seeds(shares: list[float]) -> str:
    spread = f" ± {100 * stdev(shares):.1f}" if len(shares) > 1 else ""
    return f"{100 * mean(shares):.1f}{spread}"


def fresh(backbone: Backbone, name: str, seed: int) -> tuple[UPPerson, list[torch.nn.Parameter]]:
    """Return a fresh model and what is trained of it; full tuning gets a copy of the backbone's tensors."""
    if name == FULL:
        model = UPPerson(replace(backbone, clip=copy.deepcopy(backbone.clip)))
        model.requires_grad_(True)
        used = [p for key, p in model.clip.named_parameters() if not key.startswith("logit_")]
        return model, used
    model = UPPerson(backbone, ROWS[name], seed=PETL_SEED + seed)
    return model, list(model.petl_parameters().values())


def _tune(
    model: UPPerson,
    trained: list[torch.nn.Parameter],
    data: SyntheticSet,
    config: AblateConfig,
    *,
    lr: float,
    seed: int,
) -> None:
    """SDM on random pairs, a new annotator's words each time; the order depends on the seed alone."""
    rng = np.random.default_rng([seed, 7])
    backbone = model.backbone
    optimiser = torch.optim.AdamW(trained, lr=lr, weight_decay=4e-5)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, lr, total_steps=config.steps, pct_start=0.1, cycle_momentum=False
    )
    model.train()
    for _ in range(config.steps):
        batch: NDArray[np.int64] = rng.choice(len(data.pids), config.batch, replace=False)
        pixels = torch.from_numpy(augment_pixels(data.pixels[batch], rng))
        words = [data.takes[index].caption(int(rng.integers(1, 5))) for index in batch]
        inputs = normalise(pixels, mean=backbone.mean, std=backbone.std)
        with quick_step():
            images, texts = model.encode_image(inputs), model.encode_text(backbone.tokenize(words))
        scores = F.normalize(texts.float(), dim=-1) @ F.normalize(images.float(), dim=-1).T
        pids = torch.from_numpy(data.pids[batch])
        masked_sdm(scores, identity_targets(pids, pids)).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        optimiser.zero_grad()
        schedule.step()
    model.eval()


def _r1(model: UPPerson, data: SyntheticSet) -> float:
    scores = embed_captions(model, data.captions) @ embed_pixels(model, data.pixels).T
    return rank_metrics(scores, data.pids, data.pids).r1

"""Making `mini`: a small CLIP trained from nothing on studio pedestrians.

It plays the part of the CLIP that UP-Person adapts: it knows the clean domain and its words, and leaves room on the
street. Twenty thousand pictures are little for a contrastive loss alone, so during pretraining both embeddings also
classify the attributes, through one linear layer that they share and that is thrown away at the end. Rows of
words it never saw share one neutral embedding, which it learns to pass over because one word in twelve is hidden
that way.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.model import CLIP
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from core.backbones import Backbone, build_clip, load_mini, save_mini
from core.encoder import Encoder, normalise
from core.model import UPPerson
from train import pedestrians
from train.augment import augment_pixels
from train.losses import identity_targets
from train.metrics import RankMetrics, rank_metrics
from train.pedestrians.captions import vocabulary
from train.pedestrians.people import CHOICES, HAIR_STYLES, Domain, visible
from train.precision import quick_step

MINI_CONFIG: dict[str, Any] = {
    "embed_dim": 192,
    "vision_cfg": {"image_size": [128, 48], "patch_size": 16, "width": 192, "layers": 6, "head_width": 64},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 192, "heads": 3, "layers": 4},
}
START_TOKEN, END_TOKEN = 49406, 49407


@dataclass(frozen=True, slots=True)
class PretrainConfig:
    """`people` studio identities in `shots` pictures each, `captions` annotators a picture; `batch` pairs a step;
    `judged` unseen identities of each domain measure the result."""

    domain: Domain = "studio"
    people: int = 10000
    shots: int = 4
    captions: int = 4
    steps: int = 4000
    batch: int = 128
    lr: float = 1e-3
    weight_decay: float = 0.05
    warmup: int = 150
    hidden_words: float = 0.08
    attributes: float = 1.0
    judged: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("people", "shots", "captions", "steps", "batch", "judged"):
            if getattr(self, name) < 1:
                raise ValueError(f"PretrainConfig.{name} must be at least 1, not {getattr(self, name)}")
        if self.batch > self.people * self.shots:
            raise ValueError(f"a batch of {self.batch} does not fit into {self.people * self.shots} pictures")


class _Words:
    """CLIP's token ids <-> the rows that `mini` learns. Row 0 is neutral, the last is end-of-text."""

    def __init__(self, domain: Domain) -> None:
        tokenizer = open_clip.SimpleTokenizer()
        self.known = sorted(vocabulary(domain))
        used = {token for word in self.known for token in tokenizer.encode(word)}
        used |= {token for mark in (".", ",", "and", "'s", "-") for token in tokenizer.encode(mark)}
        self.ids = torch.tensor([*sorted(used), START_TOKEN, END_TOKEN])
        self.row_of = torch.zeros(49408, dtype=torch.long)
        self.row_of[self.ids] = torch.arange(1, len(self.ids) + 1)
        self.tokenize = tokenizer

    def rows(self, captions: list[str]) -> Tensor:
        """Captions -> rows (B, T), cut to the longest; padding is neutral and stands after end-of-text."""
        tokens = self.tokenize(captions)
        return self.row_of[tokens[:, : int(tokens.argmax(dim=1).max()) + 1]]


def pretrain(out: Path, config: PretrainConfig, *, start: Path | None = None, progress: bool = True) -> dict[str, Any]:
    """Train `mini` and write it to `out` (.safetensors, with .json beside it). Returns its facts.

    The facts hold config, seed, generator version, seconds taken, and R@K on unseen identities x 2 pictures of
    each domain, measured on the file as written (fp16).
    """
    started = time.monotonic()
    torch.manual_seed(config.seed)
    rng = np.random.default_rng(config.seed)
    words = _Words(config.domain)
    clip = build_clip(MINI_CONFIG | {"text_cfg": MINI_CONFIG["text_cfg"] | {"vocab_size": len(words.ids) + 1}})
    if start is not None:
        _go_on(clip, load_mini(start), words)
    size = tuple(MINI_CONFIG["vision_cfg"]["image_size"])
    which = pedestrians.takes(config.domain, "training", config.people, config.shots)
    data = pedestrians.load(which, (size[0], size[1]))
    token_rows = _all_captions(words, which, config.captions)
    drawn = time.monotonic() - started

    answers, mentioned = _answers(which, config.captions)
    heads = torch.nn.Linear(MINI_CONFIG["embed_dim"], answers.classes)
    optimiser = _optimiser(clip, heads, config)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, config))
    clip.train()
    for _ in (bar := tqdm(range(config.steps), disable=not progress, desc="pretrain", unit="step")):
        batch = rng.choice(len(which), config.batch, replace=False)
        pixels = augment_pixels(data.pixels[batch], rng)
        annotator = rng.integers(0, config.captions, config.batch)
        tokens = token_rows[torch.from_numpy(batch), torch.from_numpy(annotator)]
        tokens = _hide_words(tokens, config.hidden_words, rng, end=len(words.ids))
        inputs = normalise(torch.from_numpy(pixels), mean=OPENAI_DATASET_MEAN, std=OPENAI_DATASET_STD)
        images, texts = _embed(clip, inputs, tokens)
        loss = _contrast(clip, images, texts, torch.from_numpy(data.pids[batch]))
        seen = torch.from_numpy(answers.values[batch])
        named = torch.from_numpy(np.where(mentioned[batch, annotator], answers.values[batch], -1))
        loss = loss + config.attributes * (
            answers.loss(heads(10 * images), seen) + answers.loss(heads(10 * texts), named)
        )
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(clip.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        schedule.step()
        with torch.no_grad():
            clip.logit_scale.clamp_(max=float(np.log(50.0)))  # 1 / 0.02, the temperature of SDM
        bar.set_postfix(loss=f"{float(loss.detach()):.3f}")

    facts: dict[str, Any] = {
        "config": MINI_CONFIG,
        "known_words": words.known,
        "generator": pedestrians.VERSION,
        "pretrain": asdict(config),
        "seconds": {"drawing": round(drawn), "training": round(time.monotonic() - started - drawn)},
    }
    rows = clip.token_embedding.weight.detach()
    save_mini(clip, out, rows=rows, ids=words.ids, facts=facts)
    facts["metrics"] = {domain: asdict(measure(out, domain, people=config.judged)) for domain in ("studio", "street")}
    out.with_suffix(".json").write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return facts


def measure(weights: Path, domain: Domain, *, people: int = 500) -> RankMetrics:
    """Metrics of the written model on `people` unseen identities x 2 pictures of `domain`, one caption each."""
    encoder = Encoder(UPPerson(load_mini(weights)), batch_size=100)
    return measure_encoder(encoder, pedestrians.takes(domain, "test", people, 2))


def measure_encoder(encoder: Encoder, which: list[pedestrians.Take]) -> RankMetrics:
    """Metrics of any encoder over `which`: every caption is a query, all pictures are the gallery."""
    data = pedestrians.load(which, encoder.backbone.image_size)
    images = encoder.encode_images([Image.fromarray(pixels) for pixels in data.pixels])
    return rank_metrics(encoder.encode_texts(data.captions) @ images.T, data.pids, data.pids)


def _go_on(clip: CLIP, trained: Backbone, words: _Words) -> None:
    """Take the weights of a trained `mini`; words it did not know begin at its neutral row."""
    state = dict(trained.clip.state_dict())
    table = state.pop("token_embedding.weight")
    neutral = torch.zeros(1, dtype=torch.long)  # id 0 is "!", which nobody says
    state["token_embedding.weight"] = torch.cat([table[neutral], table[words.ids]])
    clip.load_state_dict(state)


def _all_captions(words: _Words, which: list[pedestrians.Take], captions: int) -> Tensor:
    """Rows (pictures, captions, T) of every annotator, padded with the neutral row."""
    flat = words.rows([take.caption(annotator) for take in which for annotator in range(1, captions + 1)])
    return flat.view(len(which), captions, -1)


@dataclass(frozen=True, slots=True)
class _Answers:
    """Attribute values of pictures: int64 (N, A), -1 where hidden; attribute `a` has `sizes[a]` values."""

    values: NDArray[np.int64]
    sizes: tuple[int, ...]

    @property
    def classes(self) -> int:
        return sum(self.sizes)

    def loss(self, logits: Tensor, values: Tensor) -> Tensor:
        """Mean cross-entropy over the attributes that are given: logits (B, classes), values (B, A)."""
        parts = zip(torch.split(logits, list(self.sizes), dim=1), values.T, strict=True)
        sums = [F.cross_entropy(part, value, ignore_index=-1, reduction="sum") for part, value in parts]
        return torch.stack(sums).sum() / (values >= 0).sum().clamp(min=1)


def _answers(which: list[pedestrians.Take], captions: int) -> tuple[_Answers, NDArray[np.bool_]]:
    """Return what each picture shows, and which of it each annotator mentions: bool (N, captions, A)."""
    tables = {name: list(table) for name, table in CHOICES.items()}
    tables |= {"hair_style": sorted({s for styles in HAIR_STYLES.values() for s in styles})}
    tables |= {"sleeves": ["none", "short", "long"]}
    values = np.full((len(which), len(tables)), -1, np.int64)
    mentioned = np.zeros((len(which), captions, len(tables)), bool)
    for row, take in enumerate(which):
        person = take.person()
        seen = visible(person, take.shot())
        for column, (name, table) in enumerate(tables.items()):
            if name in seen:
                values[row, column] = table.index(getattr(person, name))
        for annotator in range(captions):
            names = take.said(annotator + 1)
            mentioned[row, annotator] = [name in names for name in tables]
    return _Answers(values, tuple(len(table) for table in tables.values())), mentioned


def _embed(clip: CLIP, pixels: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Unit rows (B, E) of pictures and of captions."""
    with quick_step():
        images, texts = clip.encode_image(pixels), _encode_rows(clip, tokens)
    return F.normalize(images.float(), dim=-1), F.normalize(texts.float(), dim=-1)


def _contrast(clip: CLIP, images: Tensor, texts: Tensor, pids: Tensor) -> Tensor:
    """CLIP's symmetric cross-entropy; several pictures of one person in a batch share the target."""
    logits = clip.logit_scale.exp() * texts @ images.T
    same = identity_targets(pids, pids)
    target = same / same.sum(dim=1, keepdim=True)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def _encode_rows(clip: CLIP, rows: Tensor) -> Tensor:
    """Text tower on rows of the small vocabulary, cut to the batch's longest caption."""
    end = rows.argmax(dim=1)
    length = int(end.max()) + 1
    x = clip.token_embedding(rows[:, :length]) + clip.positional_embedding[:length]
    x = clip.transformer(x, attn_mask=clip.attn_mask[:length, :length])
    out: Tensor = clip.ln_final(x[torch.arange(len(x)), end]) @ clip.text_projection
    return out


def _hide_words(tokens: Tensor, share: float, rng: np.random.Generator, *, end: int) -> Tensor:
    """Put the neutral row in place of a `share` of the words; start and end stay."""
    hide = torch.from_numpy(rng.random(tuple(tokens.shape)) < share) & (tokens < end - 1)
    return tokens.masked_fill(hide, 0)


def _optimiser(clip: CLIP, heads: torch.nn.Linear, config: PretrainConfig) -> torch.optim.Optimizer:
    decayed = [p for name, p in clip.named_parameters() if p.ndim >= 2 and "embedding" not in name]
    plain = [p for name, p in clip.named_parameters() if p.ndim < 2 or "embedding" in name]
    plain += list(heads.parameters())
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, 0.98), eps=1e-6)


def _rate(step: int, config: PretrainConfig) -> float:
    """Linear warm-up, then cosine to nearly nothing."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    done = (step - config.warmup) / max(1, config.steps - config.warmup)
    return 0.01 + 0.99 * 0.5 * (1 + float(np.cos(np.pi * done)))

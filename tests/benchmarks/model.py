"""Speed and memory of the model beside plain open_clip: `python -m tests.benchmarks.model`.

Random weights of ViT-B-16 at 384 x 128; seconds are medians of interleaved repeats with a fixed number of threads, and
peak memory is that of a process of its own for each line, from before the model is built (MB are 1e6 bytes). Plain
open_clip computes all 77 places of a text and all of the last block; "cut alike" leaves these two savings out. On a GPU
both towers run under bf16 autocast: weights, loss and optimiser are fp32, as they are on CPU, where nothing is bf16.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import open_clip
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from core.backbones import PERSON_SIZE, Backbone, freeze
from core.merge import merge
from core.model import UPPerson
from core.petl import PetlConfig
from tests.benchmarks.memory import peak_resident, resident
from train.losses import masked_sdm

ARCHITECTURE = "ViT-B-16-quickgelu"
CAPTION = (
    "a young woman with long brown hair wears a bright red coat over blue jeans and carries a small black leather bag "
    "by hand"
)
LIMITS = {"image": 1.06, "text": 0.55, "step": 0.80, "memory": 0.85, "memory, checkpointed": 0.60}


def backbone_of() -> Backbone:
    torch.manual_seed(0)
    clip = open_clip.create_model(ARCHITECTURE, pretrained=None, force_image_size=PERSON_SIZE)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return Backbone("ViT-B-16", freeze(clip.to(device)), open_clip.get_tokenizer(ARCHITECTURE), PERSON_SIZE)


def petl_of(backbone: Backbone) -> UPPerson:
    model = UPPerson(backbone, PetlConfig())
    with torch.no_grad():
        for parameter in model.petl_parameters().values():
            parameter.add_(torch.randn_like(parameter) * 0.01)
    return model.to(backbone.clip.logit_scale.device)


class FullTuning:
    """Plain open_clip with every parameter trainable."""

    def __init__(self, backbone: Backbone, *, checkpointing: bool) -> None:
        self.clip = backbone.clip.train()
        self.clip.requires_grad_(True)
        self.clip.set_grad_checkpointing(checkpointing)
        self.parameters = list(self.clip.parameters())
        self.encode_image, self.encode_text = self.clip.encode_image, self.clip.encode_text


class FullTuningHere:
    """Every parameter trainable too, but computed as with PETL: captions cut to the batch's longest, and in the last
    block only what the features are read from. What PETL itself saves shows beside this."""

    def __init__(self, backbone: Backbone, *, checkpointing: bool) -> None:
        model = UPPerson(backbone).train()
        model.requires_grad_(True)
        model.gradient_checkpointing(checkpointing)
        self.parameters = [p for name, p in model.clip.named_parameters() if name != "logit_scale"]
        self.encode_image, self.encode_text = model.encode_image, model.encode_text


class PetlTuning:
    """The same backbone with the paper's PETL weights, and only those trainable."""

    def __init__(self, backbone: Backbone, *, checkpointing: bool) -> None:
        model = petl_of(backbone).train()
        model.gradient_checkpointing(checkpointing)
        self.parameters = list(model.petl_parameters().values())
        self.encode_image, self.encode_text = model.encode_image, model.encode_text


Tuning = FullTuning | FullTuningHere | PetlTuning
KINDS: dict[str, type[Tuning]] = {"full": FullTuning, "petl": PetlTuning}


def stepper(tuned: Tuning, pixels: Tensor, tokens: Tensor) -> Callable[[], None]:
    """A training step by SDM and Adam."""
    optimiser = torch.optim.Adam(tuned.parameters, lr=1e-5, eps=1e-3)
    targets = torch.eye(len(pixels), device=pixels.device)

    def step() -> None:
        with torch.autocast("cuda", torch.bfloat16, enabled=pixels.is_cuda):
            texts, images = tuned.encode_text(tokens), tuned.encode_image(pixels)
        scores = normalize(texts.float(), dim=-1) @ normalize(images.float(), dim=-1).T
        masked_sdm(scores, targets).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        optimiser.zero_grad()

    return step


def inputs(backbone: Backbone, count: int) -> tuple[Tensor, Tensor]:
    device = backbone.clip.logit_scale.device
    assert len(CAPTION.split()) == 24
    pixels = torch.randn(count, 3, *PERSON_SIZE, generator=torch.Generator().manual_seed(0))
    return pixels.to(device), backbone.tokenize([CAPTION] * count).to(device)


def seconds(runs: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each, taking turns: wall clock, or with one thread on CPU the processor's own time, which does
    not grow when others use the machine."""
    alone = torch.get_num_threads() == 1 and not torch.cuda.is_available()
    clock = time.process_time if alone else time.perf_counter
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repeats + 1):
        for name, run in runs.items():
            began = clock()
            run()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if turn:  # the first warms up
                taken[name].append(clock() - began)
    return {name: median(values) for name, values in taken.items()}


def encoding(backbone: Backbone, repeats: int, batch: int) -> dict[str, dict[str, float]]:
    """Seconds of image and of text encoding: plain open_clip, training form, serving form."""
    model = petl_of(backbone).eval()
    served = merge(model)
    pixels, tokens = inputs(backbone, batch)

    def of(encode: Callable[[Tensor], Tensor], given: Tensor) -> Callable[[], Tensor]:
        def run() -> Tensor:
            with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16, enabled=given.is_cuda):
                return encode(given)

        return run

    kinds: dict[str, Any] = {"plain": backbone.clip, "unmerged": model, "served": served}
    return {
        "image": seconds({name: of(m.encode_image, pixels) for name, m in kinds.items()}, repeats),
        "text": seconds({name: of(m.encode_text, tokens) for name, m in kinds.items()}, repeats),
    }


def training(repeats: int, batch: int) -> dict[str, float]:
    """Seconds of a training step of each."""
    kinds: dict[str, type[Tuning]] = KINDS | {"full here": FullTuningHere}
    backbones = {kind: backbone_of() for kind in kinds}  # full tuning changes its own
    pixels, tokens = inputs(backbones["full"], batch)
    tuned = {kind: made(backbones[kind], checkpointing=False) for kind, made in kinds.items()}
    return seconds({kind: stepper(one, pixels, tokens) for kind, one in tuned.items()}, repeats)


def peak(kind: str, batch: int, *, checkpointing: bool) -> float:
    """MB that model, optimiser and two steps need at their peak, over what the process held before (for itself)."""
    before = resident()
    backbone = backbone_of()
    pixels, tokens = inputs(backbone, batch)
    step = stepper(KINDS[kind](backbone, checkpointing=checkpointing), pixels, tokens)
    for _ in range(2):  # the second has the optimiser's moments too
        step()
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e6
    return (peak_resident() - before) / 1e6


def peaks(arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for name, more in (("memory", []), ("memory, checkpointed", ["--checkpointing"])):
        found[name] = {}
        for kind in KINDS:
            command = [sys.executable, "-m", "tests.benchmarks.model", "--peak", kind, *more]
            command += ["--threads", str(arguments.threads), "--train-batch", str(arguments.train_batch)]
            # glibc keeps freed memory by thread arenas and thresholds that move: fixed, so that both are counted alike
            environment = os.environ | {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
            found[name][kind] = float(done.stdout)
    return found


def matmul_rate() -> float:
    """Bf16 operations a second of the chip on a large square product, measured."""
    a = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    taken = seconds({"product": lambda: a @ a}, 20)["product"]
    return 2 * 8192**3 / taken


def operations(model: nn.Module, pixels: Tensor) -> float:
    """Multiplications and additions of encoding these pictures as they are timed, counted by PyTorch."""
    from torch.utils.flop_counter import FlopCounterMode

    autocast = torch.autocast("cuda", torch.bfloat16, enabled=pixels.is_cuda)
    with FlopCounterMode(display=False) as counter, torch.inference_mode(), autocast:
        model.encode_image(pixels)  # type: ignore[operator]
    return float(counter.get_total_flops())


def gpu(backbone: Backbone, taken: dict[str, dict[str, float]], batch: int) -> dict[str, float]:
    """Images a second, and the share of the measured matmul rate, of plain open_clip and of the serving form."""
    rate, (pixels, _) = matmul_rate(), inputs(backbone, batch)
    kinds: dict[str, nn.Module] = {"plain": backbone.clip, "served": merge(petl_of(backbone))}
    out = {"matmul TFLOP/s": rate / 1e12}
    for name, model in kinds.items():
        out[f"{name} images/s"] = batch / taken["image"][name]
        out[f"{name} share of it"] = operations(model, pixels) / taken["image"][name] / rate
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--batch", type=int, default=8, help="of encoding")
    parser.add_argument("--train-batch", type=int, default=16)
    parser.add_argument(
        "--parts", nargs="+", choices=("encoding", "step", "memory"), default=["encoding", "step", "memory"]
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--peak", choices=tuple(KINDS), help=argparse.SUPPRESS)
    parser.add_argument("--checkpointing", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.peak:
        print(peak(arguments.peak, arguments.train_batch, checkpointing=arguments.checkpointing))
        return
    result = measure(arguments)
    if arguments.json:
        print(json.dumps(result, indent=1))
        return
    print(f"{result['device']}, {arguments.threads} threads, ViT-B-16 at 384 x 128, random weights")
    for name, row in result["rows"].items():
        limit = f" (<= {row['limit']})" if row["limit"] else ""
        print(f"{name:22} {row['ours']:>8.4g} / {row['plain']:>8.4g} {row['unit']:2} = {row['ratio']:.3f}{limit}")
    for name, value in result["gpu"].items():
        print(f"{name:22} {value:.4g}")


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    rows: dict[str, dict[str, Any]] = {}

    def row(name: str, ours: float, plain: float, unit: str) -> None:
        rows[name] = {"ours": ours, "plain": plain, "unit": unit, "ratio": ours / plain, "limit": LIMITS.get(name)}

    cuda, more = torch.cuda.is_available(), {}
    if "encoding" in arguments.parts:
        backbone = backbone_of()
        taken = encoding(backbone, arguments.repeats, arguments.batch)
        for name in ("image", "text"):
            row(name, taken[name]["served"], taken[name]["plain"], "s")
            rows[name]["unmerged"] = taken[name]["unmerged"] / taken[name]["plain"]
        more = gpu(backbone, taken, arguments.batch) if cuda else {}
    if "step" in arguments.parts:
        steps = training(arguments.repeats, arguments.train_batch)
        row("step", steps["petl"], steps["full"], "s")
        row("step, cut alike", steps["petl"], steps["full here"], "s")
    if "memory" in arguments.parts:
        for name, found in peaks(arguments).items():
            row(name, found["petl"], found["full"], "MB")
    return {"device": torch.cuda.get_device_name() if cuda else "CPU", "rows": rows, "gpu": more}


if __name__ == "__main__":
    main()

"""Where models compute: names that are refused, batches that are halved, and devices that are full or gone."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from core.core_errors import DeviceError
from core.device import LEAST_FREE, BatchSize, autocast, choose_device, faults_of, half_type, require_memory
from core.encoder import Encoder
from core.model import UPPerson
from tests.coloured import people
from tests.learn_config import learning
from tests.small_clip import small_backbone
from train.finetuning.loop import learn
from train.finetuning.pairs import build
from train.finetuning.sampler import ahead
from train.finetuning.start import MINI_PETL

CPU = torch.device("cpu")
HERE = people()


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:-1", "cuda:x", "", "cpu:0", "tpu"])
def test_an_unknown_device_is_refused_with_those_there_are(name: str) -> None:
    with pytest.raises(DeviceError, match="auto, cpu, cuda, cuda:N or mps"):
        choose_device(name)


@pytest.mark.parametrize("name", ["cpu", " CPU "])
def test_the_processor_is_always_there(name: str) -> None:
    assert choose_device(name) == CPU


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")
def test_a_gpu_that_is_not_there_is_named() -> None:
    assert choose_device("auto").type in ("cpu", "mps")
    with pytest.raises(DeviceError, match="no device cuda:3: PyTorch sees no GPU here"):
        choose_device("cuda:3")


def test_a_gpu_without_free_memory_is_refused() -> None:
    require_memory(torch.device("cuda", 0), LEAST_FREE)
    with pytest.raises(DeviceError, match=r"cuda:0 has 0\.2 GB of memory free, and 1 GB"):
        require_memory(torch.device("cuda", 0), 200_000_000)


def test_a_gpu_that_vanishes_is_named() -> None:
    with (
        pytest.raises(DeviceError, match=r"cuda:1 stopped answering \(CUDA error: unspecified launch failure\)"),
        faults_of(torch.device("cuda", 1)),
    ):
        raise torch.AcceleratorError("CUDA error: unspecified launch failure\nmore")


def test_other_faults_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="shapes"), faults_of(CPU):
        raise RuntimeError("shapes do not fit")


def test_what_does_not_fit_is_halved_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    taken: list[int] = []

    def encode(part: Tensor) -> Tensor:
        taken.append(len(part))
        if len(part) > 2:
            torch.empty(1 << 60)  # what the allocator says for real
        return part * 2

    batch = BatchSize(16, CPU)
    with caplog.at_level(logging.WARNING):
        assert torch.equal(batch.encode(encode, torch.arange(9)), torch.arange(9) * 2)
    assert taken == [9, 8, 4, 2, 2, 2, 2, 1]
    assert batch.most == 2
    assert len(caplog.records) == 1
    assert "halved" in caplog.text


def test_one_picture_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(DeviceError, match="cpu ran out of memory"):
        BatchSize(4, CPU).encode(lambda _: torch.empty(1 << 60), torch.arange(4))


def narrowed(model: UPPerson, most: int) -> UPPerson:
    """The model, whose first block takes at most so many pictures at once."""

    def refuse(_block: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if len(inputs[0]) > most:
            torch.empty(1 << 60)

    model.blocks("image")[0].register_forward_pre_hook(refuse)
    return model


def test_an_encoder_goes_on_with_smaller_batches() -> None:
    backbone = small_backbone()
    pixels = np.stack(list(HERE.pixels.values()))[:, :48, :16]
    whole = Encoder(UPPerson(backbone)).encode_pixels(pixels)
    halved = Encoder(narrowed(UPPerson(backbone), 5)).encode_pixels(pixels)
    np.testing.assert_allclose(whole, halved, atol=1e-6)


def test_a_step_that_does_not_fit_has_the_same_gradient_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict, raising=False)  # fp32: bf16 would add its own rounding
    settings = learning(3, lr=1e-3, queries=8, replay=0, drift=3.0)
    models = [UPPerson(small_backbone(), MINI_PETL) for _ in range(2)]
    narrowed(models[1], 7)
    for model in models:
        learn(model, build(HERE.marks()), HERE.pixels, None, settings, unmarked=list(HERE.pixels)[:20])
    one, other = (list(model.parameters()) for model in models)
    for mine, theirs in zip(one, other, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-3)


def test_batches_made_ahead_are_the_same_ones() -> None:
    drawn = [list(ahead(iter(range(9)).__next__, 5, threaded=threaded)) for threaded in (False, True)]
    assert drawn[0] == drawn[1] == [0, 1, 2, 3, 4]
    assert list(ahead(iter(range(9)).__next__, 0, threaded=True)) == []


def test_trainable_weights_stay_fp32_where_the_rest_is_in_16_bits() -> None:
    with autocast(CPU):
        linear = nn.Linear(4, 4)
        out = linear(torch.ones(1, 4))
    assert out.dtype == (half_type(CPU) or torch.float32)
    assert linear.weight.dtype == torch.float32
    with autocast(CPU, enabled=False):
        assert linear(torch.ones(1, 4)).dtype == torch.float32

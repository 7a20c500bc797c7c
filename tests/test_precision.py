"""bf16 where the hardware multiplies it, fp32 elsewhere."""

from __future__ import annotations

import pytest
import torch

from core.device import quick_in_bf16
from train.precision import quick_step


@pytest.mark.parametrize(
    ("known", "quick"),
    [
        ({"avx2": True, "avx512_f": True, "avx512_bf16": False, "amx_bf16": False}, False),
        ({"avx512_bf16": True}, True),
        ({"amx_bf16": True}, True),
        ({}, False),
    ],
)
def test_a_processor_trains_in_bf16_only_where_it_has_it(
    monkeypatch: pytest.MonkeyPatch, known: dict[str, bool], quick: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known, raising=False)
    assert quick_in_bf16() is quick
    assert not quick_in_bf16("mps")
    with quick_step():
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == (torch.bfloat16 if quick else torch.float32)


@pytest.mark.parametrize("quick", [True, False])
def test_a_gpu_trains_in_bf16_only_where_it_need_not_emulate_it(monkeypatch: pytest.MonkeyPatch, quick: bool) -> None:
    def supported(*, including_emulation: bool) -> bool:
        return including_emulation or quick

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert quick_in_bf16("cuda") is quick


def test_without_a_way_to_know_it_is_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert not quick_in_bf16()

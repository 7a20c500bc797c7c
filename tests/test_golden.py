"""Our model gives the released implementation's outputs, loss and gradients on its own weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from core.checkpoints import load_released, released_name
from core.errors import CheckpointError
from core.model import UPPerson
from train.losses import identity_targets, masked_sdm

GOLDEN = Path(__file__).parent / "data" / "up_person_released.safetensors"


@pytest.fixture(scope="module")
def golden() -> tuple[dict[str, Tensor], dict[str, object]]:
    with safe_open(GOLDEN, framework="pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, json.loads(file.metadata()["config"])  # noqa: SIM118 - it cannot be iterated


@pytest.fixture(scope="module")
def model(golden: tuple[dict[str, Tensor], dict[str, object]]) -> UPPerson:
    tensors, config = golden
    weights = {key.removeprefix("weights/"): value for key, value in tensors.items() if key.startswith("weights/")}
    height, width = config["image_size"]  # type: ignore[misc]
    return load_released(weights, image_size=(height, width))


def test_embeddings_loss_and_every_gradient(
    model: UPPerson, golden: tuple[dict[str, Tensor], dict[str, object]]
) -> None:
    tensors, config = golden
    images = model.encode_image(tensors["input/images"])
    texts = model.encode_text(tensors["input/caption_ids"])
    assert (images - tensors["output/image_embeddings"]).abs().max() < 1e-5
    assert (texts - tensors["output/text_embeddings"]).abs().max() < 1e-5

    pids = tensors["input/pids"]
    scores = torch.nn.functional.normalize(texts, dim=-1) @ torch.nn.functional.normalize(images, dim=-1).T
    targets = identity_targets(pids, pids)
    loss = masked_sdm(scores, targets, temperature=float(config["temperature"]))  # type: ignore[arg-type]
    assert abs(float(loss.detach()) - float(tensors["output/sdm_loss"])) < 1e-4

    parameters = model.petl_parameters()
    assert len(parameters) == 84
    assert {"grad/" + released_name(name) for name in parameters} == {k for k in tensors if k.startswith("grad/")}
    loss.backward()
    for name, parameter in parameters.items():
        expected = tensors["grad/" + released_name(name)]
        assert parameter.grad is not None
        assert (parameter.grad - expected).norm() <= 1e-4 * expected.norm(), name


def test_an_incomplete_checkpoint_is_refused_with_the_missing_names(
    golden: tuple[dict[str, Tensor], dict[str, object]],
) -> None:
    weights = {key.removeprefix("weights/"): value for key, value in golden[0].items() if key.startswith("weights/")}
    del weights["text_prefix_learner.text_prefix.1.val.tokens"]
    with pytest.raises(CheckpointError, match=r"missing text\.1\.attn\.prefix\.values"):
        load_released(weights, image_size=(96, 32))

"""Backbones: by name, from files, offline, damaged; and what a small vocabulary knows."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from open_clip.model import CLIP
from open_clip.transformer import QuickGELU
from safetensors.torch import load_file, save_file

from core.backbones import (
    PERSON_SIZE,
    Backbone,
    ClipName,
    backbone_names,
    build_clip,
    freeze,
    load_backbone,
    load_mini,
    save_mini,
)
from core.checkpoints import save_released
from core.core_errors import BackboneError
from core.encoder import Encoder
from core.model import UPPerson
from core.petl import PetlConfig
from store import VersionError
from store.values import check_version
from tests.small_clip import CONFIG, small_backbone, small_clip, stir

WORDS = ("a", "woman", "coat", "red", "t", "shirt", "grey")
TINY: dict[str, Any] = CONFIG | {
    "vision_cfg": {"image_size": [32, 16], "patch_size": 16, "width": 64, "layers": 1, "head_width": 64},
    "text_cfg": {"context_length": 40, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1},
}


def write_tiny(path: Path) -> tuple[CLIP, torch.Tensor]:
    """Write a random small CLIP that knows WORDS; returns it and the ids of its tokens."""
    tokenizer = open_clip.SimpleTokenizer()
    used = sorted({token for word in (*WORDS, "'s", "-") for token in tokenizer.encode(word)})
    ids = torch.tensor([*used, tokenizer.sot_token_id, tokenizer.eot_token_id])
    clip = small_clip(TINY)
    rows = clip.token_embedding.weight.detach()[: len(ids) + 1]
    save_mini(clip, path, rows=rows, ids=ids, facts={"config": TINY, "known_words": sorted(WORDS), "note": "tiny"})
    return clip, ids


@pytest.fixture(scope="module")
def tiny_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not to be changed: copy its folder."""
    path = tmp_path_factory.mktemp("tiny") / "mini.safetensors"
    write_tiny(path)
    return path


@pytest.fixture(scope="module")
def tiny(tiny_file: Path) -> Backbone:
    return load_mini(tiny_file)


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    names = backbone_names()
    assert names[0] == "mini"
    assert {"ViT-B-16", "ViT-B-32", "ViT-L-14", "ViT-L-14-336", "ViT-H-14"} < set(names)
    for name in ("ViT-Z-99", "", "MINI", "../mini", "ViT-B-16-quickgelu", "RN50x3"):
        with pytest.raises(
            BackboneError, match=re.escape(f"unknown backbone '{name}': choose one of mini, ViT-B-16, ")
        ):
            load_backbone(name)


@pytest.mark.parametrize(
    "name", ["RN50", "nllb-clip-base-siglip", "coca_ViT-B-32", "roberta-ViT-B-32", "ViT-L-14-CLIPA"]
)
def test_towers_that_are_not_clips_are_refused_before_anything_is_fetched(name: str) -> None:
    assert name not in backbone_names()
    with pytest.raises(BackboneError, match=f"backbone '{name}' is not a plain CLIP ViT with CLIP's text tower, nor"):
        load_backbone(name)


def test_a_tag_chooses_the_weights_and_their_activation() -> None:
    def parsed(name: str) -> tuple[str | None, bool]:
        found = ClipName.parse(name)
        return found.tag, found.quick_gelu

    assert parsed("ViT-B-16") == parsed("ViT-B-16.openai") == ("openai", True)
    assert parsed("ViT-L-14") == parsed("ViT-L-14-336") == ("openai", True)
    assert parsed("ViT-B-32.laion2b_s34b_b79k") == ("laion2b_s34b_b79k", False)
    assert parsed("ViT-B-32.laion400m_e32") == ("laion400m_e32", True)  # of LAION, with QuickGELU all the same
    assert parsed("ViT-H-14.dfn5b") == ("dfn5b", True)
    assert parsed("ViT-H-14") == (None, False)
    with pytest.raises(BackboneError, match=r"no weights 'laion9' of ViT-B-32: choose one of .*laion2b_s34b_b79k"):
        ClipName.parse("ViT-B-32.laion9")
    with pytest.raises(BackboneError, match=r"no weights of OpenAI's for ViT-H-14: name others as ViT-H-14\.laion2b"):
        load_backbone("ViT-H-14")
    longest = 0
    for architecture in backbone_names()[1:]:
        for tag in open_clip.list_pretrained_tags_by_model(architecture):
            known = ClipName.parse(f"{architecture}.{tag}")
            assert known.quick_gelu == bool(open_clip.get_pretrained_cfg(architecture, tag).get("quick_gelu"))
            check_version(f"{architecture}.{tag}-v1234567", VersionError)
            longest += 1
    assert longest > 40


def test_mini_survives_its_file(tmp_path: Path) -> None:
    path = tmp_path / "made" / "mini.safetensors"
    clip, ids = write_tiny(path)
    backbone = load_backbone("mini", weights=path)
    assert backbone.name == "mini"
    assert backbone.image_size == (32, 16)
    assert backbone.embed_dim == 32
    assert backbone.facts["note"] == "tiny"
    assert backbone.known_words == set(WORDS)
    assert backbone.tokenize(["a coat"]).shape == (1, 40)
    assert not backbone.clip.training
    assert not any(parameter.requires_grad for parameter in backbone.clip.parameters())
    loaded = backbone.clip.state_dict()
    for name, value in clip.state_dict().items():
        if name != "token_embedding.weight":
            assert torch.equal(loaded[name], value.half().float()), name
    table, rows = loaded["token_embedding.weight"], clip.token_embedding.weight.detach().half().float()
    assert torch.equal(table[ids], rows[1 : len(ids) + 1])
    unknown = torch.ones(len(table), dtype=torch.bool)
    unknown[ids] = False
    assert (table[unknown] == rows[0]).all()
    assert path.stat().st_size < 2 * sum(p.numel() for p in clip.parameters()) - 49_000 * 64 * 2 + 20_000


def test_unknown_words_share_one_neutral_row(tiny: Backbone) -> None:
    encoder = Encoder(UPPerson(tiny, PetlConfig(prefix_length=2, lora_rank=2)))
    one, other, known = encoder.encode_texts(["a zebra coat", "a giraffe coat", "a red coat"])
    assert (one == other).all()
    assert abs(one - known).max() > 1e-3


@pytest.mark.parametrize(
    ("caption", "unknown"),
    [
        ("a woman, red coat", ()),
        ("A WOMAN; Red COAT!", ()),
        ('(red) "coat"... a/woman & grey?', ()),
        ("a t-shirt", ()),
        ("a grey-red coat", ()),
        ("the woman's coat", ("the",)),
        ("the woman’s coat", ("the",)),
        ("a ZEBRA coat, zebra, Zebra", ("zebra",)),
        ("crimson coat over maroon shirt", ("crimson", "over", "maroon")),
        ("a red-crimson coat", ("red-crimson",)),
        ("coat no 23, 2nd woman", ("no", "23", "2nd")),
        ("a_woman red__coat", ()),
        ("une femme en manteau crème", ("une", "femme", "en", "manteau", "crème")),
        ("女人", ("女人",)),
        ("coatred", ("coatred",)),
        ("- ' -- ''", ()),
        ("", ()),
    ],
)
def test_words_outside_the_vocabulary_are_named_once_in_order(
    tiny: Backbone, caption: str, unknown: tuple[str, ...]
) -> None:
    assert tiny.unknown_words(caption) == unknown


def test_a_full_vocabulary_knows_every_word(tiny: Backbone) -> None:
    full = Backbone("full", tiny.clip, tiny.tokenize, tiny.image_size)
    assert full.unknown_words("zebra 23 女人") == ()


def rewritten(path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    state = load_file(path)
    change(state)
    save_file(state, path)


def with_facts(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    facts = json.loads(path.with_suffix(".json").read_text())
    change(facts)
    path.with_suffix(".json").write_text(json.dumps(facts))


DAMAGE: dict[str, Callable[[Path], object]] = {
    "no file": lambda path: path.unlink(),
    "no facts": lambda path: path.with_suffix(".json").unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-1000]),
    "no safetensors": lambda path: path.write_bytes(b"PK\x03\x04" * 1000),
    "facts are no JSON": lambda path: path.with_suffix(".json").write_text("{'config'"),
    "facts are no text": lambda path: path.with_suffix(".json").write_bytes(b"\xff\xfe\x00"),
    "facts are a list": lambda path: path.with_suffix(".json").write_text("[]"),
    "facts without config": lambda path: with_facts(path, lambda facts: facts.pop("config")),
    "facts without words": lambda path: with_facts(path, lambda facts: facts.pop("known_words")),
    "an option nobody knows": lambda path: with_facts(path, lambda facts: facts["config"].update(depth=3)),
    "another width": lambda path: with_facts(path, lambda facts: facts["config"]["text_cfg"].update(width=128)),
    "no picture size": lambda path: with_facts(path, lambda facts: facts["config"]["vision_cfg"].pop("image_size")),
    "missing tensor": lambda path: rewritten(path, lambda state: state.pop("text_projection")),
    "missing rows": lambda path: rewritten(path, lambda state: state.pop("token_rows")),
    "extra tensor": lambda path: rewritten(path, lambda state: state.update(more=torch.zeros(3))),
    "too few rows": lambda path: rewritten(
        path, lambda state: state.update(token_rows=state["token_rows"][:3].clone())
    ),
    "ids beyond": lambda path: rewritten(path, lambda state: state["token_ids"].add_(40_000)),
    "not a number": lambda path: rewritten(path, lambda state: state["text_projection"][0, 0].fill_(torch.nan)),
    "infinite row": lambda path: rewritten(path, lambda state: state["token_rows"][2, 0].fill_(torch.inf)),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_weights_of_mini_are_refused_with_the_way_out(damage: str, tiny_file: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(tiny_file.parent, tmp_path / "copy")) / tiny_file.name
    DAMAGE[damage](path)
    with pytest.raises(BackboneError, match=r"could not be read from .*mini\.safetensors") as caught:
        load_mini(path)
    assert "restore the file, or make it again with `python -m train pretrain`" in str(caught.value)


def test_clip_offline_and_without_cache_says_the_way_out(tmp_path: Path) -> None:
    code = (
        "from core import BackboneError, load_backbone\n"
        "try:\n    load_backbone('ViT-B-16')\nexcept BackboneError as error:\n    print(error)\n"
    )
    offline = {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGINGFACE_"))}
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, env=inherited | offline, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "the weights of backbone 'ViT-B-16' could not be read from the Hugging Face Hub or its cache" in done.stdout
    assert "Start once with a network connection" in done.stdout
    assert "`--backbone mini`, which needs no download" in done.stdout


def openai_state(patch: int = 16) -> dict[str, torch.Tensor]:
    """OpenAI's ViT-B at 224x224 by its shapes; each tensor repeats one number, so that the file stays small."""
    width, text_width, vocabulary = 768, 512, 49408

    def block(name: str, d: int) -> dict[str, tuple[int, ...]]:
        norms = {f"{name}.{norm}.{part}": (d,) for norm in ("ln_1", "ln_2") for part in ("weight", "bias")}
        return norms | {
            f"{name}.attn.in_proj_weight": (3 * d, d),
            f"{name}.attn.in_proj_bias": (3 * d,),
            f"{name}.attn.out_proj.weight": (d, d),
            f"{name}.attn.out_proj.bias": (d,),
            f"{name}.mlp.c_fc.weight": (4 * d, d),
            f"{name}.mlp.c_fc.bias": (4 * d,),
            f"{name}.mlp.c_proj.weight": (d, 4 * d),
            f"{name}.mlp.c_proj.bias": (d,),
        }

    shapes: dict[str, tuple[int, ...]] = {
        "logit_scale": (),
        "text_projection": (text_width, 512),
        "positional_embedding": (77, text_width),
        "token_embedding.weight": (vocabulary, text_width),
        "ln_final.weight": (text_width,),
        "ln_final.bias": (text_width,),
        "visual.proj": (width, 512),
        "visual.class_embedding": (width,),
        "visual.positional_embedding": (1 + (224 // patch) ** 2, width),
        "visual.conv1.weight": (width, 3, patch, patch),
        **{f"visual.{norm}.{part}": (width,) for norm in ("ln_pre", "ln_post") for part in ("weight", "bias")},
    }
    for index in range(12):
        shapes |= block(f"transformer.resblocks.{index}", text_width)
        shapes |= block(f"visual.transformer.resblocks.{index}", width)
    return {name: torch.tensor((n + 1) / 1024).expand(shape) for n, (name, shape) in enumerate(shapes.items())}


def test_clip_weights_from_a_local_file_arrive_at_the_size_of_a_person(tmp_path: Path) -> None:
    state, path = openai_state(), tmp_path / "clip.pt"
    torch.save(state, path)
    assert path.stat().st_size < 1_000_000
    backbone = load_backbone("ViT-B-16", weights=path)
    assert backbone.name == "ViT-B-16"
    assert backbone.image_size == (384, 128)
    assert backbone.embed_dim == 512
    assert backbone.known_words is None
    assert backbone.tokenize(["a man"]).shape == (1, 77)
    assert not backbone.clip.training
    loaded = dict(backbone.clip.named_parameters())
    assert loaded.keys() == state.keys()
    assert loaded["visual.positional_embedding"].shape == (1 + 24 * 8, 768)
    for name, parameter in loaded.items():
        assert not parameter.requires_grad
        low, high = (float(edge) for edge in parameter.detach().aminmax())
        expected = float(state[name].flatten()[0])
        assert low == pytest.approx(expected, abs=1e-6), name
        assert high == pytest.approx(expected, abs=1e-6), name


def test_weights_out_of_the_hubs_cache_without_a_network(tmp_path: Path) -> None:
    """The cache as the Hub's own library lays it out, with weights of a real but small architecture."""
    name, repo = "ViT-B-32.laion2b_s34b_b79k", "models--laion--CLIP-ViT-B-32-laion2B-s34B-b79K"
    commit = "a" * 40
    snapshot = tmp_path / "hub" / repo / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (tmp_path / "hub" / repo / "refs").mkdir()
    (tmp_path / "hub" / repo / "refs" / "main").write_text(commit)
    blob = tmp_path / "hub" / repo / "blobs" / ("b" * 64)
    blob.parent.mkdir()
    state = openai_state(patch=32)
    torch.save(state, blob)
    (snapshot / "open_clip_pytorch_model.bin").symlink_to(blob)
    code = (
        "import torch\nfrom core import load_backbone\n"
        f"b = load_backbone({name!r})\n"
        "print(b.name, b.embed_dim, tuple(b.clip.visual.positional_embedding.shape), "
        "type(b.clip.transformer.resblocks[0].mlp.gelu).__name__, "
        "round(float(b.clip.text_projection.mean()) * 1024, 3))\n"
    )
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGINGFACE_"))}
    offline = {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, env=inherited | offline, capture_output=True, text=True, check=False
    )
    number = list(state).index("text_projection") + 1.0
    assert done.stdout.split() == [name, "512", "(49,", "768)", "GELU", str(number)], done.stderr


def small_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    """An architecture of its own in open_clip's registry, as its `add_model_config` would put it there."""
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-test", CONFIG | {"quick_gelu": False})
    backbone_names.cache_clear()


@pytest.mark.parametrize("kind", ["safetensors", "torch", "trainer", "archive", "irra", "released"])
def test_every_kind_of_file_gives_the_same_weights(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_architecture(monkeypatch)
    clip = build_clip(CONFIG | {"vision_cfg": CONFIG["vision_cfg"] | {"image_size": PERSON_SIZE}}).half().float().eval()
    state, path = clip.state_dict(), tmp_path / f"clip.{kind}"
    if kind == "safetensors":
        save_file({name: value.contiguous() for name, value in state.items()}, path)
    elif kind == "torch":
        torch.save(state, path)
    elif kind == "trainer":
        torch.save({"epoch": 3, "state_dict": {f"module.{name}": value.half() for name, value in state.items()}}, path)
    elif kind == "irra":  # as that project saves it: the fine-tuned CLIP, without its scale, beside heads of its own
        inside = {f"base_model.{name}": value.half() for name, value in state.items() if name != "logit_scale"}
        heads = {"classifier.weight": torch.zeros(9, 32), "cross_attn.in_proj_weight": torch.zeros(3, 3)}
        saved = {"model": inside | heads, "optimizer": {"state": {}}, "iteration": 60, "best": np.float64(73.4)}
        torch.save(saved, path)
    elif kind == "archive":
        inputs = {"encode_image": torch.zeros(1, 3, *PERSON_SIZE), "encode_text": torch.zeros(1, 77, dtype=torch.long)}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.jit.trace_module(clip, inputs, check_trace=False).half().save(path)
    else:
        model = stir(UPPerson(Backbone("x", freeze(clip), open_clip.SimpleTokenizer(), PERSON_SIZE), PetlConfig()))
        clip.visual.transformer.resblocks[0].mlp.gelu = QuickGELU()
        model.clip.visual.transformer.resblocks[0].mlp.gelu = QuickGELU()
        save_released(model, path)
    loaded = load_backbone("ViT-test", weights=path)
    unsaved = {"logit_scale"} if kind == "irra" else set()
    assert all(
        torch.equal(value, state[name]) for name, value in loaded.clip.state_dict().items() if name not in unsaved
    )
    assert loaded.tokenize(["a man"]).shape == (1, 77)
    backbone_names.cache_clear()


def test_faults_of_a_file_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_architecture(monkeypatch)
    state = small_clip().state_dict()
    del state["ln_final.bias"]
    state["text_projection"][0, 0] = torch.nan
    state |= {"visual.proj": torch.zeros(2), "visual.more": torch.zeros(2)}
    torch.save(state, tmp_path / "clip.pt")
    with pytest.raises(BackboneError) as caught:
        load_backbone("ViT-test", weights=tmp_path / "clip.pt")
    for fault in (
        "missing ln_final.bias",
        "unexpected visual.more",
        "visual.proj is (2,)",
        "text_projection holds NaN",
    ):
        assert fault in str(caught.value)
    backbone_names.cache_clear()


class Malice:
    """Unpickling this runs code: it makes a folder."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, (str(self.target),)


def test_weights_with_code_in_them_are_refused_and_the_code_is_not_run(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    plain, zipped = tmp_path / "plain.pt", tmp_path / "zipped.pt"
    plain.write_bytes(pickle.dumps(Malice(ran)))
    torch.save({"visual.proj": Malice(ran)}, zipped)
    for path in (plain, zipped):
        with pytest.raises(BackboneError, match=f"could not be read from the file .*{path.name}") as caught:
            load_backbone("ViT-B-16", weights=path)
        assert "Expected a state dict of ViT-B-16-quickgelu" in str(caught.value)
        assert not ran.exists()
    pickle.loads(plain.read_bytes())  # noqa: S301  the proof that it would have run
    assert ran.exists()


def test_a_weights_file_that_is_missing_or_of_another_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match=r"could not be read from the file .*gone\.pt .*: check the file"):
        load_backbone("ViT-B-16", weights=tmp_path / "gone.pt")
    other = tmp_path / "other.safetensors"
    save_file({name: value.contiguous() for name, value in small_clip(TINY).state_dict().items()}, other)
    with pytest.raises(BackboneError, match=r"could not be read from the file .*other\.safetensors"):
        load_backbone("ViT-B-16", weights=other)


def test_the_fingerprint_distinguishes_weights() -> None:
    one, same = small_backbone(), small_backbone()
    assert one.fingerprint() == same.fingerprint()
    assert re.fullmatch("[0-9a-f]{16}", one.fingerprint())
    with torch.no_grad():
        same.clip.visual.conv1.weight.view(-1)[0] += 1e-3
    assert one.fingerprint() != same.fingerprint()

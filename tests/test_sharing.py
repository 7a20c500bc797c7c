from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from core import PetlConfig, UPPerson, load_backbone, load_version, save_petl
from core.backbones import Backbone
from core.checkpoints import released_name
from core.core_errors import CheckpointError
from store import Database, HubError, VersionError, VersionRow
from store.hub import fetch, push_folder
from store.workspace import Workspace
from tests.conftest import free_port
from tests.small_clip import stir
from tests.small_hub import SmallHub, small_hub
from train.model_card import card
from train.sharing import add_version, push_version


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallHub]:
    monkeypatch.setenv("HF_TOKEN", "hf_" + "x" * 34)
    with small_hub() as found:
        yield found


@pytest.fixture
def stores(tmp_path: Path, mini: Backbone) -> Iterator[Workspace]:
    """A data folder whose mini-v1 has weights of its own."""
    Database(tmp_path / "data" / "app.db").close()
    with Workspace.existing(tmp_path / "data") as opened:
        opened.versions.ensure_base("mini")
        model = UPPerson(mini, PetlConfig(prefix_length=2, lora_rank=2, adapter_reduction=16))
        stir(model)
        save_petl(model, tmp_path / "data" / "models" / "mini-v1")
        facts = '{"metrics": {"hits": 12, "misses": 30, "base_r1": 0.93}, "gate": {"numbers": {"base_before": 0.94}}}'
        (tmp_path / "data" / "models" / "mini-v1" / "facts.json").write_text(facts)
        opened.versions.add(
            VersionRow(
                id="mini-v1", backbone="mini", parent="mini-v0", folder="models/mini-v1",
                metrics={"hits": 12, "misses": 30, "base_r1": 0.93}, mark_counts={"hits": 12, "misses": 30},
                gate={
                    "decision": "promoted",
                    "reason": "better.",
                    "numbers": {"base_before": 0.94, "base_after": 0.93},
                },
            )
        )  # fmt: skip
        yield opened


def test_a_card_says_what_a_version_is_and_is_worth(stores: Workspace) -> None:
    row = stores.versions.get("mini-v1")
    text = card(row, stores.versions.get("mini-v0"), "1,000 parameters")
    assert text.startswith("---\nlicense: apache-2.0\n")
    for words in ("`mini`", "1,000 parameters", "`mini-v0`", "12 hits, 30 misses", "promoted: better.", "Licence"):
        assert words in text
    assert "| base | 0.9400 | 0.9300 |" in text
    assert "Nothing was measured." in card(replace(row, metrics={}, gate={}), None, "")


def test_a_card_holds_no_markup_or_formula_of_others(stores: Workspace) -> None:
    bad = "=cmd|'/c calc'!A0\n\n# <img src=x> [here](javascript:1) `x`"
    row = stores.versions.get("mini-v1")
    metrics = {"hits": 1, bad: 0.5}
    text = card(replace(row, metrics=metrics, gate={"decision": bad, "reason": bad}), None, "")
    lines = [line for line in text.splitlines() if "calc" in line]
    assert [line.count("|") for line in lines] == [3, 4]
    assert not [line for line in lines if "| =" in line or "<img" in line or "[here" in line or "`" in line]


def test_added_weights_of_the_text_tower_alone_share_the_plain_vectors(
    stores: Workspace, mini: Backbone, tmp_path: Path
) -> None:
    save_petl(UPPerson(mini, PetlConfig(prefix_length=2, lora_rank=2, towers=("text",))), tmp_path / "text")
    assert add_version(stores, str(tmp_path / "text")).vectors == "mini-v0"
    assert add_version(stores, str(stores.folder / "models" / "mini-v1")).vectors == "mini-v3"


def test_a_version_goes_to_the_hub_and_comes_back(stores: Workspace, hub: SmallHub, mini: Backbone) -> None:
    url = push_version(stores, "mini-v1", "ada/search", endpoint=hub.url)
    assert url == f"{hub.url}/ada/search"
    assert hub.private == {"ada/search": True}
    assert set(hub.repos["ada/search"]) >= {"petl.safetensors", "petl.json", "facts.json", "README.md"}
    assert b"# mini-v1" in hub.repos["ada/search"]["README.md"]

    row = add_version(stores, "ada/search", endpoint=hub.url)
    assert (row.id, row.status, row.folder) == ("mini-v2", "candidate", "models/mini-v2")
    assert row.mark_counts == {"hits": 12, "misses": 30}
    assert row.gate["decision"] == "added"
    same(stores.folder / "models" / "mini-v1", stores.folder / "models" / "mini-v2", mini)
    assert "# mini-v2" in (stores.folder / "models" / "mini-v2" / "README.md").read_text()
    assert sorted(path.name for path in (stores.folder / "models").iterdir()) == ["mini-v1", "mini-v2"]


def same(one: Path, other: Path, backbone: Backbone) -> None:
    first, second = (load_version(backbone, folder).petl_parameters() for folder in (one, other))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_folder_comes_in_as_a_version_that_can_serve(stores: Workspace, tmp_path: Path) -> None:
    shutil.copytree(stores.folder / "models" / "mini-v1", tmp_path / "theirs")
    row = add_version(stores, str(tmp_path / "theirs"))
    assert stores.versions.promote(row.id, by="me", reason="mine").status == "active"
    same(tmp_path / "theirs", stores.folder / str(row.folder), load_backbone("mini"))


def test_what_is_no_version_does_not_come_in(stores: Workspace, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    shutil.copytree(stores.folder / "models" / "mini-v1", tmp_path / "cut")
    (tmp_path / "cut" / "petl.safetensors").write_bytes(b"cut short")
    for source, error in ((tmp_path / "empty", VersionError), (tmp_path / "cut", CheckpointError)):
        with pytest.raises(error):
            add_version(stores, str(source))
    with pytest.raises(VersionError, match="user/name; 'nonsense' came"):
        add_version(stores, "nonsense")
    with pytest.raises(VersionError, match="no weights to push"):
        push_version(stores, "mini-v0", "ada/search")
    assert [row.id for row in stores.versions.list()] == ["mini-v0", "mini-v1"]
    assert [path.name for path in (stores.folder / "models").iterdir()] == ["mini-v1"]


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (401, "sign in with `hf auth login`"),
        (403, "may not write to ada/search"),
        (409, "already \\(409\\): choose another name"),
        (400, "refused ada/search \\(400\\)"),
    ],
)
def test_a_refusal_of_the_hub_is_reported_and_the_folder_kept(
    hub: SmallHub, tmp_path: Path, status: int, said: str
) -> None:
    (tmp_path / "README.md").write_text("mine")
    hub.status = status
    with pytest.raises(HubError, match=said):
        push_folder(tmp_path, "ada/search", kind="dataset", endpoint=hub.url)
    assert (tmp_path / "README.md").read_text() == "mine"


def test_a_name_that_is_taken_stays_as_it_is(hub: SmallHub, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    push_folder(tmp_path, "ada/marks", kind="dataset", public=True, endpoint=hub.url)
    assert hub.private == {"ada/marks": False}
    (tmp_path / "README.md").write_text("other")
    with pytest.raises(HubError, match="already"):
        push_folder(tmp_path, "ada/marks", kind="dataset", endpoint=hub.url)
    assert hub.repos["ada/marks"]["README.md"] == b"mine"


def test_what_cannot_be_uploaded_leaves_no_repository(hub: SmallHub, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    hub.broken = True
    with pytest.raises(HubError, match="refused"):
        push_folder(tmp_path, "ada/marks", kind="dataset", endpoint=hub.url)
    assert hub.repos == {}


def test_without_a_network_it_is_reported(tmp_path: Path) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(HubError, match="cannot be reached"):
        push_folder(tmp_path, "ada/marks", kind="dataset", endpoint=nowhere)
    with pytest.raises(HubError, match="user/name"):
        push_folder(tmp_path, "marks", kind="dataset", endpoint=nowhere)


def test_a_repository_that_is_not_there_is_reported(hub: SmallHub, tmp_path: Path) -> None:
    with pytest.raises(HubError, match="no repository ada/nothing"):
        fetch("ada/nothing", tmp_path, ["petl.json"], endpoint=hub.url)


def test_a_released_checkpoint_becomes_a_candidate_of_its_backbone(
    stores: Workspace, mini: Backbone, tmp_path: Path
) -> None:
    made = stir(UPPerson(mini, PetlConfig(prefix_length=2, lora_rank=2)), seed=7)
    file, state = tmp_path / "best.pth", {released_name(n): p.detach() for n, p in made.petl_parameters().items()}
    state |= {f"base_model.{name}": value for name, value in mini.clip.state_dict().items()}
    torch.save({"model": state}, file)
    with pytest.raises(VersionError, match=r"best\.pth does not say what it was made on: name it by --backbone"):
        add_version(stores, str(file))
    row = add_version(stores, str(file), backbone="mini")
    assert (row.id, row.backbone, row.status) == ("mini-v2", "mini", "candidate")
    loaded = load_version(mini, stores.folder / str(row.folder)).petl_parameters()
    assert all(torch.equal(loaded[name], value) for name, value in made.petl_parameters().items())
    state["base_model.ln_final.weight"] = state["base_model.ln_final.weight"] * 1.1
    torch.save({"model": state}, file)
    with pytest.raises(CheckpointError, match=r"other frozen weights than those of 'mini': ln_final\.weight differs"):
        add_version(stores, str(file), backbone="mini")
    assert sorted(r.id for r in stores.versions.list("mini")) == ["mini-v0", "mini-v1", "mini-v2"]
    assert not list((stores.folder / "models").glob(".adding-*"))

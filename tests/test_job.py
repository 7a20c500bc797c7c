"""A fine-tuning job on a real data folder: what it leaves when it ends well, badly, early or not at all."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from core.backbones import WEIGHTS, Backbone
from core.checkpoints import load_version, save_petl
from core.core_errors import BackboneError, CheckpointError, DeviceError
from core.encoder import Encoder
from core.model import UPPerson
from core.petl import PetlConfig
from store import Database, Gallery, JobError, JobRow, Jobs, Marks, NewImage, Search, Shown, StoreError, VersionRow
from store.versions import measured_on_base
from store.workspace import Workspace
from tests.coloured import people
from tests.layouts import lay_out, rows
from tests.learn_config import learning
from tests.small_clip import stir
from train import pedestrians
from train.datasets import DataSetError
from train.finetuning import config, replay
from train.finetuning.adaptation import AdaptConfig
from train.finetuning.config import Optimisation
from train.finetuning.gate import GateConfig
from train.finetuning.job import JobConfig, run_job
from train.finetuning.loop import MIXES, Cancelled
from train.finetuning.pairs import build, usable
from train.finetuning.replay import SAMPLE_FILE, Source, read_known, write_sample
from train.finetuning.start import r1
from train.jobs import gallery_pixels
from train.jobs.gallery_pixels import pixels_of_gallery, representatives, tracks_of
from train.jobs.lines import lineage

LEARNS = JobConfig(
    learning=learning(8, lr=1e-3, queries=8, misses=2, replay=4, hidden_words=0.0, occluded=0.0),
    gate=GateConfig(base_fall=0.5),  # of forty pictures: one more or less is 2.5 points
)
HARDLY_LEARNS = replace(LEARNS, learning=learning(1, lr=1e-7, queries=4, replay=0))
STAGES = [
    "preparing",
    "drawing known people",
    "reading the gallery",
    "checking",
    "training fold 1 of 2",
    "training the control",
    "training fold 2 of 2",
    "training on all marks",
    "judging",
    "embedding the gallery",
    "promoting",
]
HERE = people()
Marking = Callable[[int, int, int], str | None]
"""(person described, person shown, rank) -> verdict."""


def truthfully(described: int, shown: int, rank: int) -> str | None:
    return "hit" if described == shown else "miss" if rank <= 8 else None


def png(pixels: np.ndarray[Any, Any]) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory, mini: Backbone) -> Path:
    """A data folder with 32 pictures of sixteen people and version 0's vectors, and no marks."""
    folder = tmp_path_factory.mktemp("indexed")
    Database(folder / "app.db").close()
    with Workspace.existing(folder) as stores:
        stores.versions.ensure_base("mini")
        images = [
            NewImage(data=png(pixels), uri=name, width=16, height=48, source="test", pid=name.split("-")[0])
            for name, pixels in HERE.pixels.items()
        ]
        stores.gallery.add(images)
        encoder = Encoder(UPPerson(mini))
        stores.gallery.fill("mini-v0", encoder.encode_images, dim=encoder.dim)
    return folder


@pytest.fixture(autouse=True)
def _small_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "REPLAY_PEOPLE", 8)
    monkeypatch.setattr(replay, "BASE_PEOPLE", 20)


@pytest.fixture
def stores(indexed: Path, tmp_path: Path) -> Iterator[Workspace]:
    folder = tmp_path / "data"
    shutil.copytree(indexed, folder)
    with Workspace.existing(folder) as opened:
        yield opened


def mark_all(stores: Workspace, mini: Backbone, marking: Marking, *, captions: int = 16, user: str = "anna") -> None:
    """Search for the first people with version 0 and mark what comes."""
    encoder = Encoder(UPPerson(mini))
    for person, caption in enumerate(HERE.captions[:captions]):
        found = stores.gallery.search("mini-v0", encoder.encode_texts([caption])[0], 32)
        search = Search(user=user, caption=caption, version="mini-v0", backbone="mini")
        query = stores.marks.record_search(search, [Shown(c.image_id, c.rank, c.score) for c in found])
        said = {c.image_id: marking(person, int(c.pid or -1), c.rank) for c in found}
        for verdict in sorted({verdict for verdict in said.values() if verdict}):
            stores.marks.mark_many(user, query, [image for image in said if said[image] == verdict], verdict)


def vectors(stores: Workspace, version: str) -> np.ndarray[Any, Any]:
    return stores.gallery.vectors(version, sorted(stores.gallery.ids()))[1]


def assert_nothing_served_changed(stores: Workspace, before: np.ndarray[Any, Any]) -> None:
    assert stores.versions.active("mini").id == "mini-v0"
    assert np.array_equal(vectors(stores, "mini-v0"), before)


# A run that ends well


def test_a_promoted_run(stores: Workspace, mini: Backbone) -> None:
    mark_all(stores, mini, truthfully)
    before = vectors(stores, "mini-v0")
    weights = hashlib.sha256((WEIGHTS / "mini.safetensors").read_bytes()).hexdigest()
    in_memory = {name: value.clone() for name, value in mini.clip.state_dict().items()}
    queued = stores.jobs.queue("finetune", {"backbone": "mini"})
    seen: list[tuple[str, float, JobRow, str]] = []

    def echo(stage: str, share: float) -> None:
        seen.append((stage, share, stores.jobs.get(queued.id), stores.versions.active("mini").id))
        if stage == "promoting":  # the new vectors are complete, and the pointer has not moved yet
            assert stores.gallery.complete("mini-v1")

    result = run_job(stores, queued.id, LEARNS, echo=echo)

    assert result["decision"] == "promoted", result["reason"]
    assert result["version"] == "mini-v1"
    assert list(dict.fromkeys(stage for stage, *_ in seen)) == STAGES
    shares = [share for _, share, *_ in seen]
    assert shares == sorted(shares)
    assert {row.state for *_, row, _ in seen} == {"running"}
    assert {row.pid for *_, row, _ in seen} == {os.getpid()}
    assert {active for *_, active in seen} == {"mini-v0"}
    assert [row.stage for _, _, row, _ in seen[1:]] == [stage for stage, *_ in seen[:-1]]  # each beat is kept

    done = stores.jobs.get(queued.id)
    assert (done.state, done.fraction, done.result) == ("done", 1.0, json.loads(json.dumps(result)))
    assert done.message == result["reason"]
    assert stores.jobs.current() is None

    row = stores.versions.active("mini")
    assert (row.id, row.parent, row.status) == ("mini-v1", "mini-v0", "active")
    assert stores.versions.get("mini-v0").status == "retired"
    assert row.gate["decision"] == "promoted"
    assert row.gate["numbers"]["order_change"]["low"] > 0
    assert row.last_event == stores.marks.stats().last_event
    assert row.mark_counts == {"hits": 32, "misses": stores.marks.stats().misses}

    folder = stores.folder / "models" / "mini-v1"
    assert {file.name for file in folder.iterdir()} == {"petl.safetensors", "petl.json", "facts.json", "README.md"}
    facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    assert LEARNS.learning is not None
    assert facts["learning"]["optimisation"]["lr"] == LEARNS.learning.optimisation.lr  # what was used, not the defaults
    assert facts["learning"]["mix"] in MIXES
    assert facts["known"] == f"drawn studio people {pedestrians.VERSION}"
    assert row.gate["learnt_from"] == facts["gate"]["learnt_from"] == "marks"

    assert hashlib.sha256((WEIGHTS / "mini.safetensors").read_bytes()).hexdigest() == weights
    assert all((value == in_memory[name]).all() for name, value in mini.clip.state_dict().items())
    assert np.array_equal(vectors(stores, "mini-v0"), before)  # the former version can serve again at once
    encoder = Encoder(load_version(mini, folder))
    ids = sorted(stores.gallery.ids())
    expected = encoder.encode_images([stores.gallery.data(image) for image in ids])
    np.testing.assert_allclose(vectors(stores, "mini-v1"), expected, atol=1e-5)


def test_in_text_mode_a_promotion_writes_no_vector(stores: Workspace, mini: Backbone) -> None:
    mark_all(stores, mini, truthfully)
    before = vectors(stores, "mini-v0")
    files = {path: path.stat().st_mtime_ns for path in (stores.folder / "gallery").rglob("*.lance") if path.is_file()}
    longer = learning(40, lr=5e-3, queries=8, misses=2, replay=4, hidden_words=0.0, distil=0.0)
    easily = GateConfig(base_fall=0.5, level=0.51)
    recorded: dict[str, object] = {}

    def echo(stage: str, _share: float) -> None:
        recorded[stage] = stores.jobs.list()[0].result

    result = run_job(stores, None, replace(LEARNS, mode="text", learning=longer, gate=easily), echo=echo)
    assert (recorded["preparing"], recorded["training fold 1 of 2"]) == ({}, {"mode": "text"})
    assert (result["decision"], result["mode"]) == ("promoted", "text"), result["reason"]
    assert "Only the text tower was trained, as asked" in result["reason"]
    row = stores.versions.active("mini")
    assert (row.id, row.vectors, row.gate["reason"]) == ("mini-v1", "mini-v0", result["reason"])
    assert stores.gallery.versions() == ["mini-v0"]
    now = {path: path.stat().st_mtime_ns for path in (stores.folder / "gallery").rglob("*.lance") if path.is_file()}
    assert now == files, "promoting wrote rows into the gallery"
    encoder = Encoder(load_version(mini, stores.folder / "models" / "mini-v1"))
    ids = sorted(stores.gallery.ids())
    np.testing.assert_allclose(encoder.encode_images([stores.gallery.data(i) for i in ids]), before, atol=1e-5)
    facts = json.loads((stores.folder / "models" / "mini-v1" / "facts.json").read_text(encoding="utf-8"))
    assert facts["mode"] == "text"


def test_a_gallery_too_large_to_embed_again_is_left_alone(
    stores: Workspace, mini: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark_all(stores, mini, truthfully)
    monkeypatch.setattr(config, "PATIENCE", 0.0)
    result = run_job(stores, None, HARDLY_LEARNS)
    assert result["mode"] == "text"
    assert "Only the text tower was trained: embedding 32 pictures again takes about 1 s on cpu" in result["reason"]
    assert stores.versions.get("mini-v1").vectors == "mini-v0"


def test_a_short_budget_tunes_the_last_block_and_says_why(stores: Workspace, mini: Backbone) -> None:
    mark_all(stores, mini, truthfully)
    said: list[str] = []
    result = run_job(stores, None, replace(LEARNS, mode="full", minutes=1e-4), say=said.append)
    blocks, of_text = (len(UPPerson(mini).blocks(tower)) for tower in ("image", "text"))
    assert said[0].startswith("About ")
    assert f"Only the last of {blocks} blocks of each tower is tuned" in said[0]
    plan = result["plan"]
    assert plan["depth"] == 1
    assert plan["reason"] in result["reason"]
    row = stores.versions.get(result["version"])
    assert plan["reason"] in row.gate["reason"]
    folder = stores.folder / "models" / row.id
    assert json.loads((folder / "facts.json").read_text(encoding="utf-8"))["plan"] == plan
    learnt = load_version(mini, folder)
    where = {tuple(name.split(".")[:2]) for name in learnt.petl_parameters()}
    assert where == {("image", str(blocks - 1)), ("text", str(of_text - 1))}
    assert not list((stores.folder / "cache").glob("activations-*"))


def test_a_budget_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="UPPERSON_TRAIN_MINUTES is 0: a round takes time"):
        JobConfig(minutes=0)


def test_a_device_that_vanishes_fails_the_job_with_a_sentence(stores: Workspace, mini: Backbone) -> None:
    mark_all(stores, mini, truthfully)
    before = vectors(stores, "mini-v0")

    def vanish(stage: str, _share: float) -> None:
        if stage == "training fold 1 of 2":
            raise torch.AcceleratorError("CUDA error: device-side assert triggered")

    with pytest.raises(DeviceError, match="cpu stopped answering"):
        run_job(stores, None, replace(HARDLY_LEARNS, device="cpu"), echo=vanish)
    row = stores.jobs.list()[0]
    assert row.state == "failed"
    assert row.message.startswith("cpu stopped answering (CUDA error: device-side assert triggered)")
    assert_nothing_served_changed(stores, before)


def test_an_unknown_device_fails_the_job_with_its_reason(stores: Workspace) -> None:
    with pytest.raises(DeviceError, match="auto, cpu, cuda"):
        run_job(stores, None, JobConfig(device="gpu"))
    assert stores.jobs.list()[0].state == "failed"


def test_the_next_run_goes_on_from_what_serves_and_is_judged_by_new_marks(stores: Workspace, mini: Backbone) -> None:
    settings = replace(HARDLY_LEARNS, gate=GateConfig(captions=6))
    mark_all(stores, mini, truthfully, captions=10)
    row, _ = candidate(stores, mini, last_event=stores.marks.stats().last_event)
    stores.versions.promote(row.id, by="test", reason="test")
    first = run_job(stores, None, settings)
    assert first["decision"] == "undecided"
    assert "0 new captions of 0 people" in first["reason"]
    mark_all(stores, mini, truthfully, captions=16)  # the first ten once more: nothing new
    second = run_job(stores, None, settings)
    assert second["version"] == "mini-v2"
    made = stores.versions.get("mini-v2")
    assert made.parent == "mini-v1"
    assert made.mark_counts["hits"] == 32
    assert made.gate["numbers"]["order_change"]["n"] == 6


def test_who_promotes_by_hand_meanwhile_is_not_overruled(stores: Workspace, mini: Backbone) -> None:
    mark_all(stores, mini, truthfully)
    other, _ = candidate(stores, mini)

    def meddle(stage: str, _share: float) -> None:
        if stage == "promoting":
            stores.versions.promote(other.id, by="ada", reason="by hand")

    result = run_job(stores, None, LEARNS, echo=meddle)
    assert stores.versions.active("mini").id == other.id == "mini-v1"
    assert result["decision"] == "undecided"
    assert result["reason"].startswith("mini-v1 serves now, not mini-v0. The gate compared mini-v2 with mini-v0 only")
    row = stores.versions.get("mini-v2")
    assert (row.status, row.gate["decision"], row.gate["reason"]) == ("candidate", "undecided", result["reason"])
    assert stores.jobs.list()[0].state == "done"


def test_a_run_that_is_not_better_is_kept_as_rejected(stores: Workspace, mini: Backbone) -> None:
    mark_all(stores, mini, truthfully)
    before = vectors(stores, "mini-v0")
    result = run_job(stores, None, HARDLY_LEARNS)
    assert result["decision"] == "rejected"
    row = stores.versions.get("mini-v1")
    assert (row.status, row.gate["reason"]) == ("rejected", result["reason"])
    load_version(mini, stores.folder / "models" / "mini-v1")
    assert_nothing_served_changed(stores, before)
    assert stores.gallery.versions() == ["mini-v0"]
    assert stores.jobs.list()[0].state == "done"


# Marks that nothing is trained on


@pytest.mark.parametrize(
    ("marking", "captions", "decision", "reason"),
    [
        (lambda _d, _s, _r: None, 16, "undecided", "no hits: fine-tuning needs pictures that fit their description"),
        (lambda d, s, _r: "hit" if d == s else None, 16, "undecided", "0 captions of 0 people have both"),
        (lambda d, s, r: "miss" if d != s and r < 6 else None, 16, "undecided", "no hits"),
        (lambda d, s, _r: "hit" if d == s == 0 else None, 1, "undecided", "Mark hits and misses for 10 more"),
        (lambda _d, _s, r: "wrong_person" if r < 6 else None, 16, "undecided", "no hits"),
        (truthfully, 4, "undecided", "4 captions of 4 people have both a hit and a miss, 10 are needed"),
    ],
    ids=["none", "hits only", "misses only", "one", "wrong person only", "too few"],
)
def test_too_little_is_said_at_once(
    stores: Workspace, mini: Backbone, marking: Marking, captions: int, decision: str, reason: str
) -> None:
    mark_all(stores, mini, marking, captions=captions)
    before = vectors(stores, "mini-v0")
    stages: list[str] = []
    result = run_job(stores, None, JobConfig(), echo=lambda stage, _share: stages.append(stage))
    assert (result["decision"], "version" in result) == (decision, False)
    assert reason in result["reason"]
    assert stages == ["preparing"]
    finished = stores.jobs.list()[0]
    assert (finished.state, finished.message) == ("done", result["reason"])
    assert_nothing_served_changed(stores, before)
    assert [row.id for row in stores.versions.list("mini")] == ["mini-v0"]


def test_inverted_marks_wait_for_an_administrator(stores: Workspace, mini: Backbone) -> None:
    encoder = Encoder(UPPerson(mini))
    for person, caption in enumerate(HERE.captions):
        found = stores.gallery.search("mini-v0", encoder.encode_texts([caption])[0], 32)
        search = Search(user="eve", caption=caption, version="mini-v0", backbone="mini")
        query = stores.marks.record_search(search, [Shown(c.image_id, c.rank, c.score) for c in found])
        stores.marks.mark("eve", query, found[0].image_id, "miss")  # the best is no match, another person's last one is
        worst = [c for c in found if c.pid == str((person + 7) % 16)][-1]
        stores.marks.mark("eve", query, worst.image_id, "hit")
    result = run_job(stores, None, JobConfig())
    assert result["decision"] == "suspicious"
    assert "an administrator should look" in result["reason"]
    assert [row.id for row in stores.versions.list("mini")] == ["mini-v0"]


def test_only_marks_whose_caption_is_the_whole_query_are_used(stores: Workspace) -> None:
    image = stores.gallery.ids()[0]
    for number, extra in enumerate(({}, {"negative": "a hat"}, {"image_query": True})):
        search = Search(user="anna", caption=f"caption {number}", version="mini-v0", backbone="mini", **extra)  # type: ignore[arg-type]
        stores.marks.mark("anna", stores.marks.record_search(search, [Shown(image, 1, 0.5)]), image, "hit")
    assert [mark.caption for mark in usable(stores.marks.current())] == ["caption 0"]


# Cancelling


@pytest.mark.parametrize("stage", ["preparing", "training fold 1 of 2", "judging"])
def test_a_cancelled_run_leaves_nothing(stores: Workspace, mini: Backbone, stage: str) -> None:
    mark_all(stores, mini, truthfully)
    before = vectors(stores, "mini-v0")

    def cancel(now: str, _share: float) -> None:
        if now == stage:
            current = stores.jobs.current()
            assert current is not None
            stores.jobs.request_cancel(current.id)

    result = run_job(stores, None, HARDLY_LEARNS, echo=cancel)
    assert result["decision"] == "cancelled"
    row = stores.jobs.list()[0]
    assert (row.state, row.message) == ("cancelled", "Cancelled; nothing that is served has changed.")
    assert_nothing_served_changed(stores, before)
    assert stores.gallery.versions() == ["mini-v0"]
    assert [version.id for version in stores.versions.list("mini")] == ["mini-v0"]
    assert not (stores.folder / "models").exists()


def candidate(stores: Workspace, mini: Backbone, *, last_event: int = 0) -> tuple[VersionRow, UPPerson]:
    model = stir(UPPerson(mini, PetlConfig(prefix_length=2, lora_rank=2, adapter_reduction=16)))
    save_petl(model, stores.folder / "models" / "mini-v1")
    return stores.versions.add(
        VersionRow(id="mini-v1", backbone="mini", folder="models/mini-v1", last_event=last_event)
    ), model


def test_cancelled_while_embedding_it_can_go_on_later(stores: Workspace, mini: Backbone) -> None:
    row, model = candidate(stores, mini)
    before = vectors(stores, "mini-v0")

    def stop(stage: str, share: float) -> None:
        if stage == "promoting" or share > 0.98:
            raise Cancelled

    with pytest.raises(Cancelled):
        stores.promote(row, Encoder(model), by="gate", reason="better", progress=stop)
    assert_nothing_served_changed(stores, before)
    stores.promote(row, Encoder(model), by="gate", reason="better")
    assert stores.versions.active("mini").id == "mini-v1"
    assert stores.gallery.complete("mini-v1")


def test_the_pointer_moves_after_the_last_vector(stores: Workspace, mini: Backbone) -> None:
    row, model = candidate(stores, mini)
    reported: list[tuple[str, float, bool, str]] = []

    def watch(stage: str, share: float) -> None:
        reported.append((stage, share, stores.gallery.complete("mini-v1"), stores.versions.active("mini").id))

    stores.promote(row, Encoder(model), by="gate", reason="better", progress=watch)
    assert reported[0][:3] == ("embedding the gallery", 0.0, False)
    assert reported[-1] == ("promoting", 1.0, True, "mini-v0")
    assert stores.versions.history("mini")[-1].reason == "better"


# Failing


def test_a_damaged_weights_file_fails_the_job_with_its_reason(stores: Workspace, mini: Backbone) -> None:
    candidate(stores, mini)
    stores.versions.promote("mini-v1", by="test", reason="test")
    (stores.folder / "models" / "mini-v1" / "petl.safetensors").write_bytes(b"damaged")
    with pytest.raises(CheckpointError):
        run_job(stores, None, JobConfig())
    row = stores.jobs.list()[0]
    assert row.state == "failed"
    assert "petl.safetensors are damaged or missing" in row.message
    assert row.result == {"decision": "failed", "reason": row.message}
    assert stores.versions.active("mini").id == "mini-v1"
    assert stores.jobs.current() is None  # the next may start


def test_an_unknown_backbone_fails_the_job_with_its_reason(stores: Workspace) -> None:
    with pytest.raises(BackboneError):
        run_job(stores, None, JobConfig(backbone="ViT-Z"))
    row = stores.jobs.list()[0]
    assert row.state == "failed"
    assert row.message.startswith("unknown backbone 'ViT-Z': choose one of mini, ViT-B-16, ")


def test_what_nobody_foresaw_is_recorded_too(stores: Workspace) -> None:
    def trip(_stage: str, _share: float) -> None:
        raise ZeroDivisionError("division by zero")

    with pytest.raises(ZeroDivisionError):
        run_job(stores, None, JobConfig(), echo=trip)
    row = stores.jobs.list()[0]
    assert (row.state, row.message) == ("failed", "ZeroDivisionError: division by zero")


def test_a_run_given_up_for_dead_stops_and_changes_nothing(stores: Workspace, mini: Backbone) -> None:
    mark_all(stores, mini, truthfully)
    before = vectors(stores, "mini-v0")

    def give_up(stage: str, _share: float) -> None:
        current = stores.jobs.current()
        if stage == "training fold 1 of 2" and current is not None:
            stores.jobs.finish(current.id, "failed", message="interrupted")

    with pytest.raises(JobError, match="has ended already, as failed"):
        run_job(stores, None, HARDLY_LEARNS, echo=give_up)
    assert_nothing_served_changed(stores, before)


def test_a_version_that_nobody_judged_is_measured_on_request(stores: Workspace, mini: Backbone) -> None:
    row, model = candidate(stores, mini)
    before = vectors(stores, "mini-v0")
    result = run_job(stores, None, JobConfig(version=row.id), kind="measure")
    base = replay.known_before(mini, Source("drawn", "studio"), cache=stores.folder / "cache").base
    assert base is not None
    value = r1(model, base)
    assert (result["decision"], result["version"]) == ("measured", row.id)
    assert result["reason"].startswith(f"{100 * value:.1f} % of {len(base.captions)} test descriptions")
    kept = stores.versions.get(row.id)
    assert (kept.metrics["base_r1"], kept.status) == (value, "candidate")
    run_job(stores, None, JobConfig(version="mini-v0"), kind="measure")
    measured = measured_on_base(stores.versions.list("mini"))[1]
    assert measured == {"mini-v0": r1(UPPerson(mini), base), row.id: value}
    assert_nothing_served_changed(stores, before)


def test_a_version_that_is_not_there_cannot_be_measured(stores: Workspace) -> None:
    with pytest.raises(StoreError, match="mini-v9"):
        run_job(stores, None, JobConfig(version="mini-v9"), kind="measure")
    assert stores.jobs.list(1)[0].state == "failed"


def test_one_job_runs_at_a_time(stores: Workspace) -> None:
    waiting = stores.jobs.queue("finetune")
    with pytest.raises(JobError, match="One job runs at a time"):
        run_job(stores, None, JobConfig())
    stores.jobs.request_cancel(waiting.id)
    with pytest.raises(JobError, match="can only start while it is queued; it is cancelled"):
        run_job(stores, waiting.id, JobConfig())


# Pictures and places


def test_a_damaged_picture_is_skipped(stores: Workspace, mini: Backbone) -> None:
    mark_all(stores, mini, truthfully)
    broken = NewImage(data=b"not a picture", uri="broken", width=16, height=48, source="test")
    stores.gallery.add([broken])
    search = Search(user="anna", caption="a broken one", version="mini-v0", backbone="mini")
    query = stores.marks.record_search(search, [Shown(broken.id, 1, 0.5)])
    stores.marks.mark("anna", query, broken.id, "hit")
    result = run_job(stores, None, HARDLY_LEARNS)
    assert result["decision"] == "rejected"
    assert stores.versions.get("mini-v1").mark_counts["hits"] == 32


def test_a_picture_that_left_the_gallery_is_skipped(stores: Workspace, mini: Backbone) -> None:
    mark_all(stores, mini, truthfully)
    gone = stores.gallery.ids()[0]
    stores.gallery.forget([gone])
    lost = sum(mark.image_id == gone for mark in stores.marks.current())
    result = run_job(stores, None, HARDLY_LEARNS)
    assert stores.versions.get("mini-v1").mark_counts["hits"] == 31
    assert f"Left out: marks on pictures that are gone or cannot be read ({lost})." in result["reason"]


def test_a_picture_by_reference_whose_file_is_gone_is_skipped(
    stores: Workspace, mini: Backbone, tmp_path: Path
) -> None:
    file = tmp_path / "gone.png"
    Image.new("RGB", (16, 48), "red").save(file)
    data, uri = file.read_bytes(), file.as_uri()
    picture = NewImage(data=data, uri=uri, width=16, height=48, source="test", by_reference=True)
    stores.gallery.add([picture])
    file.unlink()
    found = pixels_of_gallery(stores.gallery, stores.gallery.ids(), mini)
    assert set(stores.gallery.ids()) - set(found) == {picture.id}


def test_marks_on_pictures_that_left_the_gallery_train_nothing(stores: Workspace, mini: Backbone) -> None:
    mark_all(stores, mini, truthfully)
    marks = stores.marks.current()
    stores.gallery.forget(sorted({mark.image_id for mark in marks}))
    result = run_job(stores, None, JobConfig())
    assert result["decision"] == "undecided"
    assert result["reason"].startswith("no hits: fine-tuning needs pictures")
    assert f"cannot be read ({len(marks)})." in result["reason"]
    assert [row.id for row in stores.versions.list("mini")] == ["mini-v0"]


def test_one_user_who_hits_everything_cannot_make_a_version(stores: Workspace, mini: Backbone) -> None:
    """Alone, there is no miss to judge by; beside truthful people, pairs they disagree on are unknown."""
    mark_all(stores, mini, lambda _d, _s, r: "hit" if r <= 10 else None, user="eve")
    alone = run_job(stores, None, JobConfig())
    assert alone["decision"] == "undecided"
    assert "have both a hit and a miss" in alone["reason"]
    mark_all(stores, mini, truthfully, user="anna")
    mark_all(stores, mini, truthfully, user="berta")
    both = build(usable(stores.marks.current()))
    for mark in stores.marks.current():
        if mark.user == "anna":
            judged = both.judged[both.captions.index(mark.caption), both.image_ids.index(mark.image_id)]
            assert judged == (1 if mark.verdict == "hit" else -1), "two truthful people outvote one"


def test_hidden_pictures_do_not_stand_for_the_gallery(stores: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    assert representatives(stores.gallery) == sorted(stores.gallery.ids())
    own = NewImage(data=b"own", uri="own", width=16, height=48, source="folder")
    stores.gallery.add([own])
    stores.gallery.hide_source("test")
    assert representatives(stores.gallery) == [own.id]
    stores.gallery.show_source("test")
    monkeypatch.setattr(gallery_pixels, "REST", 5)
    assert representatives(stores.gallery) == representatives(stores.gallery)
    assert len(representatives(stores.gallery)) == 5


def test_pictures_of_a_track_are_known_by_source_camera_and_number(stores: Workspace) -> None:
    def picture(number: int, track: str | float | None, camera: str = "1") -> NewImage:
        facts = {} if track is None else {"track": track}
        data, name = f"picture {number}".encode(), f"{number}"
        return NewImage(data=data, uri=name, width=16, height=48, source="video", camera=camera, metadata=facts)

    pictures = [picture(0, "7"), picture(1, 7), picture(2, "7", camera="2"), picture(3, 7.0)]
    pictures += [picture(4 + n, nobody) for n, nobody in enumerate((None, "-1", -1.0, "nan", " "))]
    stores.gallery.add(pictures)
    found = tracks_of(stores.gallery, [one.id for one in pictures])
    assert list(found) == [one.id for one in pictures[:4]]
    assert found[pictures[3].id] == found[pictures[0].id]
    assert found[pictures[0].id] == found[pictures[1].id] != found[pictures[2].id], "another camera counts from 1 again"


def test_a_missing_data_folder_is_named_and_not_made(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    with (
        pytest.raises(StoreError, match=r"no data folder at .*nowhere: start `python app.py` once"),
        Workspace.existing(nowhere),
    ):
        pass
    assert not nowhere.exists()


def test_the_stores_are_closed_again(indexed: Path, tmp_path: Path) -> None:
    shutil.copytree(indexed, tmp_path / "data")
    with Workspace.existing(tmp_path / "data") as stores:
        assert isinstance(stores.gallery, Gallery)
        assert isinstance(stores.marks, Marks)
        assert isinstance(stores.jobs, Jobs)
    shutil.rmtree(tmp_path / "data")


def test_a_named_data_set_is_replayed_and_judges_what_is_forgotten(
    stores: Workspace, mini: Backbone, tmp_path: Path
) -> None:
    mark_all(stores, mini, truthfully)
    listed = [row | {"id": row["id"] + 100 * n, "file_path": f"{n}/{row['file_path']}"}
              for n in range(8) for row in rows("cuhk-pedes")]  # fmt: skip
    folder = lay_out(tmp_path / "knew", "cuhk-pedes", listed)
    listing = folder / "reid_raw.json"
    listing.rename(tmp_path / "aside")
    with pytest.raises(DataSetError, match="holds no data set"):
        run_job(stores, None, replace(LEARNS, base=folder))
    assert stores.jobs.list(1)[0].state == "failed"
    (tmp_path / "aside").rename(listing)
    result = run_job(stores, None, replace(LEARNS, base=folder))
    numbers = stores.versions.get(result["version"]).gate["numbers"]
    assert all(0 <= numbers[name] <= 1 for name in ("base_origin", "base_before", "base_after"))
    assert numbers["base_set"].startswith("cuhk-pedes ")
    facts = json.loads((stores.folder / "models" / result["version"] / "facts.json").read_text())
    assert facts["known"] == numbers["base_set"]
    assert not list((stores.folder / "cache").glob("*")), "nobody was drawn"


# What the line of versions knows


def data_set(folder: Path, people: int = 8) -> Path:
    """A small data set on disk with so many times eight people in train and three in val."""
    listed = [row | {"id": row["id"] + 100 * n, "file_path": f"{n}/{row['file_path']}"}
              for n in range(people) for row in rows("cuhk-pedes")]  # fmt: skip
    return lay_out(folder, "cuhk-pedes", listed)


def fitted(
    stores: Workspace, mini: Backbone, name: str, facts: dict[str, Any], *, parent: str | None = None
) -> VersionRow:
    """A version as `fit` and `add` leave it."""
    folder = stores.folder / "models" / name
    save_petl(stir(UPPerson(mini, PetlConfig(prefix_length=2, lora_rank=2, adapter_reduction=16))), folder)
    (folder / "facts.json").write_text(json.dumps(facts))
    return stores.versions.add(VersionRow(id=name, backbone="mini", parent=parent, folder=f"models/{name}"))


def test_a_line_begins_with_the_version_that_says_what_it_was_trained_on(
    stores: Workspace, mini: Backbone, tmp_path: Path
) -> None:
    base = stores.versions.get("mini-v0")
    assert lineage(stores, base) == (base, Source("drawn", "studio"))
    root = data_set(tmp_path / "knew")
    facts = {"trained_on": {"name": "cuhk-pedes", "root": str(root), "people": 2000}}
    first = fitted(stores, mini, "mini-v1", facts)
    second = fitted(stores, mini, "mini-v2", {"known": "cuhk-pedes"}, parent="mini-v1")
    third = fitted(stores, mini, "mini-v3", {}, parent="mini-v2")
    expected = Source("data set", "cuhk-pedes", root)
    assert [lineage(stores, row) for row in (first, second, third)] == [(first, expected)] * 3


def test_a_line_that_began_with_the_plain_backbone_knows_drawn_people(stores: Workspace, mini: Backbone) -> None:
    row = fitted(stores, mini, "mini-v1", {}, parent="mini-v0")
    assert lineage(stores, row) == (stores.versions.get("mini-v0"), Source("drawn", "studio"))


def test_a_version_added_without_a_word_knows_nothing(stores: Workspace, mini: Backbone) -> None:
    row = fitted(stores, mini, "mini-v1", {})
    assert lineage(stores, row) == (row, Source("nothing"))


def test_a_version_of_another_backbone_knows_nothing(stores: Workspace) -> None:
    other = stores.versions.ensure_base("ViT-B-16")
    assert lineage(stores, other) == (other, Source("nothing"))


def test_a_round_on_a_fitted_version_replays_its_own_data_set(
    stores: Workspace, mini: Backbone, tmp_path: Path
) -> None:
    root = data_set(tmp_path / "knew")
    row = fitted(stores, mini, "mini-v1", {"trained_on": {"name": "cuhk-pedes", "root": str(root), "people": 2000}})
    stores.promote(row, Encoder(load_version(mini, stores.folder / "models/mini-v1")), by="test", reason="test")
    mark_all(stores, mini, truthfully)
    result = run_job(stores, None, HARDLY_LEARNS)
    made = stores.versions.get(result["version"])
    assert made.gate["numbers"]["base_set"].startswith("cuhk-pedes ")
    assert made.gate["numbers"]["base_origin"] == made.gate["numbers"]["base_before"], "the line begins with it"
    assert not list((stores.folder / "cache").glob("*")), "nobody was drawn"


def test_a_data_set_gone_from_its_place_leaves_the_sample_or_nothing(
    stores: Workspace, mini: Backbone, tmp_path: Path
) -> None:
    root = data_set(tmp_path / "knew")
    facts = {"trained_on": {"name": "cuhk-pedes", "root": str(tmp_path / "gone"), "people": 2000}}
    row = fitted(stores, mini, "mini-v1", facts)
    stores.versions.promote(row.id, by="test", reason="test")
    mark_all(stores, mini, truthfully)
    first = run_job(stores, None, HARDLY_LEARNS)
    assert stores.versions.get(first["version"]).gate["numbers"]["base_set"] == "nothing"
    write_sample(stores.folder / "models/mini-v1" / SAMPLE_FILE, read_known(root), mini, 24)
    second = run_job(stores, None, HARDLY_LEARNS)
    made = stores.versions.get(second["version"])
    assert made.gate["numbers"]["base_set"] == "a kept sample of the data set it was trained on"
    assert made.gate["numbers"]["base_after"] is not None


# Adaptation


ADAPTS = replace(
    LEARNS,
    adaptation=AdaptConfig(batch=24, distil=30.0, hidden_words=0.0, optimisation=Optimisation(lr=2e-3, max_steps=12)),
    gate=GateConfig(base_fall=0.5, level=0.51, resamples=200),
)


@pytest.fixture
def dark(stores: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """Thirty dark pictures more, and known pairs enough to hold some back."""
    monkeypatch.setattr(replay, "REPLAY_PEOPLE", 160)
    rng = np.random.default_rng(3)
    takes = pedestrians.takes("studio", "users", 30, 1)
    pixels = pedestrians.load(takes, (48, 16), workers=1).pixels * 0.2 + rng.normal(0, 3, (30, 48, 16, 3))
    images = [
        NewImage(data=png(one.clip(0, 255).astype(np.uint8)), uri=f"dark {n}", width=16, height=48, source="own")
        for n, one in enumerate(pixels)
    ]
    stores.gallery.add(images)
    stores.gallery.hide_source("test")
    more = [
        NewImage(data=png(one.clip(0, 255).astype(np.uint8)), uri=f"darker {n}", width=16, height=48, source="own")
        for n, one in enumerate(pixels * 0.9 + 1)
    ]
    stores.gallery.add(more)
    return stores


def test_an_adaptation_is_judged_and_says_that_no_mark_taught_it(dark: Workspace) -> None:
    stages: list[str] = []
    said: list[str] = []

    def echo(stage: str, _share: float) -> None:
        stages.append(stage)

    result = run_job(dark, None, ADAPTS, kind="adapt", echo=echo, say=said.append)
    assert said[0].startswith("About ")
    assert said[0].endswith("on this machine. All blocks learn the gallery's style; no mark is read.")
    done = dark.jobs.list()[0]
    assert (done.kind, done.state, done.params["pictures"]) == ("adapt", "done", 60)
    assert result["decision"] == "promoted", result["reason"]
    row = dark.versions.active("mini")
    assert (row.id, row.parent, row.status) == ("mini-v1", "mini-v0", "active")
    assert row.gate["learnt_from"] == "adaptation"
    assert "without any mark" in row.gate["reason"]
    assert row.mark_counts == {}
    assert row.last_event == 0
    assert row.gate["numbers"]["base_set"] == f"drawn studio people {pedestrians.VERSION}"
    folder = dark.folder / "models" / "mini-v1"
    assert {file.name for file in folder.iterdir()} == {"petl.safetensors", "petl.json", "facts.json", "README.md"}
    facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    assert facts["pictures"] == 60
    assert facts["learning"]["batch"] == 24
    assert facts["gate"]["learnt_from"] == "adaptation"
    assert dark.gallery.complete("mini-v1")
    assert list(dict.fromkeys(stages))[:3] == STAGES[:3]
    assert stages[-1] == "promoting"
    base = dark.versions.get("mini-v0")
    assert lineage(dark, row) == (base, Source("drawn", "studio")), "a line goes on through it"


def test_no_mark_and_no_fact_of_a_picture_is_read_by_an_adaptation(
    dark: Workspace, mini: Backbone, tmp_path: Path
) -> None:
    quick = replace(ADAPTS, adaptation=AdaptConfig(batch=8, optimisation=Optimisation(max_steps=1)))
    shutil.copytree(dark.folder, tmp_path / "other")
    run_job(dark, None, quick, kind="adapt")
    with Workspace.existing(tmp_path / "other") as others:
        mark_all(others, mini, truthfully)
        search = Search(user="eve", caption="all of them", version="mini-v0", backbone="mini")
        ids = others.gallery.ids()
        query = others.marks.record_search(search, [Shown(image, rank, 0.5) for rank, image in enumerate(ids, 1)])
        others.marks.mark_many("eve", query, ids, "hit")
        run_job(others, None, quick, kind="adapt")
    one, other = (
        (folder / "models" / "mini-v1" / "petl.safetensors").read_bytes()
        for folder in (dark.folder, tmp_path / "other")
    )
    assert one == other


def test_what_cannot_be_adapted_says_why_and_trains_nothing(stores: Workspace, mini: Backbone) -> None:
    few = run_job(stores, None, ADAPTS, kind="adapt")
    assert few["decision"] == "undecided"
    assert "mini-v0 was trained on too little" in few["reason"]
    assert "8 pairs are known, of which 20 at least must be held back" in few["reason"]
    row = fitted(stores, mini, "mini-v1", {})
    stores.versions.promote(row.id, by="test", reason="test")
    nothing = run_job(stores, None, ADAPTS, kind="adapt")
    assert nothing["decision"] == "undecided"
    assert nothing["reason"].startswith("nothing is known of what mini-v1 was trained on")
    assert "UPPERSON_TRAIN_BASE" in nothing["reason"]
    assert [job.state for job in stores.jobs.list()] == ["done", "done"]
    assert {version.id for version in stores.versions.list("mini")} == {"mini-v0", "mini-v1"}


def test_a_small_gallery_is_not_adapted_to(stores: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "REPLAY_PEOPLE", 160)
    result = run_job(stores, None, ADAPTS, kind="adapt")
    assert result["decision"] == "undecided"
    assert result["reason"] == "the gallery has 32 pictures, 50 are needed to learn their style."


@pytest.mark.parametrize("stage", ["learning the gallery's style", "judging"])
def test_a_cancelled_adaptation_leaves_nothing(dark: Workspace, stage: str) -> None:
    def cancel(now: str, _share: float) -> None:
        current = dark.jobs.current()
        if now == stage and current is not None:
            dark.jobs.request_cancel(current.id)

    quick = replace(ADAPTS, adaptation=AdaptConfig(batch=8, optimisation=Optimisation(max_steps=2)))
    result = run_job(dark, None, quick, kind="adapt", echo=cancel)
    assert result["decision"] == "cancelled"
    assert dark.versions.active("mini").id == "mini-v0"
    assert [row.id for row in dark.versions.list("mini")] == ["mini-v0"]
    assert not (dark.folder / "models").exists()


def test_the_next_adaptation_goes_on_from_what_serves(dark: Workspace, mini: Backbone) -> None:
    row, model = candidate(dark, mini, last_event=7)
    dark.promote(row, Encoder(model), by="test", reason="test")
    quick = replace(ADAPTS, adaptation=AdaptConfig(batch=8, optimisation=Optimisation(max_steps=1)))
    # An added version that says nothing knows nothing; the folder of a data set is named instead.
    result = run_job(dark, None, replace(quick, base=data_set(dark.folder / "knew", 20)), kind="adapt")
    made = dark.versions.get(result["version"])
    assert (made.parent, made.last_event) == ("mini-v1", 7), "marks learnt before count as learnt still"
    assert made.gate["numbers"]["base_set"].startswith("cuhk-pedes ")


# Whom to trust


def test_marks_of_a_hostile_user_are_left_out_of_a_run(stores: Workspace, mini: Backbone) -> None:
    mark_all(stores, mini, truthfully)
    mark_all(stores, mini, lambda d, s, r: "miss" if d == s else "hit" if r > 20 else None, user="eve")
    result = run_job(stores, None, HARDLY_LEARNS)
    assert "of one user, which contradict the results they were made on" in result["reason"]
    assert stores.versions.get(result["version"]).mark_counts["hits"] == 32

from __future__ import annotations

import os
import time

import lancedb
import numpy as np
import pyarrow as pa
import pytest

from app.doctor import CheckReport, Repair, check_state
from app.search.views import SearchRequest
from app.services import Services
from app.state import State
from store import GalleryError, NewImage
from store.deletion_log import begin
from store.gallery.arrow_schema import vectors_schema
from tests.conftest import SAMPLE, add_version

CAPTION = "a woman in a red coat"


def check(services: Services, repair: Repair | None = None) -> CheckReport:
    return check_state(services.state, services.retriever.backbone, repair=repair)


def said(report: CheckReport) -> dict[str, str]:
    return {finding.about: f"{finding.fault}; {finding.advice}" for finding in report.findings}


def test_what_does_not_agree_is_reported_then_repaired(services: Services) -> None:
    state, gallery = services.state, services.state.gallery
    assert check(services).findings == ()
    dim = services.retriever.serving.encoder.dim
    ids = gallery.ids()
    table = lancedb.connect(gallery.uri).open_table("vectors_mini-v0")
    table.delete(f"id = '{ids[0]}'")
    row = [[*[0.0] * (dim - 1), 1.0]]
    lost = pa.table([["f" * 64], row, ["own"], [None], [None], [None], [""]], schema=vectors_schema(dim))
    table.add(lost)
    pictures = lancedb.connect(gallery.uri).open_table("images")
    pictures.add(pictures.search().where(f"id = '{ids[1]}'").to_arrow())
    table.update(where=f"id = '{ids[2]}'", values={"camera": "c99"})
    gallery.fill("mini-v9", lambda data: np.tile(np.eye(1, 4, dtype=np.float32), (len(data), 1)), dim=4)
    for name in ("old", "new"):
        half = services.settings.exports_dir / f".{name}.partial"
        half.mkdir()
        (half / "data.parquet").write_bytes(b"half")
    os.utime(services.settings.exports_dir / ".old.partial", (0, time.time() - 7200))

    found = check(services)
    assert not found.clean
    advice = said(found)
    assert set(advice) == {"pictures", "vectors of mini-v0", "vectors of mini-v9", "exports/.old.partial"}
    assert advice["pictures"] == "1 rows repeat another one's id; `check --repair` deletes them"
    assert [f.fault for f in found.findings if f.about == "vectors of mini-v0"] == [
        "1 have no picture",
        "1 have other facts than their pictures",
        "1 pictures have none",
    ]
    assert "`check --repair` deletes" in advice["vectors of mini-v9"]
    assert said(check(services)) == advice, "looking changes nothing"

    repaired = check(services, Repair())
    assert repaired.clean
    assert {f.about: f.advice for f in repaired.findings}["vectors of mini-v9"] == "deleted"
    assert check(services).findings == ()
    assert gallery.versions() == ["mini-v0"]
    assert sorted(gallery.ids()) == sorted(ids)
    assert state.settings.exports_dir.joinpath(".new.partial").exists(), "one that may be under way is left alone"
    assert len(services.search(SearchRequest(CAPTION, k=SAMPLE), "me").candidates) == SAMPLE


def test_what_a_training_that_ends_meanwhile_has_made_is_kept(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, name = services.state, add_version(services)
    services.retriever.prepare(name)
    row = state.versions.get(name)
    with state.database.write() as connection:
        connection.exec_driver_sql("DELETE FROM versions WHERE id = ?", (name,))

    def ended() -> None:
        if name not in [version.id for version in state.versions.list()]:
            state.versions.add(row)

    monkeypatch.setattr(state.jobs, "current", ended)
    assert check(services, Repair()).findings == ()
    assert state.gallery.complete(name)
    assert state.version_folder(state.versions.get(name)).exists()


def test_broken_pictures_go_only_when_asked_for(services: Services) -> None:
    gallery = services.state.gallery
    broken = NewImage(data=b"no picture at all", uri="x.jpg", width=4, height=4, source="own")
    gallery.add([broken])
    for repair in (None, Repair()):
        advice = said(check(services, repair))
        assert "--remove-broken" in advice[f"picture {broken.id}"]
        assert "1 pictures have none" in advice["vectors of mini-v0"]
        assert gallery.count() == SAMPLE + 1
    report = check(services, Repair(remove_broken=True))
    assert report.clean
    assert gallery.count() == SAMPLE
    assert check(services).findings == ()


def test_a_truncated_table_is_reported_and_the_rest_is_checked(services: Services) -> None:
    folder = services.settings.gallery_dir / "vectors_mini-v0.lance" / "data"
    services.close()
    for file in folder.iterdir():
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    state = State(services.settings)  # what is open has read some of it already
    advice = said(check_state(state, services.retriever.backbone))
    assert "damaged or missing" in advice["vectors of mini-v0"]
    assert str(services.settings.data_dir) not in advice["vectors of mini-v0"]
    assert state.gallery.count() == SAMPLE
    with pytest.raises(GalleryError, match="Expected to read table"):
        state.gallery.search("mini-v0", np.ones(services.retriever.serving.encoder.dim), 3)
    repaired = check_state(state, services.retriever.backbone, repair=Repair())
    assert repaired.clean
    assert [f.advice for f in repaired.findings] == ["deleted, to be embedded again", f"{SAMPLE} embedded"]
    assert check_state(state, services.retriever.backbone).findings == ()
    state.close()


def test_damaged_pictures_cost_no_vectors(services: Services) -> None:
    folder = services.settings.gallery_dir / "images.lance" / "data"
    services.close()
    for file in folder.iterdir():
        file.rename(file.with_suffix(".away"))
    state = State(services.settings)
    try:
        for repair in (None, Repair()):
            with pytest.raises(GalleryError, match="Expected to read table 'images'"):
                check_state(state, services.retriever.backbone, repair=repair)
            assert state.gallery.versions() == ["mini-v0"]
        for file in folder.iterdir():
            file.rename(file.with_suffix(".lance"))
        assert check_state(state, services.retriever.backbone).findings == ()
    finally:
        state.close()


def test_an_interrupted_deletion_is_completed_and_not_embedded(services: Services) -> None:
    state, gallery = services.state, services.state.gallery
    image_id = gallery.ids()[0]
    with state.database.write() as connection:
        begin(connection, [image_id])
    lancedb.connect(gallery.uri).open_table("vectors_mini-v0").delete(f"id = '{image_id}'")
    assert (
        said(check(services))["forgetting"] == "begun and not completed for pictures: 1; `check --repair` completes it"
    )
    assert check(services, Repair()).clean
    assert state.deletion.pending() == []
    assert gallery.count() == SAMPLE - 1
    assert check(services).findings == ()

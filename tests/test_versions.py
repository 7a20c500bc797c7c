"""Model versions on a real SQLite file."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from store import Database, OvertakenError, VersionError, VersionRow, Versions


@pytest.fixture
def versions(tmp_path: Path) -> Iterator[Versions]:
    database = Database(tmp_path / "app.db")
    yield Versions(database)
    database.close()


def add(versions: Versions, backbone: str = "mini", **more: Any) -> VersionRow:
    return versions.add(VersionRow(id=versions.next_id(backbone), backbone=backbone, **more))


def states(versions: Versions, backbone: str | None = "mini") -> dict[str, str]:
    return {row.id: row.status for row in versions.list(backbone)}


def test_version_0_is_active_from_the_start(versions: Versions) -> None:
    base = versions.ensure_base("ViT-B-16", {"r1": 0.5})
    assert base == VersionRow(
        id="ViT-B-16-v0", backbone="ViT-B-16", status="active", created_at=base.created_at, metrics={"r1": 0.5}
    )
    assert versions.ensure_base("ViT-B-16", {"r1": 0.9}) == base
    assert versions.active("ViT-B-16") == base
    assert [(change.kind, change.version) for change in versions.history("ViT-B-16")] == [("base", "ViT-B-16-v0")]


def test_version_0_leaves_an_active_version_alone(versions: Versions) -> None:
    versions.promote(add(versions).id, by="admin", reason="only one")
    assert versions.ensure_base("mini").status == "base"
    assert versions.active("mini").id == "mini-v1"


def test_a_version_comes_back_as_it_went_in(versions: Versions) -> None:
    versions.ensure_base("mini")
    row = VersionRow(
        id="mini-v1", backbone="mini", parent="mini-v0", status="rejected", folder="models/mini-v1",
        created_at=datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC), metrics={"r1": 0.75, "per": [1, 2]},
        gate={"decision": "rejected", "reason": "naïve", "numbers": {"gain": -0.5}}, last_event=200,
        mark_counts={"hit": 20, "miss": 180},
    )  # fmt: skip
    assert versions.add(row) == row
    assert versions.get("mini-v1") == row
    assert versions.list() == [row, versions.get("mini-v0")], "in the order they were made"


def test_a_version_has_vectors_of_its_own_or_shares_anothers(versions: Versions) -> None:
    versions.ensure_base("mini")
    assert add(versions).vectors == "mini-v1"
    assert add(versions, vectors="mini-v0").vectors == "mini-v0"
    assert [row.vectors for row in versions.list("mini")] == ["mini-v0", "mini-v1", "mini-v0"]
    assert versions.promote("mini-v2", by="ada", reason="by hand").vectors == "mini-v0"


def test_names_count_up_per_backbone(versions: Versions) -> None:
    assert versions.next_id("mini") == "mini-v1"
    versions.ensure_base("mini")
    for n in range(1, 12):
        assert add(versions).id == f"mini-v{n}"
    assert versions.next_id("mini") == "mini-v12"
    assert versions.next_id("ViT-B-16") == "ViT-B-16-v1"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (VersionRow(id="mini-v0", backbone="mini"), "There is a version 'mini-v0' already"),
        (VersionRow(id="../v1", backbone="mini"), "1 to 64 letters"),
        (VersionRow(id="mini-v1", backbone="mini", status="active"), "'active' came. Promote it afterwards"),
        (VersionRow(id="mini-v1", backbone="mini", status="good"), "'good' came"),  # type: ignore[arg-type]
        (VersionRow(id="mini-v1", backbone="mini", parent="mini-v7"), r"no version 'mini-v7'.*known: mini-v0"),
        (VersionRow(id="mini-v1", backbone="mini", vectors="mini-v7"), r"no version 'mini-v7'.*known: mini-v0"),
        (
            VersionRow(id="big-v1", backbone="big", vectors="mini-v0"),
            "the vectors of mini-v0, which has another",
        ),
        (VersionRow(id="mini-v1", backbone="mini", metrics={"r1": float("nan")}), "metrics must be JSON"),
        (VersionRow(id="mini-v1", backbone="mini", gate={"when": datetime.now(UTC)}), "gate must be JSON"),
    ],
)
def test_what_is_no_version_is_refused(versions: Versions, row: VersionRow, said: str) -> None:
    versions.ensure_base("mini")
    with pytest.raises(VersionError, match=said):
        versions.add(row)
    assert states(versions) == {"mini-v0": "active"}


def test_unknown_versions_are_reported(versions: Versions) -> None:
    for call in (
        lambda: versions.get("mini-v9"),
        lambda: versions.promote("mini-v9", by="admin", reason="none"),
        lambda: versions.update_gate("mini-v9", {}),
    ):
        with pytest.raises(VersionError, match=r"no version 'mini-v9'\. These are known: none"):
            call()
    with pytest.raises(VersionError, match="'mini' has no active version"):
        versions.active("mini")
    with pytest.raises(VersionError, match="1 to 64 letters"):
        versions.ensure_base("hub/model")


def test_the_gate_says_its_word(versions: Versions) -> None:
    versions.ensure_base("mini")
    add(versions)
    row = versions.update_gate("mini-v1", {"decision": "rejected"}, status="rejected", metrics={"r1": 0.1})
    assert (row.status, row.gate, row.metrics) == ("rejected", {"decision": "rejected"}, {"r1": 0.1})
    assert versions.update_gate("mini-v0", {"decision": "none"}).status == "active"
    with pytest.raises(VersionError, match="'mini-v0' is active"):
        versions.update_gate("mini-v0", {}, status="rejected")
    with pytest.raises(VersionError, match=r"'active' came\. Use `promote`"):
        versions.update_gate("mini-v1", {}, status="active")
    with pytest.raises(VersionError, match="must be JSON"):
        versions.update_gate("mini-v1", {"gain": float("inf")})


def test_promotion_moves_the_pointer_of_one_backbone(versions: Versions) -> None:
    versions.ensure_base("mini")
    versions.ensure_base("ViT-B-16")
    add(versions, status="rejected")
    assert versions.promote("mini-v1", by="ada", reason="by hand").status == "active"
    assert states(versions, None) == {"mini-v0": "retired", "ViT-B-16-v0": "active", "mini-v1": "active"}
    assert versions.promote("mini-v1", by="ada", reason="again") == versions.active("mini")
    changes = versions.history("mini")
    assert [(c.kind, c.version, c.former, c.by, c.reason) for c in changes[1:]] == [
        ("promote", "mini-v1", "mini-v0", "ada", "by hand")
    ]
    with pytest.raises(VersionError, match="needs who made it"):
        versions.promote("mini-v0", by="", reason="?")
    assert versions.active("mini").id == "mini-v1", "a promotion that fails changes nothing"


def test_rolling_back_goes_one_further_back_each_time(versions: Versions) -> None:
    versions.ensure_base("mini")
    assert versions.former("mini") is None
    for _ in range(3):
        versions.promote(add(versions).id, by="gate", reason="better")
    assert versions.former("mini") == "mini-v2"
    assert versions.rollback("mini", by="ada").id == "mini-v2"
    assert versions.rollback("mini", by="ada").id == "mini-v1"
    versions.promote("mini-v3", by="ada", reason="after all")
    assert versions.former("mini") == "mini-v1"
    for back in ("mini-v1", "mini-v0"):
        assert versions.rollback("mini", by="ada").id == back == versions.active("mini").id
    with pytest.raises(VersionError, match="no version to roll back to"):
        versions.rollback("mini", by="ada")
    assert states(versions) == {"mini-v0": "active", "mini-v1": "retired", "mini-v2": "retired", "mini-v3": "retired"}
    kinds = [change.kind for change in versions.history("mini")]
    assert kinds == ["base", *["promote"] * 3, *["rollback"] * 2, "promote", *["rollback"] * 2]


def test_promotions_at_once_leave_one_active(versions: Versions) -> None:
    versions.ensure_base("mini")
    names = [add(versions).id for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: versions.promote(name, by="ada", reason="race"), names))
    assert sorted(states(versions).values()) == ["active", *["retired"] * 8]
    changes = versions.history("mini")
    assert [c.former for c in changes[1:]] == [c.version for c in changes[:-1]], "each took over from the one before"
    assert changes[-1].version == versions.active("mini").id


def test_a_promotion_that_expects_another_version_changes_nothing(versions: Versions) -> None:
    versions.ensure_base("mini")
    for number in (1, 2):
        versions.add(VersionRow(id=f"mini-v{number}", backbone="mini"))
    versions.promote("mini-v1", by="ada", reason="better", expected="mini-v0")
    with pytest.raises(OvertakenError, match="mini-v1 serves now, not mini-v0"):
        versions.promote("mini-v2", by="gate", reason="better", expected="mini-v0")
    assert versions.active("mini").id == "mini-v1"
    assert versions.history("mini")[-1].by == "ada"


def test_only_what_nothing_needs_is_deleted(versions: Versions) -> None:
    versions.ensure_base("mini")
    one, two, three = (add(versions, parent="mini-v0", folder=f"models/{name}").id for name in ("a", "b", "c"))
    four = add(versions, parent=three, folder="models/d", vectors=two).id
    versions.promote(one, by="gate", reason="better")
    versions.promote(four, by="gate", reason="better")
    for name, why in (
        ("mini-v0", "plain backbone"), (four, "is in use"), (one, "was in use before"),
        (three, f"is what {four} started from"), (two, f"keeps the vectors of {four}"), ("mini-v9", "no version"),
    ):  # fmt: skip
        with pytest.raises(VersionError, match=why):
            versions.delete(name)
    assert len(versions.list()) == 5
    five = add(versions, parent=one, folder="models/e").id
    assert versions.delete(five).folder == "models/e"
    assert [row.id for row in versions.list()] == ["mini-v0", one, two, three, four]
    assert versions.next_id("mini") == "mini-v6", "marks name versions: a name is never given twice"

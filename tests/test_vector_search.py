"""Rankings with an index: stable pages, filters as a full scan has them, and an index that is kept fresh."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import store.gallery.indexes
import store.gallery.vector_search
from store import Filters, Gallery, NewImage
from store.gallery.lance_folder import LanceFolder
from store.gallery.table import Table

DIM, COUNT, VERSION = 32, 1500, "mini-v0"
DAY = datetime(2024, 1, 1, tzinfo=UTC)


def clustered(count: int) -> np.ndarray:
    """Unit rows in clusters of ten: those of consecutive pictures lie near each other."""
    rng = np.random.default_rng(0)
    rows = np.repeat(rng.normal(size=(count // 10, DIM)), 10, axis=0) + 0.3 * rng.normal(size=(count, DIM))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


ROWS = clustered(2500)


def picture(n: int) -> NewImage:
    facts: dict[str, Any] = {
        "pid": f"p{n % 300}" if n % 5 else None,
        "camera": f"c{n % 7}",
        "source": "other" if n % 11 == 0 else "own",
        "captured_at": DAY + timedelta(hours=n) if n % 3 else None,
        "metadata": {"coat": ["red", "blue", "green"][n % 3], "floor": n % 4},
    }
    return NewImage(data=f"picture {n}".encode(), uri=f"{n}.jpg", width=64, height=128, **facts)


def embed(data: Sequence[bytes]) -> np.ndarray:
    return ROWS[[int(item.split()[-1]) for item in data]]


IMAGES = [picture(n) for n in range(COUNT)]
IDS = [image.id for image in IMAGES]


@pytest.fixture
def small_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store.gallery.indexes, "INDEX_FROM", 500)
    monkeypatch.setattr(store.gallery.indexes, "PART_ROWS", 50)


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store.gallery.indexes, "INDEX_FROM", 500)
        patch.setattr(store.gallery.indexes, "PART_ROWS", 50)
        gallery = Gallery(tmp_path_factory.mktemp("grown"))
        gallery.add(IMAGES)
        gallery.fill(VERSION, embed, dim=DIM, batch_size=500)
    return gallery


def full_scan(numbers: Sequence[int], query: np.ndarray) -> list[str]:
    scores = ROWS[list(numbers)].astype(np.float64) @ query.astype(np.float64)
    ids = [IDS[n] for n in numbers]
    return [ids[at] for at in sorted(range(len(ids)), key=lambda at: (-scores[at], ids[at]))]


@pytest.mark.usefixtures("small_index")
def test_pages_are_slices_of_one_order_with_an_index(grown: Gallery) -> None:
    query, k = ROWS[77], 110
    pages = [grown.search(VERSION, query, k, offset=start) for start in range(0, COUNT + k, k)]
    seen = [candidate for page in pages for candidate in page]
    assert [candidate.rank for candidate in seen] == list(range(1, COUNT + 1))
    assert sorted(candidate.image_id for candidate in seen) == sorted(grown.ids()), "each once, none lost"
    whole = [c.image_id for c in grown.search(VERSION, query, COUNT)]
    assert [candidate.image_id for candidate in seen] == whole
    assert whole[:24] == full_scan(range(COUNT), query)[:24]
    scores = dict(zip(IDS, (ROWS[:COUNT] @ query).tolist(), strict=True))
    assert max(abs(candidate.score - scores[candidate.image_id]) for candidate in seen) < 1e-5


def passing(filters: Filters) -> list[int]:
    """What passes, said once more in plain Python."""
    kept = []
    for n in range(COUNT):
        image = IMAGES[n]
        known = {(key, value if isinstance(value, str) else str(value)) for key, value in image.metadata.items()}
        keys = {key for key, _ in filters.metadata}
        time = image.captured_at
        if (
            (not filters.camera or image.camera in filters.camera)
            and (not filters.source or image.source in filters.source)
            and (not filters.pid or image.pid in filters.pid)
            and (filters.captured_from is None or (time is not None and time >= filters.captured_from))
            and (filters.captured_to is None or (time is not None and time <= filters.captured_to))
            and all(known & {pair for pair in filters.metadata if pair[0] == key} for key in keys)
        ):
            kept.append(n)
    return kept


def some(*values: str) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from(values), max_size=2, unique=True).map(tuple)


FILTERS = st.builds(
    Filters,
    camera=some("c0", "c1", "c2", "'", "none"),
    source=some("own", "other"),
    pid=st.one_of(st.just(()), some("p1", "p2", "p3", "x' OR 1=1 --")),
    captured_from=st.one_of(st.none(), st.integers(0, 700).map(lambda h: DAY + timedelta(hours=h))),
    captured_to=st.one_of(st.none(), st.integers(700, 1500).map(lambda h: DAY + timedelta(hours=h))),
    metadata=st.lists(
        st.sampled_from([("coat", "red"), ("coat", "blue"), ("floor", "1"), ("floor", "2"), ("coat", "%")]),
        max_size=2,
        unique=True,
    ).map(tuple),
)


@pytest.mark.usefixtures("small_index")
@given(filters=FILTERS, of=st.integers(0, COUNT - 1), offset=st.sampled_from([0, 24]))
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_filtered_is_a_filtered_full_scan(grown: Gallery, filters: Filters, of: int, offset: int) -> None:
    """However few parts of the index a search looks into that has no filters."""
    query = embed([picture(of).data])[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store.gallery.vector_search, "PROBES", (1.0, 0.0) if filters != Filters() else (50.0, 0.0))
        found = [c.image_id for c in grown.search(VERSION, query, 24, offset=offset, filters=filters)]
    assert found == full_scan(passing(filters), query)[offset : offset + 24]


QUERY = ROWS[77]
BEST = [5, 30, 200, 1200, COUNT]  # the best matches of QUERY up to these ranks are of the sources "best 0" to "best 4"


@pytest.fixture(scope="module", params=["compared one by one", "indexed"])
def by_rank(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gallery]:
    """Pictures whose source says how well they match QUERY."""
    rank = {image_id: at for at, image_id in enumerate(full_scan(range(COUNT), QUERY))}
    sources = [f"best {bisect_right(BEST, rank[image_id])}" for image_id in IDS]
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "indexed":
            patch.setattr(store.gallery.indexes, "INDEX_FROM", 500)
            patch.setattr(store.gallery.indexes, "PART_ROWS", 50)
            patch.setattr(store.gallery.vector_search, "PROBES", (50.0, 0.0))
        gallery = Gallery(tmp_path_factory.mktemp("by_rank"))
        gallery.add([replace(picture(n), source=sources[n]) for n in range(COUNT)])
        gallery.fill(VERSION, embed, dim=DIM, batch_size=500)
        yield gallery


@pytest.mark.parametrize("hidden", [["best 0"], ["best 1"], ["best 0", "best 1"], ["best 0", "best 1", "best 2"],
                                    ["best 1", "best 3"], ["best 0", "best 1", "best 2", "best 3"],
                                    [f"best {n}" for n in range(5)]], ids=len)  # fmt: skip
@pytest.mark.parametrize("filters", [Filters(), Filters(camera=("c1", "c2"))], ids=["all", "two cameras"])
def test_hidden_best_matches_leave_all_others_as_a_full_scan(
    by_rank: Gallery, hidden: list[str], filters: Filters
) -> None:
    rank = {image_id: at for at, image_id in enumerate(full_scan(range(COUNT), QUERY))}
    shown = [n for n in passing(filters) if f"best {bisect_right(BEST, rank[IDS[n]])}" not in hidden]
    expected = full_scan(shown, QUERY)
    for source in hidden:
        by_rank.hide_source(source)
    try:
        for offset, k in ((0, 1), (0, 24), (24, 24), (90, 60), (len(expected) - 5, 24)):
            if offset < 0:
                continue
            found = by_rank.search(VERSION, QUERY, k, offset=offset, filters=filters)
            assert [c.image_id for c in found] == expected[offset : offset + k]
            assert [c.rank for c in found] == list(range(offset + 1, offset + 1 + len(found)))
    finally:
        for source in hidden:
            by_rank.show_source(source)
    assert by_rank.hidden_sources == ()


@pytest.mark.usefixtures("small_index")
def test_pages_stay_slices_of_one_order_with_a_source_hidden(grown: Gallery) -> None:
    """Also where only a few parts of the index are searched."""
    grown.hide_source("other")
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(store.gallery.vector_search, "PROBES", (3.0, 0.0))
            whole = [c.image_id for c in grown.search(VERSION, QUERY, COUNT)]
            pages = [grown.search(VERSION, QUERY, 37, offset=start) for start in range(0, COUNT, 37)]
    finally:
        grown.show_source("other")
    assert [c.image_id for page in pages for c in page] == whole
    assert sorted(whole) == sorted(IDS[n] for n in range(COUNT) if n % 11)


@pytest.mark.usefixtures("small_index")
def test_index_is_built_joined_and_rebuilt_as_the_gallery_grows(tmp_path: Path) -> None:
    gallery, table = Gallery(tmp_path), Table(LanceFolder(tmp_path), f"vectors_{VERSION}")

    def grow(first: int, last: int) -> None:
        for start in range(first, last, 2000):
            gallery.add([picture(n) for n in range(start, min(start + 2000, last))])
        gallery.fill(VERSION, embed, dim=DIM, batch_size=2000)

    grow(0, 400)
    assert table.index_of("vector") is None
    grow(400, 1200)
    assert table.index_of("vector") == ("vector_2000_1200", 0)
    assert not gallery.maintain(VERSION)
    grow(1200, 1300)
    assert table.index_of("vector") == ("vector_2000_1200", 100), "few are compared one by one"
    assert gallery.search(VERSION, embed([picture(1250).data])[0], 1)[0].image_id == picture(1250).id
    grow(1300, 2300)
    assert table.index_of("vector") == ("vector_2000_1200", 0)
    grow(2300, 2400)
    assert table.index_of("vector") == ("vector_2000_2400", 0), "twice as many: other parts"
    table.index_vectors("vector_2400", parts=1)
    assert gallery.maintain(VERSION), "as older programs parted it"
    assert table.index_of("vector") == ("vector_2000_2400", 0)
    assert {index.columns[0] for index in table.existing().list_indices()} == {
        "vector", "source", "camera", "pid", "captured_at",
    }  # fmt: skip


@pytest.mark.usefixtures("small_index")
def test_pictures_are_found_by_an_index_of_their_ids(tmp_path: Path) -> None:
    gallery, pictures = Gallery(tmp_path), Table(LanceFolder(tmp_path), "images")
    images = [picture(n) for n in range(2000)]
    gallery.add(images[:400])
    gallery.fill(VERSION, embed, dim=DIM, batch_size=2000)
    assert pictures.index_of("id") is None
    gallery.add(images[400:600])
    assert gallery.maintain(VERSION)
    assert pictures.index_of("id") == ("id_idx", 0)
    assert gallery.add(images[350:800]) == [image.id for image in images[600:800]], "those in the index are known"
    assert pictures.index_of("id") == ("id_idx", 200)
    assert gallery.add(images[550:900]) == [image.id for image in images[800:900]], "and those it lacks"
    assert gallery.ids() == [image.id for image in images[:900]]
    assert [row.uri for row in gallery.rows([images[n].id for n in (750, 20, 1000)])] == ["750.jpg", "20.jpg"]
    gallery.add(images)
    assert gallery.maintain(VERSION)
    assert pictures.index_of("id") == ("id_idx", 0)

    gone = [images[n].id for n in (10, 850)]
    assert gallery.forget(gone) == 2
    assert pictures.index_of("id") == ("id_idx", 0), "and it is there again"
    assert sorted(gallery.ids()) == sorted({image.id for image in images} - set(gone))
    assert gallery.datas([images[850].id, images[851].id]) == {images[851].id: images[851].data}
    assert gallery.add([images[10]]) == gone[:1]


def test_many_small_fragments_are_joined(tmp_path: Path) -> None:
    gallery, table = Gallery(tmp_path), Table(LanceFolder(tmp_path), f"vectors_{VERSION}")
    gallery.add([picture(n) for n in range(40)])
    gallery.fill(VERSION, embed, dim=DIM, batch_size=1)
    assert table.small_fragments() < 32
    assert len(gallery.search(VERSION, embed([b"picture 1"])[0], 50)) == 40


def test_ids_are_those_of_the_bytes() -> None:
    assert picture(3).id == hashlib.sha256(b"picture 3").hexdigest()

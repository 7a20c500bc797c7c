"""The gallery on real LanceDB folders."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pytest

from store import Candidate, Facets, Filters, Gallery, GalleryError, ImageRow, NewImage
from tests.factories import embedder, picture

DIM = 16
embed = embedder(DIM)


def filled(folder: Path, images: Sequence[NewImage], version: str = "mini-v0") -> Gallery:
    gallery = Gallery(folder)
    gallery.add(images)
    gallery.fill(version, embed, dim=DIM)
    return gallery


def brute_force(images: Sequence[NewImage], query: np.ndarray) -> list[tuple[str, float]]:
    rows = embed([image.data for image in images]).astype(np.float64)
    scores = rows @ (query.astype(np.float64) / np.linalg.norm(query))
    return sorted(((image.id, float(score)) for image, score in zip(images, scores, strict=True)), key=lambda p: -p[1])


# Pictures


def test_a_picture_comes_back_as_it_went_in(tmp_path: Path) -> None:
    taken = datetime(2024, 5, 1, 12, 30, 15, 123456, tzinfo=timezone(timedelta(hours=2)))
    image = picture(1, pid="p7", camera="gate", captured_at=taken, metadata={"tags": ["ä", 1, None, {"x": 1.5}]})
    gallery = Gallery(tmp_path)
    assert gallery.add([image, picture(2)]) == [image.id, picture(2).id]
    assert image.id == hashlib.sha256(image.data).hexdigest()

    row = gallery.get(image.id)
    assert row == ImageRow(
        id=image.id, uri="0001.jpg", width=128, height=384, source="own", pid="p7", camera="gate",
        captured_at=taken, metadata={"tags": ["ä", 1, None, {"x": 1.5}]}, added_at=row.added_at,
    )  # fmt: skip
    assert abs(datetime.now(UTC) - row.added_at) < timedelta(minutes=1)
    assert gallery.data(image.id) == image.data
    assert gallery.datas([picture(2).id, "none", image.id]) == {image.id: image.data, picture(2).id: picture(2).data}
    assert [found.uri for found in gallery.rows([picture(2).id, "none", image.id])] == ["0002.jpg", "0001.jpg"]
    assert gallery.ids() == [image.id, picture(2).id]


def test_a_time_without_a_zone_is_utc(tmp_path: Path) -> None:
    gallery = Gallery(tmp_path)
    gallery.add([picture(1, captured_at=datetime(2024, 5, 1))])
    assert gallery.get(picture(1).id).captured_at == datetime(2024, 5, 1, tzinfo=UTC)


def test_the_same_picture_twice_is_one(tmp_path: Path) -> None:
    gallery = Gallery(tmp_path)
    assert gallery.add([picture(1), picture(1, uri="copy.jpg"), picture(2)]) == [picture(1).id, picture(2).id]
    assert gallery.add([picture(2, pid="late"), picture(3)]) == [picture(3).id]
    assert gallery.add([]) == []
    assert gallery.count() == 3
    assert gallery.get(picture(2).id).pid is None, "the facts that came first stay"


def test_counts_by_source(tmp_path: Path) -> None:
    gallery = Gallery(tmp_path)
    gallery.add([picture(n, source="sample" if n < 3 else 'it\'s "own"') for n in range(7)])
    assert gallery.count() == 7
    assert gallery.count(source="sample") == 3
    assert gallery.count(source="' OR 1=1 --") == 0
    assert gallery.sources() == {"sample": 3, 'it\'s "own"': 4}


def test_an_add_that_fails_adds_nothing(tmp_path: Path) -> None:
    gallery = Gallery(tmp_path)
    with pytest.raises(GalleryError, match="metadata must be JSON"):
        gallery.add([picture(1), picture(2, metadata={"size": np.float32(1)})])
    assert gallery.count() == 0


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"width": 0}, "at least 1 x 1; 0 x 384 came"),
        ({"source": ""}, "needs a source"),
    ],
)
def test_what_is_no_picture_is_refused(facts: dict[str, Any], said: str) -> None:
    with pytest.raises(GalleryError, match=said):
        picture(1, **facts)


def test_no_bytes_are_no_picture() -> None:
    with pytest.raises(GalleryError, match=r"a\.jpg: a picture needs its file's bytes"):
        NewImage(data=b"", uri="a.jpg", width=1, height=1, source="own")


def test_an_unknown_id_says_so(tmp_path: Path) -> None:
    gallery = Gallery(tmp_path)
    for ask in (gallery.get, gallery.data):
        with pytest.raises(GalleryError, match='no picture "x\' OR 1=1 --"'):
            ask("x' OR 1=1 --")


def test_remove_takes_the_picture_and_all_its_embeddings(tmp_path: Path) -> None:
    images = [picture(n) for n in range(5)]
    gallery = filled(tmp_path, images)
    gallery.fill("mini-v1", embed, dim=DIM)
    assert gallery.forget([images[0].id, "unknown", images[1].id]) == 2
    assert gallery.count() == 3
    for version in gallery.versions():
        assert gallery.vectors(version, [image.id for image in images])[0] == [image.id for image in images[2:]]
    assert gallery.complete("mini-v0")


# Filling


def test_fill_embeds_what_is_missing_and_nothing_twice(tmp_path: Path) -> None:
    images = [picture(n) for n in range(10)]
    gallery = Gallery(tmp_path)
    gallery.add(images[:7])
    assert (gallery.missing("mini-v0"), gallery.complete("mini-v0"), gallery.versions()) == (7, False, [])
    said: list[tuple[int, int]] = []
    assert gallery.fill("mini-v0", embed, dim=DIM, batch_size=3, progress=lambda a, b: said.append((a, b))) == 7
    assert said == [(0, 7), (3, 7), (6, 7), (7, 7)]
    assert (gallery.missing("mini-v0"), gallery.complete("mini-v0"), gallery.versions()) == (0, True, ["mini-v0"])

    gallery.add(images[7:])
    assert not gallery.complete("mini-v0")
    asked: list[bytes] = []

    def encode(data: list[bytes]) -> np.ndarray:
        asked.extend(data)
        return embed(data)

    assert gallery.fill("mini-v0", encode, dim=DIM) == 3
    assert asked == [image.data for image in images[7:]]
    ids, rows = gallery.vectors("mini-v0", [image.id for image in reversed(images)])
    assert ids == [image.id for image in reversed(images)]
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows, embed([image.data for image in reversed(images)]))


def test_fill_of_an_empty_gallery_is_complete(tmp_path: Path) -> None:
    gallery = Gallery(tmp_path)
    assert gallery.fill("mini-v0", embed, dim=DIM) == 0
    assert gallery.complete("mini-v0")
    assert gallery.search("mini-v0", np.ones(DIM, np.float32), 5) == []
    ids, rows = gallery.vectors("mini-v0", ["x"])
    assert (ids, rows.shape) == ([], (0, DIM))


def test_a_fill_that_broke_off_goes_on(tmp_path: Path) -> None:
    gallery = Gallery(tmp_path)
    gallery.add([picture(n) for n in range(10)])
    seen = 0

    def encode(data: list[bytes]) -> np.ndarray:
        nonlocal seen
        seen += len(data)
        if seen > 6:
            raise MemoryError("no room")
        return embed(data)

    with pytest.raises(MemoryError):
        gallery.fill("mini-v0", encode, dim=DIM, batch_size=2)
    assert gallery.missing("mini-v0") == 4
    assert Gallery(tmp_path).fill("mini-v0", embed, dim=DIM) == 4
    assert gallery.complete("mini-v0")


def test_a_cancelled_fill_keeps_what_it_had(tmp_path: Path) -> None:
    gallery = Gallery(tmp_path)
    gallery.add([picture(n) for n in range(6)])
    answers = iter([False, False, True])
    assert gallery.fill("mini-v0", embed, dim=DIM, batch_size=2, cancelled=lambda: next(answers, True)) == 4
    assert gallery.missing("mini-v0") == 2


def test_a_picture_removed_while_it_is_embedded_leaves_no_embedding(tmp_path: Path) -> None:
    images = [picture(n) for n in range(4)]
    gallery = Gallery(tmp_path)
    gallery.add(images)

    def encode(data: list[bytes]) -> np.ndarray:
        gallery.forget([images[0].id, images[3].id])
        return embed(data)

    gallery.fill("mini-v0", encode, dim=DIM, batch_size=2)
    assert gallery.vectors("mini-v0", [image.id for image in images])[0] == [images[1].id, images[2].id]


def bad(rows: np.ndarray, value: float) -> np.ndarray:
    rows[1] = value
    return rows


@pytest.mark.parametrize(
    ("spoil", "came"),
    [
        (lambda rows: bad(rows, np.nan), "1 rows of another norm came, the first nan"),
        (lambda rows: bad(rows, np.inf), "1 rows of another norm came, the first inf"),
        (lambda rows: bad(rows, 0.0), "1 rows of another norm came, the first 0 for picture"),
        (lambda rows: rows * 1.01, "3 rows of another norm came, the first 1.01"),
        (lambda rows: rows[:, :-1], r"\(3, 15\) came"),
        (lambda rows: rows[:2], r"\(2, 16\) came"),
        (lambda rows: rows.tolist(), "list came"),
        (lambda rows: (rows * 1000).astype(np.int32), "values of type int32 came"),
    ],
)
def test_rows_that_are_no_embeddings_are_refused(tmp_path: Path, spoil: Any, came: str) -> None:
    gallery = Gallery(tmp_path)
    gallery.add([picture(n) for n in range(3)])
    with pytest.raises(
        GalleryError, match=f"Expected one float row of length 16 and norm 1.*{came}.*Check the encoder"
    ):
        gallery.fill("mini-v0", lambda data: spoil(embed(data)), dim=DIM)
    assert gallery.missing("mini-v0") == 3


def test_rows_close_to_unit_length_are_taken(tmp_path: Path) -> None:
    images = [picture(n) for n in range(3)]
    gallery = Gallery(tmp_path)
    gallery.add(images)
    assert gallery.fill("mini-v0", lambda data: embed(data) * np.float32(1.0009), dim=DIM) == 3
    assert gallery.search("mini-v0", embed([images[0].data])[0], 1)[0].score == pytest.approx(1, abs=1e-6)


def test_a_version_keeps_its_length(tmp_path: Path) -> None:
    gallery = filled(tmp_path, [picture(1)])
    with pytest.raises(GalleryError, match="'vectors_mini-v0' has embeddings of 16 values each; 32 came"):
        gallery.fill("mini-v0", embed, dim=32)


@pytest.mark.parametrize("name", ["", "../up", "a b", "x" * 65, "v'; DROP", "ü"])
def test_a_version_that_is_no_name_is_refused(tmp_path: Path, name: str) -> None:
    gallery = Gallery(tmp_path)
    for call in (gallery.missing, gallery.complete, gallery.drop_version):
        with pytest.raises(GalleryError, match="1 to 64 letters"):
            call(name)
    with pytest.raises(GalleryError, match="1 to 64 letters"):
        gallery.fill(name, embed, dim=DIM)
    with pytest.raises(GalleryError, match="1 to 64 letters"):
        gallery.search(name, np.ones(DIM, np.float32), 1)


def test_versions_are_dropped(tmp_path: Path) -> None:
    gallery = filled(tmp_path, [picture(1)], version="ViT-B-16-v0")
    gallery.fill("mini.v1_x", embed, dim=DIM)
    assert gallery.versions() == ["ViT-B-16-v0", "mini.v1_x"]
    gallery.drop_version("mini.v1_x")
    gallery.drop_version("mini.v1_x")
    assert gallery.versions() == ["ViT-B-16-v0"]
    with pytest.raises(GalleryError, match=r"no embeddings of version 'mini.v1_x' \(it has: ViT-B-16-v0\)"):
        gallery.search("mini.v1_x", np.ones(DIM, np.float32), 1)


def test_a_version_dropped_elsewhere_is_reported(tmp_path: Path) -> None:
    gallery = filled(tmp_path, [picture(1)])
    Gallery(tmp_path).drop_version("mini-v0")
    with pytest.raises(GalleryError, match="deleted in between"):
        gallery.search("mini-v0", np.ones(DIM, np.float32), 1)
    assert not gallery.complete("mini-v0")
    assert gallery.fill("mini-v0", embed, dim=DIM) == 1
    assert len(gallery.search("mini-v0", np.ones(DIM, np.float32), 1)) == 1


# Searching


def test_search_ranks_by_true_cosine(tmp_path: Path) -> None:
    images = [picture(n, pid=f"p{n}", camera="c", captured_at=datetime(2024, 1, 1, tzinfo=UTC)) for n in range(300)]
    gallery = filled(tmp_path, images)
    query = (embed([b"query"])[0] * 3).astype(np.float32)
    expected = brute_force(images, query)
    found = gallery.search("mini-v0", query, 24)
    assert [candidate.image_id for candidate in found] == [image_id for image_id, _ in expected[:24]]
    np.testing.assert_allclose([c.score for c in found], [score for _, score in expected[:24]], atol=1e-5, rtol=0)
    first = next(image for image in images if image.id == expected[0][0])
    assert found[0] == Candidate(
        image_id=first.id, rank=1, score=found[0].score, pid=first.pid, camera="c",
        captured_at=datetime(2024, 1, 1, tzinfo=UTC),
    )  # fmt: skip
    pages = [gallery.search("mini-v0", query, 50, offset=start) for start in range(0, 350, 50)]
    flat = [candidate for page in pages for candidate in page]
    assert [candidate.rank for candidate in flat] == list(range(1, 301))
    assert [candidate.image_id for candidate in flat] == [image_id for image_id, _ in expected]
    assert len(gallery.search("mini-v0", query, 1000)) == 300


def test_ties_go_by_id_across_pages_and_writes(tmp_path: Path) -> None:
    gallery = Gallery(tmp_path)
    images = [picture(n) for n in range(60)]
    row = embed([b"all the same"])
    for start in range(0, 60, 7):
        gallery.add(images[start : start + 7])
        gallery.fill("mini-v0", lambda data: np.repeat(row, len(data), axis=0), dim=DIM)
    ordered = sorted(image.id for image in images)
    for k in (1, 7, 13, 59, 60):
        pages = [c.image_id for start in range(0, 60, k) for c in gallery.search("mini-v0", row[0], k, offset=start)]
        assert pages == ordered


@pytest.mark.parametrize(
    ("vector", "k", "offset", "said"),
    [
        (np.ones(DIM), 0, 0, "k of at least 1 .*; 0 and 0 came"),
        (np.ones(DIM), 1, -1, "an offset of at least 0; 1 and -1 came"),
        (np.ones(DIM + 1), 1, 0, r"embeddings of length 16; a query of shape \(17,\) came"),
        (np.ones((1, DIM)), 1, 0, r"a query of shape \(1, 16\) came"),
        (np.zeros(DIM), 1, 0, "finite and not all zero"),
        (np.full(DIM, np.nan), 1, 0, "finite and not all zero"),
    ],
)
def test_what_is_no_search_is_refused(tmp_path: Path, vector: np.ndarray, k: int, offset: int, said: str) -> None:
    gallery = filled(tmp_path, [picture(1)])
    with pytest.raises(GalleryError, match=said):
        gallery.search("mini-v0", vector.astype(np.float32), k, offset=offset)


def test_a_version_without_a_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GalleryError, match=r"no embeddings of version 'mini-v9' \(it has: none\)"):
        Gallery(tmp_path).search("mini-v9", np.ones(DIM, np.float32), 1)
    with pytest.raises(GalleryError, match="no embeddings of version"):
        Gallery(tmp_path).vectors("mini-v9", [])


def noted(n: int) -> NewImage:
    time = None if n % 4 == 0 else datetime(2024, 1, 1, tzinfo=UTC) + timedelta(days=n)
    metadata = {
        "coat": ["red", 'a "q"\n["coat", "red"]\n', "%", None][n % 4],
        "worn": [["hat", "bag"], ["hat"], []][n % 3],
        "number": [1, 2.5][n % 2],
        "indoors": n < 20,
        "deep": {"coat": "green"},
    }
    return picture(n, pid=["a", "x' OR 1=1 --", None][n % 3], camera=f"c{n % 2}", captured_at=time, metadata=metadata)


@pytest.mark.parametrize(
    ("filters", "passes"),
    [
        (Filters(), lambda _: True),
        (Filters(camera=("c1",)), lambda n: n % 2 == 1),
        (Filters(camera=("c0", "c1")), lambda _: True),
        (Filters(pid=("x' OR 1=1 --",)), lambda n: n % 3 == 1),
        (Filters(pid=("' OR '1'='1", '"; DROP TABLE images', "\\' OR true --")), lambda _: False),
        (Filters(pid=("a",), camera=("c1",)), lambda n: n % 3 == 0 and n % 2 == 1),
        (Filters(source=("other",)), lambda _: False),
        (Filters(captured_from=datetime(2024, 1, 11, tzinfo=UTC)), lambda n: n % 4 and n >= 10),
        (Filters(captured_to=datetime(2024, 1, 11)), lambda n: n % 4 and n <= 10),
        (
            Filters(
                captured_from=datetime(2024, 1, 11, 2, tzinfo=timezone(timedelta(hours=2))),
                captured_to=datetime(2024, 1, 11, microsecond=1, tzinfo=UTC),
            ),
            lambda n: n == 10,
        ),
        (Filters(metadata=(("coat", "red"),)), lambda n: n % 4 == 0),
        (Filters(metadata=(("coat", 'a "q"\n["coat", "red"]\n'),)), lambda n: n % 4 == 1),
        (Filters(metadata=(("coat", "re"), ("coat", "green"), ("coat", "_"), ("worn", "red"))), lambda _: False),
        (Filters(metadata=(("coat", "red"), ("coat", "%"))), lambda n: n % 4 in (0, 2)),
        (Filters(metadata=(("coat", "red"), ("worn", "bag"))), lambda n: n % 4 == 0 and n % 3 == 0),
        (Filters(metadata=(("worn", "hat"),), camera=("c1",)), lambda n: n % 3 < 2 and n % 2 == 1),
        (Filters(metadata=(("number", "2.5"), ("indoors", "false"))), lambda n: n % 2 == 1 and n >= 20),
    ],
)
def test_filters_keep_exactly_what_passes(tmp_path: Path, filters: Filters, passes: Any) -> None:
    gallery = filled(tmp_path, [noted(n) for n in range(40)])
    found = gallery.search("mini-v0", embed([b"query"])[0], 40, filters=filters)
    expected = {noted(n).id for n in range(40) if passes(n)}
    assert {candidate.image_id for candidate in found} == expected
    assert set(gallery.matching(filters)) == expected


def test_facets_are_what_can_be_filtered_by(tmp_path: Path) -> None:
    gallery = Gallery(tmp_path)
    none = Facets(cameras={}, sources={}, pids=0, captured_from=None, captured_to=None, metadata={})
    assert gallery.facets() == none
    gallery.add([noted(n) for n in range(4)])
    gallery.add([picture(9, source="sample", camera="hall")])
    gallery.hide_source("sample")
    day = datetime(2024, 1, 1, tzinfo=UTC)
    assert gallery.facets() == Facets(
        cameras={"c0": 2, "c1": 2},
        sources={"own": 4},
        pids=2,
        captured_from=day + timedelta(days=1),
        captured_to=day + timedelta(days=3),
        metadata={
            "coat": {"%": 1, 'a "q"\n["coat", "red"]\n': 1, "red": 1},
            "indoors": {"true": 4},
            "number": {"1": 2, "2.5": 2},
            "worn": {"bag": 2, "hat": 3},
        },
    )
    gallery.show_source("sample")
    assert gallery.facets().cameras == {"c0": 2, "c1": 2, "hall": 1}
    Gallery(tmp_path).forget([picture(9).id])
    assert gallery.facets().cameras == {"c0": 2, "c1": 2}


@pytest.mark.parametrize(
    "text",
    ["a man in a red coat", ["A woman with a bag.", "She wears a long blue dress."], "x" * 101, "wet, dark " * 30],
)
def test_free_text_is_no_facet_but_can_be_asked_for(tmp_path: Path, text: Any) -> None:
    gallery = filled(tmp_path, [picture(n, metadata={"text": text, "gate": "main gate north"}) for n in range(3)])
    assert gallery.facets().metadata == {"gate": {"main gate north": 3}}
    wanted = Filters(metadata=(("text", text[0] if isinstance(text, list) else text),))
    assert len(gallery.search("mini-v0", embed([b"query"])[0], 5, filters=wanted)) == 3


def test_every_facet_is_short_enough_to_be_asked_for(tmp_path: Path) -> None:
    gallery = Gallery(tmp_path)
    gallery.add([picture(0, camera="c" * 201, metadata={"k" * 201: "v"}), picture(1, camera="c1")])
    assert gallery.facets().cameras == {"c1": 1}
    assert gallery.facets().metadata == {}


def test_a_table_of_an_older_program_is_given_its_tags(tmp_path: Path) -> None:
    filled(tmp_path, [noted(n) for n in range(12)])
    table = lancedb.connect(str(tmp_path)).open_table("vectors_mini-v0")
    table.drop_columns(["tags"])
    gallery = Gallery(tmp_path)
    assert gallery.fill("mini-v0", embed, dim=DIM) == 0
    found = gallery.search("mini-v0", embed([b"query"])[0], 12, filters=Filters(metadata=(("coat", "red"),)))
    assert {candidate.image_id for candidate in found} == {noted(n).id for n in (0, 4, 8)}
    assert len(gallery.search("mini-v0", embed([b"query"])[0], 20)) == 12


def test_a_filter_is_applied_before_the_ranking_is_cut(tmp_path: Path) -> None:
    images = [picture(n, camera="rare" if n == 99 else "usual") for n in range(100)]
    gallery = filled(tmp_path, images)
    away = -embed([images[99].data])[0]
    assert [c.image_id for c in gallery.search("mini-v0", away, 1, filters=Filters(camera=("rare",)))] == [
        images[99].id
    ]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"pid": "p1"}, "'pid' takes a tuple of texts; 'p1' came"),
        ({"camera": (1,)}, "'camera' takes a tuple of texts"),
        ({"metadata": (("key",),)}, "'metadata' takes a tuple of pairs"),
        ({"captured_from": "2024-01-01"}, "'captured_from' takes a datetime"),
        ({"captured_from": datetime(2024, 2, 1), "captured_to": datetime(2024, 1, 1)}, "must not be after"),
    ],
)
def test_what_is_no_filter_is_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(GalleryError, match=said):
        Filters(**values)


def test_a_hidden_source_steps_aside_for_every_process(tmp_path: Path) -> None:
    images = [picture(n, source="sample" if n % 2 else "own") for n in range(20)]
    gallery, other = filled(tmp_path, images), Gallery(tmp_path)
    query = embed([b"query"])[0]
    assert gallery.hidden_sources == ()
    other.hide_source("sample")
    other.hide_source("sample")
    assert gallery.hidden_sources == other.hidden_sources == ("sample",)
    assert {c.image_id for c in gallery.search("mini-v0", query, 20)} == {image.id for image in images[::2]}
    assert gallery.search("mini-v0", query, 20, filters=Filters(source=("sample",))) == []
    assert gallery.count() == 20
    assert Gallery(tmp_path).hidden_sources == ("sample",), "kept on disk"
    gallery.hide_source("it's")
    assert other.hidden_sources == ("it's", "sample")
    gallery.show_source("sample")
    gallery.show_source("never hidden")
    assert other.hidden_sources == ("it's",)
    assert len(other.search("mini-v0", query, 20)) == 20

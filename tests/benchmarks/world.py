"""What `kills` and `together` share: small pictures, work that is logged once done, and what must then be there."""

from __future__ import annotations

import io
import random
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

import store.gallery.indexes
from app.doctor import check_state
from app.search.retriever import Retriever
from app.settings import Settings
from app.state import State
from core import Backbone
from store import Filters, NewImage, Search, Shown

STAYING, PASSING = ("sample", "own"), "passing"
"""Sources of pictures that are marked, and the one of those that are forgotten again."""
WORDS = ("red", "green", "blue", "black", "white")


def settings_of(folder: Path) -> Settings:
    never = 10_000_000
    return Settings(data_dir=folder, sample_size=40, searches_per_minute=100_000, train_after_marks=never, adapt="off")


def small_index() -> None:
    """Galleries of a few hundred pictures have an index, too, of several parts. (LanceDB warns of such small ones.)"""
    store.gallery.indexes.INDEX_FROM, store.gallery.indexes.PART_ROWS = 150, 60


def picture(number: int, source: str = "own") -> NewImage:
    """A small picture of its own for each number."""
    pixels = np.random.default_rng(number).integers(0, 256, (48, 16, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return NewImage(data=file.getvalue(), uri=f"{number}.png", width=16, height=48, source=source)


class Log:
    """Lines of a file that another process reads even after this one was killed."""

    def __init__(self, file: Path) -> None:
        self._file, self._turn = file.open("a", encoding="ascii", buffering=1), threading.Lock()

    def __call__(self, *words: str) -> None:
        with self._turn:
            self._file.write(" ".join(words) + "\n")


def add_pictures(state: State, retriever: Retriever, log: Log, rng: random.Random, numbers: int) -> None:
    """Adds a few, some of them known already, and embeds them."""
    images = [picture(rng.randrange(numbers)) for _ in range(rng.randint(1, 6))]
    state.gallery.add(images)
    for image in images:
        log("picture", image.id)
    retriever.embed_new()


def forget_pictures(state: State, retriever: Retriever, log: Log, rng: random.Random) -> None:
    """Adds a few that nobody else adds or marks, and forgets them."""
    numbers = [rng.randrange(10**6, 10**9) for _ in range(rng.randint(1, 3))]
    images = {number: picture(number, PASSING) for number in numbers}
    state.gallery.add(list(images.values()))
    retriever.embed_new()
    for number, image in images.items():
        log("forgetting", image.id, str(number))
    state.deletion.forget([image.id for image in images.values()])
    for image in images.values():
        log("forgotten", image.id)


def search_and_mark(state: State, retriever: Retriever, log: Log, rng: random.Random, user: str) -> None:
    """Searches, looks at what came, marks one of it."""
    # With a number, so that a later mark never takes the place of one that was logged.
    caption = f"a person in {rng.choice(WORDS)} and {rng.choice(WORDS)} {rng.getrandbits(64)}"
    serving = retriever.serving
    row = serving.encoder.encode_texts([caption])[0]
    filters = Filters(source=STAYING) if rng.random() < 0.5 else None
    with state.deletion.guard_searches() as recorded:
        found = state.gallery.search(serving.version, row, 24, filters=filters)
        ids = [candidate.image_id for candidate in found]
        assert len(ids) == len(set(ids)) == 24, ids
        search = Search(user=user, caption=caption, version=serving.version, backbone="mini")
        query = state.marks.record_search(search, [Shown(c.image_id, c.rank, c.score) for c in found])
        recorded(query, ids)
    staying = [image.id for image in state.gallery.rows(ids) if image.source in STAYING]
    image_id, verdict = rng.choice(staying), rng.choice(("hit", "miss"))
    log("asked", query, image_id)
    state.marks.mark(user, query, image_id, verdict)
    log("mark", query, image_id, verdict)


def lines(folder: Path) -> list[list[str]]:
    """All that was logged so far; the last line of a killed process may be half written."""
    return [line.split() for file in sorted(folder.glob("*.log")) for line in file.read_text().split("\n")[:-1] if line]


def faults(state: State, retriever: Retriever, backbone: Backbone, log: list[list[str]]) -> list[str]:
    """What is not as it must be: everything logged is there, everything once, and `check` is clean."""
    found = [f"{f.about}: {f.fault}" for f in check_state(state, backbone).findings]
    ids = state.gallery.ids()
    found += [f"picture {image_id} is there {count} times" for image_id, count in Counter(ids).items() if count > 1]
    found += [f"picture {line[1]} is lost" for line in log if line[0] == "picture" and line[1] not in set(ids)]
    forgotten = {line[1] for line in log if line[0] == "forgotten"}
    found += [f"picture {image_id} is not forgotten" for image_id in sorted(forgotten & set(ids))]
    begun = {line[1]: picture(int(line[2]), PASSING).data for line in log if line[0] == "forgetting"}
    kept = state.gallery.datas(ids[-20:])
    there = on_disk(state.settings.data_dir, begun | kept)
    found += [f"the forgotten picture {image_id} is on the disk" for image_id in sorted(there - set(ids))]
    found += [f"picture {image_id} is not found on the disk" for image_id in sorted(kept.keys() - there)]
    if state.deletion.pending():
        found.append("forgetting did not end")
    for line in log:
        if line[0] == "mark" and state.marks.verdicts(line[1]).get(line[2]) != line[3]:
            found.append(f"mark {line[1:]} is lost")
    asked = sum(line[0] == "asked" for line in log)
    marked = sum(line[0] == "mark" for line in log)
    events = state.marks.stats().last_event
    if not marked <= events <= asked:
        found.append(f"{events} events of marks; {marked} were logged as done and {asked} begun")
    serving = retriever.serving
    shown = state.gallery.count() - sum(state.gallery.count(source=name) for name in state.gallery.hidden_sources)
    answers = state.gallery.search(serving.version, serving.encoder.encode_texts(["a man in red"])[0], len(ids) + 9)
    if len({candidate.image_id for candidate in answers}) != len(answers) or len(answers) != shown:
        found.append(f"a search answers {len(answers)} of {shown} pictures")
    return found


def on_disk(folder: Path, pictures: dict[str, bytes]) -> set[str]:
    """Those of these pictures, files by id, that lie in the folder: by their bytes in the gallery's files, where ids
    are packed, by their ids in all others."""
    found = set[str]()
    for path in folder.rglob("*"):
        data = path.read_bytes() if path.is_file() else b""
        packed = "gallery" in path.relative_to(folder).parts
        found |= {one for one, file in pictures.items() if (file[100:200] if packed else one.encode()) in data}
    return found


def several(work: list[Callable[[], None]], stop: Callable[[], bool]) -> list[BaseException]:
    """Does each in a thread of its own again and again until `stop`; the faults."""
    raised: list[BaseException] = []

    def repeat(one: Callable[[], None]) -> None:
        try:
            while not stop() and not raised:
                one()
        except BaseException as fault:  # noqa: BLE001 - handed to the caller
            raised.append(fault)

    threads = [threading.Thread(target=repeat, args=(one,)) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised

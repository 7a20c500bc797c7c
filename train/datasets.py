"""Data sets of captioned person pictures in the field's layouts on disk. Knows no model.

CUHK-PEDES (Li et al., CVPR 2017), ICFG-PEDES (Ding et al., arXiv 2107.12666) and RSTPReid (Zhu et al., ACM MM 2021)
keep their pictures in `imgs/` and list them in one JSON file. Errors in one are reported all at once.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from train.picture_paths import PicturePaths, places

SplitName = Literal["train", "val", "test"]
SPLITS: tuple[SplitName, ...] = get_args(SplitName)
Pictures = tuple[Path, ...] | NDArray[np.uint8]

HELD_OUT = 0.1
"""Share of the train people that stands in for a val split where the data set has none."""
_SHOWN = 10


class DataSetError(ValueError):
    """A data set that is not there or not as its layout says."""


@dataclass(frozen=True, slots=True)
class Counts:
    """How much a split holds; None where sources disagree."""

    people: int
    pictures: int
    captions: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Pictures (N) as files, or as uint8 pixels (N, H, W, 3), with the person of each; captions (Q), each of one
    picture: `of` int64 (Q,) is its number."""

    pictures: Pictures
    pids: NDArray[np.int64]
    captions: tuple[str, ...]
    of: NDArray[np.int64]

    @property
    def caption_pids(self) -> NDArray[np.int64]:
        """The person of each caption, (Q,)."""
        return self.pids[self.of]

    @property
    def counts(self) -> Counts:
        return Counts(len(set(self.pids.tolist())), len(self.pids), len(self.captions))


@dataclass(frozen=True, slots=True)
class DataSet:
    """The splits of a data set, and notes for its reader."""

    name: str
    splits: Mapping[SplitName, Split]
    notes: tuple[str, ...] = ()

    def __getitem__(self, split: SplitName) -> Split:
        return self.splits[split]

    def fingerprint(self) -> str:
        """SHA-256 of captions, people and the pictures' places below their common folder, or their pixels."""
        files = [p for split in self.splits.values() if isinstance(split.pictures, tuple) for p in split.pictures]
        folder = os.path.commonpath([file.parent for file in files]) if files else ""
        digest = hashlib.sha256()
        for name, split in sorted(self.splits.items()):
            facts: list[Any] = [name, split.captions, split.of.tolist(), split.pids.tolist()]
            if isinstance(split.pictures, tuple):
                facts.append([file.relative_to(folder).as_posix() for file in split.pictures])
            else:
                facts.append(split.pictures.shape)
                digest.update(np.ascontiguousarray(split.pictures).data)
            digest.update(json.dumps(facts).encode())
        return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class _Layout:
    """`lists` are the names the JSON file goes by, `path` its key of a picture's place below `imgs/`; `numbered_again`:
    the same number in two splits may be two people."""

    title: str
    lists: tuple[str, ...]
    path: str
    published: Mapping[SplitName, Counts]
    val: bool = True
    numbered_again: bool = False


LAYOUTS = {
    # Of the train captions some papers count 68,126 and some 68,108.
    "cuhk-pedes": _Layout(
        "CUHK-PEDES", ("reid_raw.json",), "file_path",
        {"train": Counts(11003, 34054), "val": Counts(1000, 3078, 6158), "test": Counts(1000, 3074, 6156)},
    ),
    "icfg-pedes": _Layout(
        "ICFG-PEDES", ("ICFG_PEDES.json", "ICFG-PEDES.json"), "file_path",
        {"train": Counts(3102, 34674, 34674), "test": Counts(1000, 19848, 19848)},
        val=False, numbered_again=True,
    ),
    "rstpreid": _Layout(
        "RSTPReid", ("data_captions.json",), "img_path",
        {"train": Counts(3701, 18505), "val": Counts(200, 1000, 2000), "test": Counts(200, 1000, 2000)},
    ),
}  # fmt: skip
_NO_SPLITS = ". caption_all.json says no splits: the download of CUHK-PEDES has reid_raw.json, too"
_OLD_RSTPREID = (3901, 100, 100)

_Row = tuple[SplitName, str, tuple[str, ...], int]
"""Split, picture's place below `imgs/`, captions, person."""


def read_data_set(name: str, root: Path, *, published: bool = False) -> DataSet:
    """Read the data set `name` of `LAYOUTS` from its folder, or from the folder that holds it under its usual name.

    Sets of any size are taken, such as an export of one's own feedback; where the counts are not the published ones
    a note says so, and with `published` they must agree. ICFG-PEDES has no val split: a tenth of its train people,
    always the same, becomes one. Raises DataSetError.
    """
    layout = LAYOUTS[name]
    listed = _find_list(root, layout)
    folder = listed.parent / "imgs"
    rows, missing = _placed(folder, _read_rows(listed, layout))
    renumbered = _check_people(rows, layout, listed)
    if missing:
        raise DataSetError(
            f"{len(missing):,} of {len(rows):,} pictures are missing below {folder}: {_some(missing)}. "
            "Unpack the data set's pictures there again"
        )
    splits = {split: _split(folder, [row for row in rows if row[0] == split]) for split in SPLITS}
    notes = _differences(splits, layout)
    if published and notes:
        raise DataSetError(
            f"{listed.parent} is not the published {layout.title}: {'; '.join(notes)}. Fetch it again, or leave out "
            "--expect-published"
        )
    if notes:
        notes = [f"this is not the published {layout.title}: {'; '.join(notes)}"]
    notes += renumbered
    if not layout.val and not splits["val"].captions:
        splits["train"], splits["val"] = _hold_out(folder, [row for row in rows if row[0] == "train"])
        people = splits["val"].counts.people
        notes.append(f"{layout.title} has no val split: {people:,} people of train are held out for it")
    return DataSet(name, splits, tuple(notes))


def check_layout(name: str, root: Path) -> None:
    """Raise DataSetError unless `root` is laid out as the data set `name`. Reads nothing."""
    _find_list(root, LAYOUTS[name])


def layout_of(root: Path) -> str:
    """Return the name in `LAYOUTS` of the data set in a folder, or in the one below it of the usual name.

    Raises DataSetError where it is none of them, or more than one.
    """
    if not root.is_dir():
        raise DataSetError(f"no folder {root}: expected that of a data set")
    found = [
        name
        for name, layout in LAYOUTS.items()
        if any((folder / listed).is_file() for folder in (root, root / layout.title) for listed in layout.lists)
    ]
    if len(found) == 1:
        return found[0]
    lists = ", ".join(listed for layout in LAYOUTS.values() for listed in layout.lists)
    there = " and ".join(found) if found else "no data set"
    raise DataSetError(f"{root} holds {there}: expected the folder of one, with one of {lists}")


def _find_list(root: Path, layout: _Layout) -> Path:
    """Return the data set's JSON file."""
    for folder in (root, root / layout.title):
        for name in layout.lists:
            if (folder / name).is_file():
                if not (folder / "imgs").is_dir():
                    raise DataSetError(f"{folder} holds {name} but no folder imgs: expected the pictures there")
                return folder / name
    if not root.is_dir():
        raise DataSetError(f"no folder {root}: expected that of {layout.title}, with imgs and {layout.lists[0]}")
    inside = sorted(path.name for path in root.iterdir())
    found = ", ".join(inside[:_SHOWN]) + (", ..." if len(inside) > _SHOWN else "") if inside else "nothing"
    raise DataSetError(
        f"{root} is not laid out as {layout.title}: expected imgs and {' or '.join(layout.lists)} in it, or in "
        f"{layout.title} below it; it holds {found}{_NO_SPLITS if 'caption_all.json' in inside else ''}"
    )


def _read_rows(listed: Path, layout: _Layout) -> list[_Row]:
    try:
        data = json.loads(listed.read_bytes())  # UTF-8 or UTF-16, with or without a byte order mark
    except (OSError, ValueError) as error:
        raise DataSetError(f"{listed} could not be read as JSON ({error}): fetch it again") from error
    if not isinstance(data, list) or not data:
        raise DataSetError(f"{listed} should be a list of pictures with their captions, got {str(data)[:60]!r}")
    rows: list[_Row] = []
    faults: list[str] = []
    for number, item in enumerate(data, start=1):
        fault = _fault(item, layout)
        if fault:
            faults.append(f"row {number}: {fault}")
        else:
            rows.append((item["split"], item[layout.path], tuple(item["captions"]), item["id"]))
    if faults:
        raise DataSetError(f"{listed}: {len(faults):,} of {len(data):,} rows are broken: {_some(faults)}")
    return rows


def _fault(item: Any, layout: _Layout) -> str:
    """Return what is wrong with a row; empty if nothing is."""
    if not isinstance(item, dict):
        return f"expected an object, got {type(item).__name__}"
    missing = {"split", "captions", layout.path, "id"} - set(item)
    if missing:
        return f"it lacks {', '.join(sorted(missing))}"
    if item["split"] not in SPLITS:
        return f"split is train, val or test, not {item['split']!r}"
    path, captions, pid = item[layout.path], item["captions"], item["id"]
    if not isinstance(path, str) or not places(path, "imgs"):
        return f"{layout.path} should be a place below imgs, not {path!r}"
    if not isinstance(pid, int) or isinstance(pid, bool):
        return f"id should be a whole number, not {pid!r}"
    if not isinstance(captions, list) or not captions:
        return "captions should be a list of at least one text"
    if not all(isinstance(caption, str) and caption.strip() for caption in captions):
        return "a caption is empty or no text"
    return ""


def _check_people(rows: Sequence[_Row], layout: _Layout, listed: Path) -> list[str]:
    """Check that there is every split, and nobody and no picture in two of them.

    Returns a note if numbers may begin again in each split, and do.
    """
    people: dict[SplitName, set[int]] = {split: {row[3] for row in rows if row[0] == split} for split in SPLITS}
    wanted = [split for split in SPLITS if not people[split] and (split != "val" or layout.val)]
    if wanted:
        raise DataSetError(f"{listed} has no picture of split {' and '.join(wanted)}: expected some in each")
    if layout.title == "RSTPReid" and tuple(len(people[split]) for split in SPLITS) == _OLD_RSTPREID:
        raise DataSetError(
            f"{listed} has the old, wrong split of RSTPReid: 3,901, 100 and 100 people for train, val and test. The "
            "right one is 3,701, 200 and 200: fetch the current data_captions.json from the authors' page"
        )
    shared = [pid for pid, count in Counter(p for ids in people.values() for p in ids).items() if count > 1]
    if shared and not layout.numbered_again:
        people_of = [f"{pid} ({', '.join(s for s in SPLITS if pid in people[s])})" for pid in sorted(shared)]
        raise DataSetError(f"{listed}: {len(shared):,} people are in more than one split: {_some(people_of)}")
    shows = {(path, split, pid) for split, path, _, pid in rows}
    twice = [path for path, count in Counter(path for path, _, _ in shows).items() if count > 1]
    if twice:
        raise DataSetError(f"{listed}: {len(twice):,} pictures show more than one person: {_some(sorted(twice))}")
    return [f"{len(shared):,} numbers of people are in more than one split: taken for other people"] if shared else []


def _placed(folder: Path, rows: Sequence[_Row]) -> tuple[list[_Row], list[str]]:
    """Return the rows with their pictures' places as the disk spells them, and the paths of which there is no file."""
    # One listing of each folder asks a network disk for far less than one question for each picture.
    there = {str(Path(where, name)) for where, _, names in os.walk(folder, followlinks=True) for name in names}
    paths, placed, missing = PicturePaths(folder, there), list[_Row](), list[str]()
    for split, path, captions, pid in rows:
        found = paths.find(path)
        if found is None:
            missing.append(path)
        placed.append((split, path if found is None else found.relative_to(folder).as_posix(), captions, pid))
    return placed, missing


def _some(things: Iterable[str]) -> str:
    texts = list(things)
    return "; ".join(texts[:_SHOWN]) + (f"; and {len(texts) - _SHOWN:,} more" if len(texts) > _SHOWN else "")


def _split(folder: Path, rows: Sequence[_Row]) -> Split:
    captions = tuple(caption for row in rows for caption in row[2])
    of = np.repeat(np.arange(len(rows)), [len(row[2]) for row in rows])
    pids = np.array([row[3] for row in rows], np.int64)
    return Split(tuple(folder / row[1] for row in rows), pids, captions, of)


def _hold_out(folder: Path, rows: Sequence[_Row]) -> tuple[Split, Split]:
    """Train without a tenth of its people, and these: whose number's hash is smallest, whatever the order of rows."""
    people = sorted({row[3] for row in rows}, key=lambda pid: hashlib.sha256(str(pid).encode()).digest())
    if len(people) < 2:
        raise DataSetError("expected at least two people in train: one of them is held out for val")
    held = set(people[: max(1, round(HELD_OUT * len(people)))])
    return _split(folder, [r for r in rows if r[3] not in held]), _split(folder, [r for r in rows if r[3] in held])


def _differences(splits: Mapping[SplitName, Split], layout: _Layout) -> list[str]:
    """Return where the counts are not those published."""
    found_otherwise = []
    for name, expected in layout.published.items():
        found = splits[name].counts
        for what in ("people", "pictures", "captions"):
            wanted, got = getattr(expected, what), getattr(found, what)
            if wanted is not None and wanted != got:
                found_otherwise.append(f"{name} has {got:,} {what}, expected {wanted:,}")
    return found_otherwise

"""Writers of the export formats: each writes a snapshot with its pictures into an empty folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from store.export.person_splits import SPLITS, Split, persons, positives
from store.export.snapshot import COLUMNS, Snapshot, file_name
from store.records import ExportFormat, Mark, caption_key
from store.store_errors import ExportError

GROUP_ROWS = 256
_GROUP_BYTES = 32 * 2**20
SHARD_BYTES = 256 * 2**20
"""A Parquet file is closed when its pictures reach this many bytes."""
# Pictures are compressed already: for them dictionaries and zstd only cost memory and time.
_ENCODING: dict[str, Any] = {
    "compression": {name: "zstd" for name, _, _ in COLUMNS} | {"image.bytes": "none", "image.path": "zstd"},
    "use_dictionary": [name for name, kind, _ in COLUMNS if kind == pa.string()],
}
MARKS_FILE = "marks.jsonl"
# What the field calls it; its loaders take `val` for whatever is neither train nor test.
_CUHK_SPLIT: dict[Split, str] = {"train": "train", "validation": "val", "test": "test"}

Written = list[Mark]
Files = Callable[[Sequence[str]], Iterator[tuple[str, bytes]]]
"""Gives (picture id, file as loaders should find it) for ids, in order."""


def export_schema() -> pa.Schema:
    """Return the Parquet schema, with the features Hugging Face's `datasets` reads from it: `image` decodes to a
    picture.
    """
    kinds = {pa.float64(): "float64", pa.float32(): "float32"}
    features: dict[str, dict[str, str]] = {"image": {"_type": "Image"}}
    features |= {name: {"dtype": kinds.get(kind, str(kind)), "_type": "Value"} for name, kind, _ in COLUMNS}
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    info = json.dumps({"info": {"features": features}})
    return pa.schema([("image", image), *((name, kind) for name, kind, _ in COLUMNS)], metadata={"huggingface": info})


def write_parquet(snapshot: Snapshot, files: Files, folder: Path) -> Written:
    """`data/<split>-00000-of-00001.parquet`, pictures inside, rows of one picture together."""
    (folder / "data").mkdir()
    written: Written = []
    for split, by_picture in snapshot.by_picture().items():
        shards = _Shards(folder / "data", split)
        try:
            for image_id, data in files(list(by_picture)):
                image = {"bytes": data, "path": file_name(image_id, data)}
                for mark in by_picture[image_id]:
                    shards.add({"image": image, **snapshot.row(mark)}, len(data))
                    written.append(mark)
        finally:
            shards.close()
        shards.rename()
    return written


def join_parquet(folder: Path, target: Path) -> None:
    """Write all that a Parquet export in `folder` holds to the one file `target`, in the order of its splits."""
    with pq.ParquetWriter(target, export_schema(), **_ENCODING) as writer:
        for split in SPLITS:
            for shard in sorted((folder / "data").glob(f"{split}-*.parquet")):
                with pq.ParquetFile(shard) as file:
                    for group in range(file.num_row_groups):
                        writer.write_table(file.read_row_group(group))


class _Shards:
    """The Parquet files of one split; their number is known, and they get their names, at the end."""

    def __init__(self, folder: Path, split: str) -> None:
        self._folder, self._split = folder, split
        self._files: list[Path] = []
        self._writer: pq.ParquetWriter | None = None
        self._rows: list[dict[str, Any]] = []
        self._group_bytes = self._shard_bytes = 0

    def add(self, row: dict[str, Any], size: int) -> None:
        self._rows.append(row)
        self._group_bytes += size
        if len(self._rows) >= GROUP_ROWS or self._group_bytes >= _GROUP_BYTES:
            self._flush()
            if self._shard_bytes >= SHARD_BYTES:
                self.close()

    def close(self) -> None:
        self._flush()
        if self._writer is not None:
            self._writer.close()
        self._writer, self._shard_bytes = None, 0

    def rename(self) -> None:
        for number, file in enumerate(self._files):
            file.rename(self._folder / f"{self._split}-{number:05}-of-{len(self._files):05}.parquet")

    def _flush(self) -> None:
        if not self._rows:
            return
        if self._writer is None:
            self._files.append(self._folder / f"{self._split}-{len(self._files)}.part")
            self._writer = pq.ParquetWriter(self._files[-1], export_schema(), **_ENCODING)
        rows, self._rows = self._rows, []
        self._shard_bytes += self._group_bytes
        self._group_bytes = 0
        self._writer.write_table(pa.Table.from_pylist(rows, schema=export_schema()))


def write_imagefolder(snapshot: Snapshot, files: Files, folder: Path) -> Written:
    """`<split>/<image_id>.<kind>` and a `metadata.parquet` in each split, one row for each mark.

    Parquet, because it says its types: from JSON lines loaders guess those of each split, and a split in which nobody
    is known would not fit one with ids.
    """
    written: Written = []
    for split, by_picture in snapshot.by_picture().items():
        if not by_picture:
            continue
        (folder / split).mkdir()
        rows = list[dict[str, Any]]()
        for image_id, data in files(list(by_picture)):
            name = file_name(image_id, data)
            (folder / split / name).write_bytes(data)
            for mark in by_picture[image_id]:
                rows.append({"file_name": name, **snapshot.row(mark)})
                written.append(mark)
        schema = pa.schema([("file_name", pa.string()), *((name, kind) for name, kind, _ in COLUMNS)])
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), folder / split / "metadata.parquet")
    return written


def write_jsonl(snapshot: Snapshot, _: Files, folder: Path) -> Written:
    """`marks.jsonl`, one line for each mark, no pictures.

    A mark whose person is known comes first, if there is one: loaders take the type of a column from its first rows.
    """
    known = next((at for at, mark in enumerate(snapshot.marks) if snapshot.pids.get(mark.image_id) is not None), 0)
    marks = (*snapshot.marks[known : known + 1], *snapshot.marks[:known], *snapshot.marks[known + 1 :])
    with (folder / MARKS_FILE).open("w", encoding="utf-8") as lines:
        for mark in marks:
            lines.write(_line(snapshot.row(mark)))
    return list(snapshot.marks)


def write_cuhk_pedes(snapshot: Snapshot, files: Files, folder: Path) -> Written:
    """Write `imgs/` and `reid_raw.json` in the layout of CUHK-PEDES: pictures with hits, and the captions they fit.

    Identities count from 1, those of `train` first, as loaders of the field expect. Raises ExportError if the hits
    are of fewer than three unrelated people: every split needs one.
    """
    there = [mark for mark in snapshot.marks if mark.image_id in snapshot.pids]
    found = positives(there)
    split_of = {image_id: snapshot.splits[next(iter(keys))] for image_id, keys in found.items()}
    if set(split_of.values()) != set(SPLITS):
        raise ExportError(
            "Expected hits of at least three people, one for each of train, val and test; those marked so far are "
            f"{len(set(split_of.values()))} separate groups. Mark hits for descriptions of other people first."
        )
    person = persons(found, snapshot.pids)
    order = sorted(found, key=lambda image_id: (SPLITS.index(split_of[image_id]), person[image_id], image_id))
    numbers: dict[tuple[Split, str], int] = {}
    (folder / "imgs").mkdir()
    with (folder / "reid_raw.json").open("w", encoding="utf-8") as file:
        file.write("[")
        for index, (image_id, data) in enumerate(files(order)):
            number = numbers.setdefault((split_of[image_id], person[image_id]), len(numbers) + 1)
            name = f"{number:06}/{file_name(image_id, data)}"
            (folder / "imgs" / name).parent.mkdir(exist_ok=True)
            (folder / "imgs" / name).write_bytes(data)
            captions = list(found[image_id].values())
            row = {
                "split": _CUHK_SPLIT[split_of[image_id]],
                "captions": captions,
                "file_path": name,
                "processed_tokens": [caption_key(caption).split() for caption in captions],
                "id": number,
            }
            file.write(
                ("," if index else "") + "\n" + json.dumps(row)
            )  # ASCII: loaders open it in the system's encoding
        file.write("\n]\n")
    return [
        mark
        for mark in there
        if mark.verdict == "hit"
        and not mark.image_query
        and not mark.negative
        and caption_key(mark.caption) in found.get(mark.image_id, {})
    ]


WRITERS: dict[ExportFormat, Callable[[Snapshot, Files, Path], Written]] = {
    "parquet": write_parquet,
    "cuhk-pedes": write_cuhk_pedes,
    "imagefolder": write_imagefolder,
    "jsonl": write_jsonl,
}


def _line(row: dict[str, Any]) -> str:
    plain = {**row, "marked_at": row["marked_at"].isoformat(timespec="microseconds")}
    return json.dumps(plain, ensure_ascii=False) + "\n"


def splits_of(folder: Path) -> Iterator[tuple[str, str]]:
    """(split, pattern of its files) of a written export that `datasets` can open."""
    for split in SPLITS:
        for pattern in (f"data/{split}-*.parquet", f"{split}/**"):
            if any(folder.glob(pattern)):
                yield split, pattern
    if (folder / MARKS_FILE).exists():
        yield "train", MARKS_FILE

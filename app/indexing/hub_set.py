"""A data set of the Hugging Face Hub, or a folder laid out like one, as a source of pictures: `hub:user/name:split`.

It is streamed: rows are read as they are indexed, and nothing is kept but the gallery. A file that a row names must be
the data set's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from app.app_errors import IndexingError
from app.indexing.entries import Entry, Listing, too_many_bytes
from app.indexing.facts import FactsReader
from core.core_errors import PictureError

PREFIX = "hub:"
WANTED = ("image", "caption", "pid", "camera", "captured_at")
"""What `--columns` gives a column for; all other columns are metadata under their own names."""
_USUAL = {
    "caption": ("caption", "captions", "text"),
    "pid": ("pid", "person_id", "identity"),
    "camera": ("camera", "camera_id", "cam_id", "camid"),
    "captured_at": ("captured_at", "timestamp"),
}
_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")


@dataclass(frozen=True, slots=True)
class HubSet:
    """The parts of `hub:NAME[:SPLIT]`; `name` is user/name, or a folder of this machine."""

    name: str
    split: str | None

    @classmethod
    def parse(cls, place: str) -> HubSet:
        """Raises IndexingError for another form."""
        name, _, split = place.removeprefix(PREFIX).partition(":")
        named = _NAME.fullmatch(name) or (name and Path(name).is_dir())
        if not named or (split and not re.fullmatch(r"\w+(\.\w+)*", split)):
            raise IndexingError(f"{place!r} names no data set: expected hub:user/name or hub:user/name:split")
        return cls(name, split or None)


def parse_columns(text: str) -> dict[str, str]:
    """Columns by what they are, from `pid=person,camera=cam`. Raises IndexingError."""
    found = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        wanted, equals, column = (piece.strip() for piece in part.partition("="))
        if wanted not in WANTED or not equals or not column:
            raise IndexingError(
                f"--columns is like pid=person_id,camera=cam, with {', '.join(WANTED)} before the =, not {part!r}"
            )
        found[wanted] = column
    return found


class HubSource:
    """The rows of one split that have a picture. Raises IndexingError without `datasets`, for a set or split that is
    not there, for one without an image column and for columns that it lacks."""

    def __init__(self, place: str, columns: Mapping[str, str] | None = None) -> None:
        self._set, given = HubSet.parse(place), dict(columns or {})
        datasets = _datasets()
        self._data, self._split = _opened(datasets, self._set)
        features = self._data.features or {}
        self._images = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
        missing = [column for column in given.values() if column not in features]
        said = ", ".join(map(repr, features))[:1_000] or "none"
        if missing:
            raise IndexingError(f"{self._set.name} has no column {missing[0]!r} (--columns); its columns are {said}")
        image = given.pop("image", None) or (self._images[0] if self._images else None)
        if image not in self._images:
            raise IndexingError(
                f"{self._set.name} has no column of pictures"
                f"{'' if image is None else f' called {image!r}'}: its columns are {said}. Choose a data set with an "
                "Image column, or index its files as a folder or a table"
            )
        self._image = image
        usual = {w: next((name for name in names if name in features), None) for w, names in _USUAL.items()}
        self._named = {column: wanted for wanted, column in (usual | given).items() if column is not None}
        self._labels = {name: f.names for name, f in features.items() if isinstance(f, datasets.ClassLabel)}
        for name in self._images:
            self._data = self._data.cast_column(name, datasets.Image(decode=False))

    @property
    def name(self) -> str:
        return f"{Path(self._set.name).name} {self._split}"

    def count(self) -> int:
        """As the data set's card says; 0 where it says nothing."""
        splits = self._data.info.splits or {}
        return int(getattr(splits.get(self._split), "num_examples", 0) or 0)

    def entries(self, listing: Listing) -> Iterator[Entry]:
        reader = FactsReader(listing)
        for number, row in enumerate(self._data, start=1):
            name = f"{self._split}/{number}"
            try:
                picture = row.pop(self._image)
                facts = reader.facts(self._facts(reader, row))
                if not isinstance(picture, dict):
                    raise PictureError("has no picture")
                data, path = picture.get("bytes"), picture.get("path")
                if data is None and not path:
                    raise PictureError("has no picture")
                size = 0 if data is None else len(data)
                yield Entry(name, size, partial(self._read, data, path), facts)
            except PictureError as error:
                listing.skip(name, str(error))

    def _facts(self, reader: FactsReader, row: Mapping[str, Any]) -> dict[str, Any]:
        """The row without pictures, labels as words, its columns as they are called here."""
        plain = {name: value for name, value in row.items() if name not in self._images}
        for name, words in self._labels.items():
            number = plain.get(name)
            if isinstance(number, int) and 0 <= number < len(words):
                plain[name] = words[number]
        named = {self._named[name]: value for name, value in plain.items() if name in self._named}
        rest = {name: value for name, value in plain.items() if name not in self._named and name not in named}
        return reader.row(named | rest)

    def _read(self, data: bytes | None, path: str | None, most: int) -> bytes:
        if data is None:
            assert path is not None
            data = self._file(path, most)
        if len(data) > most:
            raise PictureError(too_many_bytes(len(data), most))
        return data

    def _file(self, path: str, most: int) -> bytes:
        """A file of the data set, read no further than one byte beyond `most`."""
        import fsspec

        here = Path(self._set.name)
        if here.is_dir():
            inside = Path(path).resolve().is_relative_to(here.resolve())
        else:
            inside = bool(re.match(rf"hf://datasets/{re.escape(self._set.name)}[@/]", path)) and ".." not in path
        if not inside:
            raise PictureError("names a file that is not the data set's own")
        with fsspec.open(path, "rb") as file:
            return bytes(file.read(most + 1))


def _datasets() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise IndexingError("data sets of the Hub need the package datasets: pip install 'datasets>=4,<6'") from error
    return datasets


def _opened(datasets: Any, wanted: HubSet) -> tuple[Any, str]:
    """The streamed split and its name; without a name the only one, or train."""
    try:
        found = datasets.load_dataset(wanted.name, streaming=True)
        split = wanted.split or ("train" if "train" in found or len(found) != 1 else next(iter(found)))
        if split not in found:
            raise IndexingError(
                f"{wanted.name} has no split {split!r}: write hub:{wanted.name}:SPLIT with one of {', '.join(found)}"
            )
        data = found[split]
        return (data if data.features is not None else data._resolve_features()), split
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        first = str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
        raise IndexingError(
            f"the data set {wanted.name} cannot be opened ({first}): check its name, and for a private one "
            "`hf auth login`"
        ) from error

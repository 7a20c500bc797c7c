"""The field's annotation files: CUHK-PEDES (`reid_raw.json`), ICFG-PEDES (`ICFG_PEDES.json`), RSTPReid
(`data_captions.json`). Each is a list of objects with `id`, `captions`, `split` and the picture's path below `imgs/`:
`file_path` in the first two, `img_path` in the last.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from app.app_errors import IndexingError
from app.indexing.entries import Entry, Listing, Row, listed_entries
from app.indexing.facts import FactsReader
from core.core_errors import PictureError
from store.values import list_values, text_encoding
from train.picture_paths import PicturePaths

_PATHS = ("file_path", "img_path")
_KEPT = ("split", "captions")  # as metadata; CUHK-PEDES's processed_tokens only repeat the captions


class AnnotationSource:
    """The pictures that an annotation file names, below `root` (default: `imgs/` beside the file, if there is one)."""

    def __init__(self, file: Path, root: Path | None = None) -> None:
        if not file.is_file():
            raise IndexingError(f"{file} does not exist: expected an annotation file like reid_raw.json")
        self._file = file
        beside = file.parent / "imgs"
        self._root = root or (beside if beside.is_dir() else file.parent)

    @property
    def name(self) -> str:
        return self._file.resolve().parent.name

    def count(self) -> int:
        """Reads the file to its end, so that one that breaks off in the middle adds nothing."""
        return sum(1 for _ in listed(self._file))

    def entries(self, listing: Listing) -> Iterator[Entry]:
        paths = PicturePaths(self._root)
        return (entry for row in self.rows(listing) for entry in listed_entries(paths, row, listing))

    def rows(self, listing: Listing) -> Iterator[Row]:
        """The rows that name a picture, whether it is there or not."""
        reader = FactsReader(listing)
        for number, row in enumerate(listed(self._file), start=1):
            path = next((row[name] for name in _PATHS if name in row), None) if isinstance(row, dict) else None
            try:
                if not isinstance(path, str) or not path:
                    raise PictureError(f"names no picture: expected an object with {' or '.join(_PATHS)}")
                if "id" not in row:
                    raise PictureError("says no person: expected a whole number as its id")
                facts = reader.facts({"pid": row["id"]} | {name: row[name] for name in _KEPT if row.get(name)})
                yield Row(number, path, facts)
            except PictureError as error:
                listing.skip(f"row {number}: {path}" if isinstance(path, str) else f"row {number}", str(error))


def listed(file: Path) -> Iterator[Any]:
    """The values of a JSON list, read piece by piece. Raises IndexingError where the file is none."""
    try:
        with file.open(encoding=text_encoding(file)) as text:
            yield from list_values(text)
    except OSError as error:
        raise IndexingError(f"{file.name} cannot be read ({error.strerror}): check that it may be read") from error
    except UnicodeDecodeError as error:
        raise IndexingError(f"{file.name} is neither UTF-8 nor UTF-16: save it as UTF-8 and try again") from error
    except RecursionError as error:
        raise IndexingError(f"{file.name} is nested too deeply: expected a list of objects") from error
    except ValueError as error:
        raise IndexingError(f"{file.name} {error}; expected a list like reid_raw.json of CUHK-PEDES") from error

"""What the search page asks: one JSON object, the page's address that repeats it, and the request it becomes.

    {"text", "without", "like": id of a gallery picture or "", "picture": an uploaded file or null,
     "image_weight", "filters": {"camera", "source", "pid": [...], "captured_from", "captured_to",
     "metadata": {key: [...]}}}

An address holds all of it but an uploaded picture, which stays with the user who uploaded it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from app.pages.component import JSON
from app.search.views import SearchRequest
from app.web.api import filters_from
from app.web.uploads import picture_from
from store import Filters

LISTS = ("camera", "source", "pid")
TIMES = {"from": "captured_from", "to": "captured_to"}
META = "meta."
NAMES = ("q", "without", "like", "weight", *LISTS, *TIMES)
"""Names in an address; those that begin with `META` are values of metadata."""
HALF = 0.5


def nothing() -> JSON:
    """Nothing asked yet."""
    return {"text": "", "without": "", "like": "", "picture": None, "image_weight": HALF, "filters": {}}


def asked_of(value: Any) -> JSON:
    """What a script sent, with a default for what it left out; of which types the values are is not looked at yet."""
    given = value if isinstance(value, dict) else {}
    return {name: given.get(name, default) for name, default in nothing().items()}


def is_empty(asked: Mapping[str, Any]) -> bool:
    """Whether there is neither a description nor a picture."""
    text = asked["text"]
    return not asked["picture"] and not asked["like"] and isinstance(text, str) and not text.strip()


def request_of(asked: Mapping[str, Any], uploads: Path, k: int) -> SearchRequest:
    """The search that is asked for. Raises RequestError, GalleryError or PictureError on bad values."""
    return SearchRequest(
        text=asked["text"],
        image=picture_from(asked["picture"], uploads),
        negative=asked["without"],
        k=k,
        filters=chosen_filters(asked["filters"]),
        like=asked["like"],
        image_weight=asked["image_weight"],
    )


def chosen_filters(filters: Any) -> Filters:
    """The filters that the tools collected. Raises RequestError or GalleryError on wrong values."""
    if isinstance(filters, dict):
        filters = {name: value for name, value in filters.items() if value not in ("", [], {}, None)}
    return filters_from(filters)


def to_address(asked: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The names and values of the address that repeats a search which was answered."""
    pairs = [("q", asked["text"]), ("without", asked["without"]), ("like", asked["like"])]
    if asked["text"] and asked["like"] and asked["image_weight"] != HALF:
        pairs.append(("weight", f"{asked['image_weight']:g}"))
    filters = asked["filters"]
    pairs += [(name, value) for name in LISTS for value in filters.get(name) or ()]
    pairs += [(name, filters.get(field) or "") for name, field in TIMES.items()]
    pairs += [(META + key, value) for key, values in (filters.get("metadata") or {}).items() for value in values]
    return [(name, value) for name, value in pairs if value]


def from_address(pairs: Iterable[tuple[str, str]]) -> JSON:
    """What an address asks for; names that nobody knows are other parts of the page's."""
    asked, lists, metadata = nothing(), dict[str, list[str]](), dict[str, list[str]]()
    for name, value in pairs:
        if name == "q":
            asked["text"] = value
        elif name in ("without", "like"):
            asked[name] = value
        elif name == "weight":
            asked["image_weight"] = _number(value)
        elif name in LISTS:
            lists.setdefault(name, []).append(value)
        elif name in TIMES:
            asked["filters"][TIMES[name]] = value
        elif name.startswith(META):
            metadata.setdefault(name.removeprefix(META), []).append(value)
    asked["filters"] |= lists | ({"metadata": metadata} if metadata else {})
    return asked


def _number(text: str) -> float | str:
    """The number, or the text that is none: the request refuses it in words."""
    try:
        return float(text)
    except ValueError:
        return text

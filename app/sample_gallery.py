"""The sample gallery: people who do not exist, drawn at the first start so that there is something to search.

Imported by the drawing processes too: what is heavy is imported where it is used.
"""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Final

from app.progress import Report, silent, staged
from train import pedestrians

if TYPE_CHECKING:
    from app.search.retriever import Retriever
    from app.state import State

SHOTS: Final = 4
"""Pictures of each person: from different sides, by different cameras."""
_AT_ONCE = 100
_PROCESSES = 2


def wanted(state: State) -> bool:
    """Return whether to draw the sample: it was never finished, and nobody added pictures of their own."""
    gallery, settings = state.gallery, state.settings
    return (
        settings.sample_size > 0
        and not (settings.data_dir / "sample.json").exists()
        and "sample" not in gallery.hidden_sources
        and gallery.count() == gallery.count(source="sample")
    )


def draw_sample(state: State, *, report: Report = silent) -> int:
    """Draw the sample and add it to the gallery, not embedded yet; returns how many pictures are new.

    The same pictures are drawn every time, so an interrupted or repeated run adds only what is missing.
    """
    from store import NewImage

    settings = state.settings
    people = -(-settings.sample_size // SHOTS)
    which = pedestrians.takes("street", "users", people, SHOTS)[: settings.sample_size]
    added, batch = 0, list[NewImage]()
    for number, (take, data) in enumerate(
        zip(which, pedestrians.parallel(drawn, which, workers=_PROCESSES), strict=True), 1
    ):
        batch.append(
            NewImage(
                data=data,
                uri=f"sample/{take.pid:04d}-{take.number}.jpg",
                width=128,
                height=384,
                source="sample",
                pid=f"sample-{take.pid:04d}",
                camera=f"camera {take.shot().camera + 1}",
                metadata={"domain": take.domain, "generator": pedestrians.VERSION, "view": take.shot().view},
            )
        )
        if len(batch) == _AT_ONCE or number == len(which):
            added += len(state.gallery.add(batch))
            batch = []
        report("Drawing the sample gallery", number, len(which))
    note = {"generator": pedestrians.VERSION, "pictures": len(which)}
    (settings.data_dir / "sample.json").write_text(json.dumps(note) + "\n", encoding="utf-8")
    return added


def show_sample(state: State, retriever: Retriever, *, report: Report = silent) -> int:
    """Bring the sample gallery back, drawn and embedded; returns how many pictures it has."""
    draw_sample(state, report=report)
    retriever.embed_new(progress=staged(report, "Embedding pictures"))
    state.gallery.show_source("sample")
    return state.gallery.count(source="sample")


def drawn(take: pedestrians.Take) -> bytes:
    """Return one picture as the bytes of a JPEG file."""
    file = io.BytesIO()
    take.picture().save(file, "JPEG", quality=92)
    return file.getvalue()

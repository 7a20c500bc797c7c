"""Adding pictures on the search page: what its dialog can ask of the server."""

from __future__ import annotations

from typing import Any

from app.app_errors import NotAllowedError, RequestError
from app.indexing.upload_job import Adding, Upload
from app.pages.component import JSON, Action, sentence
from app.pages.page_data import facets
from app.sample_gallery import show_sample
from app.services import Services
from app.web.uploads import uploaded

MOST_LISTED = 200
"""Files left out that the dialog names; it counts the rest."""
MOST_FILES = 1_000


def adding_actions(services: Services) -> dict[str, Action]:
    """`add` begins with `files`, values of Gradio's uploads; `adding` says how far this user's upload is; `sample`
    shows the sample gallery again."""
    adding = Adding(services.add_pictures, services.settings.tmp_dir)

    def add(payload: JSON, user: str) -> JSON:
        if not services.is_admin(user):
            raise NotAllowedError("only an administrator of this app may add pictures: sign in as one, or ask one")
        files = payload.get("files")
        if not isinstance(files, list) or len(files) > MOST_FILES:
            raise RequestError(f"expected at most {MOST_FILES:,} uploaded files: put more of them into a zip")
        paths = [uploaded(_path(file), services.settings.tmp_dir) for file in files]
        if None in paths:
            raise RequestError("one of the files was not uploaded here: choose them again")
        adding.start([path for path in paths if path], user)
        return {}

    def state(_: JSON, user: str) -> JSON:
        upload = adding.of(user)
        if upload is None:
            return {"state": "none"}
        if upload.running:
            return {"state": "running", "stage": upload.stage, "done": upload.done, "total": upload.total}
        if upload.fault and not (upload.added or upload.known):
            return {"state": "failed", "message": sentence(upload.fault)}
        hidden = sample_hidden(services)
        return {"state": "done", "report": _report(upload), "facets": facets(services), "sample_hidden": hidden}

    def sample(_: JSON, user: str) -> JSON:
        if not services.is_admin(user):
            raise NotAllowedError("only an administrator of this app may show the sample gallery: sign in as one")
        gallery = services.state.gallery
        if gallery.count(source="sample"):  # those of it that were forgotten are not drawn once more
            services.retriever.embed_new()
            gallery.show_source("sample")
        else:
            show_sample(services.state, services.retriever)
        return {"pictures": gallery.count(source="sample"), "facets": facets(services)}

    return {"add": add, "adding": state, "sample": sample}


def sample_hidden(services: Services) -> bool:
    """Whether the sample gallery stepped aside for somebody's own pictures."""
    return "sample" in services.state.gallery.hidden_sources


def _path(file: Any) -> str:
    path = file.get("path") if isinstance(file, dict) else None
    if not isinstance(path, str):
        raise RequestError(f"a file to add is an uploaded one, not {type(file).__name__}: choose it again")
    return path


def _report(upload: Upload) -> JSON:
    notes = [*upload.notes, *([sentence(upload.fault)] if upload.fault else [])]
    listed = upload.skipped[:MOST_LISTED]
    return {
        "added": upload.added,
        "known": upload.known,
        "left_out": upload.left_out,
        "skipped": [{"path": skipped.path, "reason": sentence(skipped.reason)} for skipped in listed],
        "notes": notes,
    }

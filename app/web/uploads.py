"""Pictures that clients send: only files they uploaded themselves; nothing is fetched or read on their word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from app.app_errors import RequestError

HOW = "send the picture itself as an uploaded file (gradio_client: image=handle_file('picture.jpg'))"


def picture_from(value: Any, uploads: Path) -> bytes | None:
    """The encoded picture of an uploaded-file value of Gradio whose file lies below `uploads`; None stays None.

    Raises RequestError on anything else, above all on a path or an address as text.
    """
    if value is None:
        return None
    if isinstance(value, str):
        raise RequestError(f"image came as text; paths and addresses are never read: {HOW}")
    if not isinstance(value, dict) or not isinstance(value.get("path"), str):
        raise RequestError(f"image is no uploaded file but {type(value).__name__}: {HOW}")
    path = uploaded(value["path"], uploads)
    if path is None:
        raise RequestError(f"image names a file that was not uploaded here: {HOW}")
    return path.read_bytes()


def uploaded(path: str, uploads: Path) -> Path | None:
    """The file of this path if it lies below `uploads`, else None."""
    try:
        file = Path(path).resolve(strict=True)
        return file if file.is_relative_to(uploads.resolve()) and file.is_file() else None
    except (OSError, ValueError, RuntimeError):
        return None


def guard_uploads() -> None:
    """Make Gradio refuse, with a sentence, what it would fetch from an address or what was not uploaded, and name the
    files that it hands out by their paths from the working folder.

    Before any function of ours is called, Gradio downloads files that a request names by address: that would let
    every client make this server send requests. It has no switch for it, so its functions are replaced.
    """
    import gradio as gr
    from gradio import processing_utils
    from gradio.blocks import Block

    check_allowed, move = processing_utils._check_allowed, Block.async_move_resource_to_block_cache

    async def refuse_address(*_: Any, **__: Any) -> str:
        raise gr.Error(f"files are not fetched from addresses: {HOW}", print_exception=False)

    def check_uploaded(path: str | Path, check_in_upload_folder: bool) -> None:
        try:
            check_allowed(path, check_in_upload_folder)
        except (ValueError, OSError) as error:  # InvalidPathError, and paths that are none
            if not check_in_upload_folder:
                raise
            raise gr.Error(f"the file was not uploaded here: {HOW}", print_exception=False) from error

    async def move_and_shorten(block: Any, path: str | Path | None) -> str | None:
        moved = await move(block, path)
        return moved and _from_working_folder(moved)

    Block.async_move_resource_to_block_cache = move_and_shorten
    processing_utils.async_ssrf_protected_download = refuse_address
    processing_utils._check_allowed = check_uploaded


def _from_working_folder(path: str) -> str:
    file = Path(path).resolve()
    return file.relative_to(Path.cwd()).as_posix() if file.is_relative_to(Path.cwd()) else path

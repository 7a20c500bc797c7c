"""Folders to and from the Hugging Face Hub; the token is that of its own login (`hf auth login`, or HF_TOKEN)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from huggingface_hub import HfApi
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from store.store_errors import HubError

try:  # the HTTP client of the Hub's client, by the name it has since version 2
    from httpx2 import TransportError
except ModuleNotFoundError:
    from httpx import TransportError  # type: ignore[assignment]

RepoType = Literal["model", "dataset"]


def push_folder(
    folder: Path, repo_id: str, *, kind: RepoType, public: bool = False, endpoint: str | None = None
) -> str:
    """Upload a folder as a new repository `user/name`, private unless `public`, and return its address.

    Only new ones: what is there is neither overwritten nor, if it is public, added to by mistake. Raises HubError
    with what to do when the name is no `user/name` or taken, when nobody is signed in (401), when writing there is not
    allowed (403), and when the Hub cannot be reached. The folder is left as it is.
    """
    if repo_id.count("/") != 1:
        raise HubError(f"A repository is named user/name; {repo_id!r} came.")
    api = HfApi(endpoint=endpoint)
    with hub_faults(repo_id, "what was to be pushed is kept here as it is"):
        url = api.create_repo(repo_id, repo_type=kind, private=not public, exist_ok=False)
        try:
            api.upload_folder(repo_id=repo_id, repo_type=kind, folder_path=folder, commit_message="Add everything")
        except BaseException:
            with contextlib.suppress(HfHubHTTPError, TransportError, OSError):
                api.delete_repo(repo_id, repo_type=kind)  # made a moment ago, and empty
            raise
    return str(url)


def fetch(repo_id: str, folder: Path, files: Sequence[str], *, endpoint: str | None = None) -> None:
    """Download these files of a model repository into `folder`; ones it does not have are left out."""
    with hub_faults(repo_id, "nothing was fetched"):
        HfApi(endpoint=endpoint).snapshot_download(repo_id, local_dir=folder, allow_patterns=list(files))


@contextmanager
def hub_faults(repo_id: str, after: str) -> Iterator[None]:
    """Turn what the Hub's client raises into a HubError that says what to do; `after` ends its sentence."""
    try:
        yield
    except HFValidationError as fault:
        raise HubError(f"A repository is named user/name; {repo_id!r} came: {fault}.") from fault
    except LocalTokenNotFoundError as fault:
        raise HubError(f"{_SIGN_IN}; {after}.") from fault
    except HfHubHTTPError as fault:
        raise HubError(f"{_advice(fault, repo_id)}; {after}.") from fault
    except OfflineModeIsEnabled as fault:
        raise HubError(f"HF_HUB_OFFLINE is set, so the Hub is not asked: unset it and try again; {after}.") from fault
    except (TransportError, OSError) as fault:
        raise HubError(
            f"The Hugging Face Hub cannot be reached ({type(fault).__name__}): check the network, try again; {after}."
        ) from fault


_SIGN_IN = (
    "The Hugging Face Hub does not know who you are (401): sign in with `hf auth login`, or set HF_TOKEN to a token "
    "that may write"
)


def _advice(fault: HfHubHTTPError, repo_id: str) -> str:
    status = fault.response.status_code if fault.response is not None else 0
    if status == 401 and not (isinstance(fault, RepositoryNotFoundError) and "Invalid" not in str(fault)):
        return _SIGN_IN
    if status == 403:
        return f"You may not write to {repo_id} (403): use a token that may, or a name of your own"
    if status == 409:
        return f"There is a repository {repo_id} already (409): choose another name, or delete that one first"
    if status in (401, 404):
        return f"There is no repository {repo_id}, or you may not see it ({status}): check the name, or `hf auth login`"
    return f"The Hugging Face Hub refused {repo_id} ({status or fault}): try again later"

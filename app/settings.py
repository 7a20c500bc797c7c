"""Settings: from the command line, the environment (`UPPERSON_…`) and a `.env` file, in this order."""

from __future__ import annotations

import os
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal

from dotenv import dotenv_values
from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.app_errors import SettingsError

PREFIX = "UPPERSON_"


def _host() -> str:
    return "0.0.0.0" if os.environ.get("SPACE_ID") else "127.0.0.1"


def _if_public(given: dict[str, Any], most: int) -> int:
    return most if given.get("sign_in") or os.environ.get("SPACE_ID") else 0


class Settings(BaseSettings):
    """What can be chosen when the app starts. Made by `load_settings`, which turns mistakes into sentences."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_file=".env", extra="ignore", frozen=True)

    data_dir: Path = Path("data")
    """The data folder; deleting it starts afresh."""
    host: str = Field(
        default_factory=lambda: os.environ.get("GRADIO_SERVER_NAME") or _host(),
        min_length=1,
    )
    """Address to listen on. Hugging Face Spaces and containers say theirs in GRADIO_SERVER_NAME."""
    port: int = Field(
        default_factory=lambda: os.environ.get("GRADIO_SERVER_PORT", 7860), ge=1, le=65535, validate_default=True
    )
    backbone: str = Field("mini", min_length=1)
    weights: Path | None = None
    """A file with the backbone's frozen weights instead of those of its name."""
    device: str = Field("auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")
    """Where models compute; auto: a GPU where there is one."""
    train_device: str = Field("", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)?$")
    """Where training computes. Empty: on `device`, with part of its memory."""
    share: bool = False
    """Also open Gradio's public tunnel."""
    train_after_marks: int = Field(200, ge=1)
    """Fine-tuning starts by itself after this many new marks …"""
    train_min_hits: int = Field(10, ge=1)
    """… when there are at least this many hits …"""
    train_every_hours: float | None = Field(None, gt=0)
    """… or when this time has passed and there is any new mark. None: never by the clock."""
    train_mode: Literal["auto", "full", "text"] = "auto"
    """full: all PETL weights learn. text: the text tower's alone, so no picture is embedded again. auto: text where
    embedding the gallery again would take too long."""
    train_base: Path | None = None
    """A data set's folder: what the backbone knew before, which is replayed and by which forgetting is judged. None:
    drawn people for `mini`, and for another backbone nothing, so that only an administrator can promote."""
    adapt: Literal["auto", "off"] = "auto"
    """auto: the style of the gallery is learnt without any mark before the first one, and again when the gallery has
    grown by half. off: only `python -m train adapt` does that."""
    train_minutes: float = Field(30, gt=0, allow_inf_nan=False)
    """Budget of a round: where tuning all blocks would take longer, only the last ones are tuned."""
    train_threads: int = Field(default_factory=lambda: os.cpu_count() or 1, ge=1)
    """Threads the training process may use. It runs at a lower priority than the app."""
    admins: Annotated[tuple[str, ...], NoDecode] = ()
    """Signed-in names that may train, promote, roll back and export, separated by commas. Empty: everybody may, or
    with `sign_in` nobody."""
    auth_file: Path | None = None
    """Names and scrambled passwords of those who may open the page, as `python app.py add-user` writes them."""
    sign_in: bool = Field(default_factory=lambda: bool(os.environ.get("SPACE_ID")))
    """Only who has signed in may mark; on a Space that is so unless it is turned off."""
    searches_per_minute: int = Field(default_factory=lambda given: _if_public(given, 60), ge=0)
    """Of one visitor; one address may ask four times as often. 0: as many as they like; on a Space and with `sign_in`
    there are limits by default, here and below."""
    uploads_per_minute: int = Field(default_factory=lambda given: _if_public(given, 10), ge=0)
    """Of one visitor, and of one address four times as many: files uploaded, and searches by a picture."""
    upload_megabytes_per_minute: int = Field(default_factory=lambda given: _if_public(given, 100), ge=0)
    """Of one visitor, and of one address four times as many."""
    upload_quota_megabytes: int = Field(2_000, ge=60)
    """What uploaded files may take together; they are deleted after a day."""
    keep_searches_hours: float = Field(24, gt=0)
    """Searches that nobody marked are deleted after so many hours, and all but the newest `kept_searches`."""
    kept_searches: int = Field(5_000, ge=100)
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = ()
    """Names that the page is reached by, separated by commas: other names are refused. Empty: names of this machine
    where only this machine reaches the app, else any."""
    behind_proxy: bool = Field(default_factory=lambda: bool(os.environ.get("SPACE_ID")))
    """Whether a proxy stands before the app, which says in X-Forwarded-For where requests come from."""
    backup_repo: str = Field("", pattern=r"^([\w.-]+/[\w.-]+)?$")
    """A private data set on the Hugging Face Hub (user/name) where marks are kept, and come back from to an empty
    disk. Empty: nowhere."""
    sample_size: int = Field(600, ge=0, le=100_000)
    """Pictures of the sample gallery that is drawn at the first start. 0: none."""

    @field_validator("admins", "allowed_hosts", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(name.strip() for name in value.split(",") if name.strip()) if isinstance(value, str) else value

    @property
    def loopback(self) -> bool:
        """Whether only this machine reaches the app."""
        try:
            return not self.share and (self.host == "localhost" or ip_address(self.host.strip("[]")).is_loopback)
        except ValueError:
            return False

    @property
    def gallery_dir(self) -> Path:
        return self.data_dir / "gallery"

    @property
    def database(self) -> Path:
        return self.data_dir / "app.db"

    @property
    def models_dir(self) -> Path:
        return self.data_dir / "models"

    @property
    def exports_dir(self) -> Path:
        return self.data_dir / "exports"

    @property
    def logs_dir(self) -> Path:
        return self.data_dir / "logs"

    @property
    def backup_dir(self) -> Path:
        """Marks on their way to the backup."""
        return self.data_dir / "backup"

    @property
    def fetched_dir(self) -> Path:
        """What the backup holds, while it is looked through."""
        return self.data_dir / "fetched"

    @property
    def tmp_dir(self) -> Path:
        """Gradio's uploads and the files it serves: nothing private may lie here."""
        return self.data_dir / "tmp"


def load_settings(**given: Any) -> Settings:
    """Settings from `given` (None: not given), the environment and `.env`.

    Raises SettingsError when a value is out of range or an `UPPERSON_` variable is one that nobody knows.
    """
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    names = {name.upper() for name in (*os.environ, *dotenv_values(".env"))}
    unknown = sorted(name for name in names - known if name.startswith(PREFIX))
    if unknown:
        raise SettingsError(
            f"unknown setting {', '.join(unknown)}: the known ones are {', '.join(sorted(known))}. "
            "Correct the name or remove the variable."
        )
    try:
        settings = Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        raise SettingsError(_sentence(error)) from error
    if settings.admins and not settings.sign_in and not settings.auth_file:
        raise SettingsError(
            "UPPERSON_ADMINS names people, but nobody can sign in here, so nobody could train: let people sign in with "
            "UPPERSON_AUTH_FILE (or UPPERSON_SIGN_IN on a Space), or remove UPPERSON_ADMINS"
        )
    # The app works in its data folder, and the training process in the program's own.
    places = {name: getattr(settings, name) for name in ("data_dir", "train_base", "auth_file", "weights")}
    return settings.model_copy(update={n: p.expanduser().absolute() for n, p in places.items() if p is not None})


def _sentence(error: ValidationError) -> str:
    faults = []
    for fault in error.errors():
        name = str(fault["loc"][0]) if fault["loc"] else "settings"
        faults.append(
            f"--{name.replace('_', '-')} ({PREFIX}{name.upper()}) cannot be {fault['input']!r}: {fault['msg']}"
        )
    return "; ".join(faults)

"""The file of names and scrambled passwords that a local app signs people in by."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Callable
from pathlib import Path

from app.app_errors import StartError

_NAME = re.compile(r"[\w.@-]{1,64}")
_LINE = re.compile(r"([\w.@-]{1,64}):([0-9a-f]{32}):([0-9a-f]{128})")
_SHORTEST = 8


def add_user(file: Path, name: str, password: str) -> bool:
    """Write a name and its scrambled password, or a new password of a known name; whether the name is new.

    The file is readable by its owner only and is replaced whole. Raises StartError if that cannot be.
    """
    if not _NAME.fullmatch(name):
        raise StartError(f"a name has 1 to 64 letters, digits, '.', '_', '@' or '-'; {name!r} came: choose another")
    if len(password) < _SHORTEST:
        raise StartError(f"a password has at least {_SHORTEST} characters, not {len(password)}: choose a longer one")
    users = _read(file) if file.exists() else {}
    new, salt = name not in users, secrets.token_bytes(16)
    users[name] = salt, _scramble(password, salt)
    part = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as out:
            out.writelines(f"{known}:{salted.hex()}:{kept.hex()}\n" for known, (salted, kept) in sorted(users.items()))
        part.replace(file)
    except OSError as fault:
        raise StartError(f"{file} cannot be written ({fault.strerror or fault}): choose another place") from fault
    return new


def checker(file: Path) -> Callable[[str, str], bool]:
    """Return the check of names and passwords in `file`, which is read now. Raises StartError if it is unusable."""
    users = _read(file)
    nobody = secrets.token_bytes(16), secrets.token_bytes(64)

    def check(name: str, password: str) -> bool:
        salt, kept = users.get(name, nobody)  # who is not known takes as long as who is
        return hmac.compare_digest(_scramble(password, salt), kept)

    return check


def _read(file: Path) -> dict[str, tuple[bytes, bytes]]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as fault:
        raise StartError(
            f"the file of passwords {file} cannot be read ({getattr(fault, 'strerror', None) or fault}): "
            "make it with `python app.py add-user NAME`"
        ) from fault
    users = {}
    for number, line in enumerate(lines, start=1):
        found = _LINE.fullmatch(line.strip())
        if found is None:
            raise StartError(
                f"line {number} of {file} is not what `python app.py add-user` writes: remove it, add the name again"
            )
        users[found[1]] = bytes.fromhex(found[2]), bytes.fromhex(found[3])
    if not users:
        raise StartError(f"{file} names nobody, so nobody could sign in: `python app.py add-user NAME`")
    return users


def _scramble(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=2**14, r=8, p=1, dklen=64)

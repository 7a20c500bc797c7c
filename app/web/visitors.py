"""Where a request comes from: the address that limits count by, whichever cookie or session it shows."""

from __future__ import annotations

import ipaddress
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import Scope

UNKNOWN = "unknown"
current_address: ContextVar[str] = ContextVar("current_address", default="")
"""The address of the request that is answered in this context; empty outside of one."""


def address_of(scope: Scope, *, behind_proxy: bool) -> str:
    """The address that a raw HTTP request comes from.

    Behind a proxy it is the last one of X-Forwarded-For, which the proxy itself wrote; what stands before it is the
    client's word. Else that header is not read.
    """
    if behind_proxy:
        forwarded = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
        if forwarded:
            return forwarded[-1].decode("latin-1").rpartition(",")[2].strip() or UNKNOWN
    return str((scope.get("client") or (UNKNOWN,))[0])


def network_of(address: str) -> str:
    """What one visitor has of addresses: an IPv4 address, or the first half of an IPv6 one."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(parsed.ipv4_mapped or ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)

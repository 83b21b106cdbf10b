"""A responder's list of CRLs, read by one who does not trust it: ``GET /crl/`` as JSON.

What stands there only says where to look: each CRL is verified by its CA's signature afterwards.  So
this makes sure of forms: names that can be folders, places on the same server, sizes and hashes.
Knows: the list's shape, and joining to one what changed since.  Does not know: fetching it, or what is done
with it.
Source: ``responder.crl_fragments`` and ``responder.crl_list`` (the shape).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from certstatus.crl_catalogue import COMPLETE, DELTA
from certstatus.errors import CRLRefused

FORMAT = 1
_SCOPE = re.compile(r"[a-z0-9][a-z0-9-]{0,63}(/[A-Za-z0-9][A-Za-z0-9_.-]{0,63}){1,5}")
# What files in a mirror's folder are called, so that no folder there is.
_NO_FOLDER = re.compile(r"\.(crl|cer)(/|$)", re.IGNORECASE)
_PLACE = re.compile(r"/[A-Za-z0-9_./~-]{1,1000}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_KEY_ID = re.compile(r"([0-9a-f]{2}){1,64}")
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z", re.ASCII)
# Of 20 octets, as RFC 5280 §5.2.3 has it.
_NUMBER_MAX = 1 << 159
# POSIX ms of 16 digits, as a responder takes it.
_SINCE_MAX = 10**16


@dataclass(frozen=True, slots=True)
class ListedCRL:
    """A CRL that can be fetched.  ``place``: its path on the server, by number; ``sha256`` in hex."""

    kind: str
    number: int
    base_number: int | None
    size: int
    sha256: str
    place: str


@dataclass(frozen=True, slots=True)
class ListedScope:
    """One series of CRLs.  ``scope``: relative path, as ``auth/g1/all``; ``key_id`` in hex."""

    scope: str
    key_id: str
    complete: ListedCRL | None
    delta: ListedCRL | None


def scopes_sha256(scopes: Iterable[str]) -> str:
    """Return what stands for the names of all scopes of a list, which are sorted: hex."""
    return hashlib.sha256("\n".join(scopes).encode()).hexdigest()


def next_since(listing: bytes) -> int:
    """Return after which generation to ask for what changed since this list; 0: its server does not say."""
    try:
        said = json.loads(listing)["next"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return 0
    return said if type(said) is int and 0 < said < _SINCE_MAX else 0


def join_listing(before: bytes, difference: bytes) -> bytes | None:
    """Return the whole list that *difference*, what changed since the list *before*, makes of it.

    Gives: *difference* itself if it is a whole list; None if the two do not fit, because scopes have gone or
           have been there all along unseen, or are not what they must be: then the whole list is needed.
    """
    try:
        old, new = json.loads(before), json.loads(difference)
        if new["since"] == 0:
            return difference
        scopes = {item["scope"]: item for item in [*old["scopes"], *new["scopes"]]}
        names = sorted(scopes)
        # Had one more ended since, the names would be others.
        new |= {"ended": old["ended"]} if "ended" in old else {}
        if new["since"] != old["next"] or new["scopes_sha256"] != scopes_sha256(names):
            return None
        whole = new | {"since": 0, "scopes": [scopes[name] for name in names]}
        return json.dumps(whole, ensure_ascii=False).encode()
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def read_listing(content: bytes) -> list[ListedScope]:
    """Return the scopes of a list, in its order.

    Raises: CRLRefused — not JSON, another format, or a member missing or of the wrong form.
    """
    try:
        said = json.loads(content)
        if said["format"] != FORMAT:
            raise CRLRefused(f"list of CRLs: format {said['format']!r:.20}, this version reads {FORMAT}")
        scopes = [_scope(item) for item in said["scopes"]]
    except (ValueError, KeyError, TypeError, RecursionError) as exc:
        raise CRLRefused(f"list of CRLs: cannot be read: {exc!r:.200}") from exc
    if len({item.scope for item in scopes}) != len(scopes):
        raise CRLRefused("list of CRLs: a scope twice")
    return scopes


def read_ended(content: bytes) -> dict[str, str]:
    """Return the scopes that a list says have ended: when the last certificate in each did, by its path.

    Raises: CRLRefused — as ``read_listing``.
    """
    try:
        found = json.loads(content).get("ended", [])
        return {_matching(_SCOPE, item["scope"]): _matching(_TIME, item["ended"]) for item in found}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
        raise CRLRefused(f"list of CRLs: scopes that have ended: {exc!r:.200}") from exc


def _scope(item: dict[str, Any]) -> ListedScope:
    scope = _matching(_SCOPE, item["scope"])
    if _NO_FOLDER.search(scope):
        raise ValueError(f"scope {scope!r:.100}")
    return ListedScope(
        scope=scope,
        key_id=_matching(_KEY_ID, item["key_id"]),
        complete=_crl(COMPLETE, item["complete"]),
        delta=_crl(DELTA, item["delta"]),
    )


def _crl(kind: str, item: dict[str, Any] | None) -> ListedCRL | None:
    if item is None:
        return None
    place = _matching(_PLACE, item["by_number"])
    if place.startswith("//") or ".." in place:
        raise ValueError(f"place {place!r}")
    size = _number(item["size"])
    if size == 0:
        raise ValueError("size 0")
    return ListedCRL(
        kind=kind,
        number=_number(item["number"]),
        base_number=_number(item["base_number"]) if kind == DELTA else None,
        size=size,
        sha256=_matching(_SHA256, item["sha256"]),
        place=place,
    )


def _matching(pattern: re.Pattern[str], text: object) -> str:
    if not isinstance(text, str) or not pattern.fullmatch(text):
        raise ValueError(f"{text!r:.100}")
    return text


def _number(value: object) -> int:
    if type(value) is not int or not 0 <= value < _NUMBER_MAX:
        raise ValueError(f"number {value!r:.60}")
    return value

"""PKCS#11 URIs: the text that stands where a key file would hold a key.

::

    pkcs11:token=certstatus;object=ca-sign-1?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=/etc/pin

Knows: the attributes we need (``token`` or ``serial``, ``object`` or ``id``, ``module-path``,
``pin-source``), percent-encoding, and that a PIN itself has no place in a URI.
Does not know: any device (``pkcs11_key``).  Source: RFC 7512 §2.
"""

from __future__ import annotations

import urllib.parse
from dataclasses import dataclass, replace
from pathlib import Path

from certstatus.errors import KeyFileError

SCHEME = "pkcs11:"
_PATH_ATTRIBUTES = frozenset({"token", "serial", "object", "id", "type", "manufacturer", "model"})
_QUERY_ATTRIBUTES = frozenset({"module-path", "pin-source"})


@dataclass(frozen=True, slots=True)
class PKCS11URI:
    """Where a key is.  ``token``/``serial`` name the token, ``label``/``key_id`` the key; "" and b"": any."""

    module: Path
    pin_source: Path
    token: str = ""
    serial: str = ""
    label: str = ""
    key_id: bytes = b""

    def named(self, label: str) -> PKCS11URI:
        """Return the same place for the key of this *label*."""
        return replace(self, label=label, key_id=b"")

    def __str__(self) -> str:
        path = [("token", self.token), ("serial", self.serial), ("object", self.label)]
        parts = [f"{name}={urllib.parse.quote(value, safe='')}" for name, value in path if value]
        if self.key_id:
            parts.append("id=" + "".join(f"%{octet:02x}" for octet in self.key_id))
        query = f"module-path={_quoted(self.module)}&pin-source={_quoted(self.pin_source)}"
        return f"{SCHEME}{';'.join(parts)}?{query}"


def _quoted(path: Path) -> str:
    return urllib.parse.quote(str(path), safe="/")


def parse_uri(text: str) -> PKCS11URI:
    """Return the URI in *text*.

    Raises: KeyFileError — not such a URI, an attribute that we do not understand, or one that is missing;
            a PIN value in it (``pin-value``), which everybody who reads the file's name could see.
    """
    text = text.strip()
    if not text.startswith(SCHEME):
        raise KeyFileError(f"expected a PKCS#11 URI (pkcs11:...), found {text[:20]!r}")
    path, _, query = text.removeprefix(SCHEME).partition("?")
    found = _attributes(path, ";", _PATH_ATTRIBUTES) | _attributes(query, "&", _QUERY_ATTRIBUTES)
    for name in ("module-path", "pin-source"):
        if not found.get(name):
            raise KeyFileError(f"PKCS#11 URI: {name} is missing")
    if not found.get("token") and not found.get("serial"):
        raise KeyFileError("PKCS#11 URI: token or serial is missing")
    return PKCS11URI(
        module=Path(_text(found["module-path"])),
        pin_source=Path(_text(found["pin-source"]).removeprefix("file:")),
        token=_text(found.get("token", "")),
        serial=_text(found.get("serial", "")),
        label=_text(found.get("object", "")),
        key_id=urllib.parse.unquote_to_bytes(found.get("id", "")),
    )


def _attributes(text: str, separator: str, known: frozenset[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in filter(None, text.split(separator)):
        name, equals, value = part.partition("=")
        if not equals or name not in known:
            raise KeyFileError(f"PKCS#11 URI: {name!r} is none of {', '.join(sorted(known))}")
        if name in found:
            raise KeyFileError(f"PKCS#11 URI: {name} twice")
        found[name] = value
    return found


def _text(value: str) -> str:
    try:
        return urllib.parse.unquote(value, errors="strict")
    except UnicodeDecodeError as exc:
        raise KeyFileError("PKCS#11 URI: a value is not UTF-8") from exc

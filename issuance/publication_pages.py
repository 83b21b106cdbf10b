"""Pages of a publication: lines beside its own, so that of a large one only what changed is written anew.

Knows: what a page's line is called, and that pages which nothing names go with the act that stops naming
them.  Does not know: what stands on a page, or which publication has any.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import sqlalchemy as sa

from issuance import schema

# A page's generation: it has none, and moves no mark that is made of generations.
_NONE = 0
_NAMES_AT_ONCE = 100
IS_NO_PAGE = schema.publication.c.kind.not_like("%/%")


def keep(connection: sa.Connection, kind: str, pages: Mapping[str, bytes]) -> None:
    """Have exactly *pages* (by SHA-256 in hex) of the publication *kind*; the caller holds the lock."""
    table = schema.publication
    there = set(
        connection.execute(
            sa.select(table.c.kind).where(table.c.kind.startswith(f"{kind}/", autoescape=True))
        ).scalars()
    )
    named = {_line(kind, sha256): (sha256, body) for sha256, body in pages.items()}
    gone = sorted(there - named.keys())
    for at in range(0, len(gone), _NAMES_AT_ONCE):
        connection.execute(sa.delete(table).where(table.c.kind.in_(gone[at : at + _NAMES_AT_ONCE])))
    new = [
        {"kind": line, "generation": _NONE, "sha256": bytes.fromhex(sha256), "body": body}
        for line, (sha256, body) in named.items()
        if line not in there
    ]
    if new:
        connection.execute(sa.insert(table), new)


def read(connection: sa.Connection, kind: str, wanted: Iterable[str]) -> dict[str, bytes]:
    """Return those of the *wanted* pages that are there, by SHA-256 in hex."""
    table = schema.publication
    lines = {_line(kind, sha256): sha256 for sha256 in wanted}
    names = sorted(lines)
    found: dict[str, bytes] = {}
    for at in range(0, len(names), _NAMES_AT_ONCE):
        rows = connection.execute(
            sa.select(table.c.kind, table.c.body).where(table.c.kind.in_(names[at : at + _NAMES_AT_ONCE]))
        )
        found |= {lines[line]: body for line, body in rows}
    return found


def _line(kind: str, sha256: str) -> str:
    return f"{kind}/{sha256}"

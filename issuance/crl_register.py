"""The register of CRLs: numbers given out, and files published.

Knows: that a scope's numbers rise by one and are never given out twice, that complete and delta
CRLs share them, and that of many scopes all is written or nothing, in statements whose number does not
grow with theirs.
Does not know: what a CRL holds or where its file is; a scope's last CRL (``crl_register_last``); how the
lock is taken and the fence asked (the caller has done both).
Source: RFC 5280 §5.2.3 (CRLNumber); Act arts. 16, 35.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple, TypeVar

import sqlalchemy as sa

from certstatus.errors import IllegalTransition, PolicyViolation
from issuance import schema

ALLOCATED = "allocated"
PUBLISHED = "published"
WITHDRAWN = "withdrawn"
# A last CRL that is signed and kept back.
PREPARED = "prepared"

# A scope's last CRL has a number from here on, and nothing else has: regular ones count on from a CA's
# own number, which must be lower than this.
LAST_NUMBER_MIN = 1 << 62

# (issuer_id, scope name)
ScopeKey = tuple[int, str]
# So many keys are named in one statement.
KEYS_AT_ONCE = 500

_Key = TypeVar("_Key")


class Fence(NamedTuple):
    """The right to publish under *name*; a higher number ends all lower ones."""

    name: str
    number: int


class WantedCRL(NamedTuple):
    """The CRLs of one scope to be made under its next number; ``kinds``: complete, delta, or both."""

    issuer_id: int
    scope: str
    kinds: Sequence[str]

    @property
    def key(self) -> ScopeKey:
        """Of which scope."""
        return self.issuer_id, self.scope


class AllocatedCRL(NamedTuple):
    """A CRL number and the cut it belongs to: everything up to ``seq``, as of ``time_ms``."""

    number: int
    seq: int
    time_ms: int

    @property
    def this_update_s(self) -> int:
        """The CRL's thisUpdate: the cut's time, rounded down."""
        return self.time_ms // 1000


class CRLKey(NamedTuple):
    """What one CRL is called."""

    issuer_id: int
    scope: str
    number: int
    kind: str

    @property
    def text(self) -> str:
        """For messages."""
        return f"{self.kind} CRL {self.number} of issuer {self.issuer_id}, scope {self.scope}"


class SignedCRL(NamedTuple):
    """An allocated CRL that is signed, checked and in its place; ``next_update_s`` POSIX, ``size`` octets."""

    key: CRLKey
    base_number: int | None
    next_update_s: int
    sha256: bytes
    size: int


class CRLRecord(NamedTuple):
    """One line of the register; what a CRL is only once signed is None before.

    ``published_ms``: when the catalogue first named it (POSIX ms, the store's time); None: never; 0: it
    did, but an earlier version did not write down when.
    """

    issuer_id: int
    scope: str
    number: int
    kind: str
    state: str
    seq: int
    base_number: int | None
    this_update_s: int
    next_update_s: int | None
    sha256: bytes | None
    size: int | None
    published_ms: int | None = None

    @property
    def key(self) -> CRLKey:
        """Which CRL it is."""
        return CRLKey(self.issuer_id, self.scope, self.number, self.kind)


def allocate(
    connection: sa.Connection, wanted: Sequence[WantedCRL], seq: int, this_update_s: int
) -> list[int]:
    """Give out the next number of each scope for CRLs made at *seq*; in the order of *wanted*.

    Takes:  each scope once.
    Raises: PolicyViolation — no such issuer, or the last CRL of one of them is out; no number is given then.
    """
    if not wanted:
        return []
    scopes, keys = schema.crl_scope, [item.key for item in wanted]
    if len(set(keys)) < len(keys):
        raise ValueError("a scope is asked for twice")
    _require_issuers(connection, {issuer_id for issuer_id, _ in keys})
    known = last_numbers(connection, keys)
    for key, number in known.items():
        _require_open(key, number)
    _register(connection, [key for key in keys if key not in known])
    numbers: dict[ScopeKey, int] = {}
    for piece in pieces(keys):
        rows = connection.execute(
            sa.update(scopes)
            .where(is_one_of(piece))
            .values(last_number=scopes.c.last_number + 1)
            .returning(scopes.c.issuer_id, scopes.c.scope, scopes.c.last_number)
        )
        numbers |= {(row.issuer_id, row.scope): row.last_number for row in rows}
    insert_allocated(
        connection,
        [CRLKey(*item.key, numbers[item.key], kind) for item in wanted for kind in item.kinds],
        seq,
        this_update_s,
    )
    return [numbers[key] for key in keys]


def _require_issuers(connection: sa.Connection, issuer_ids: set[int]) -> None:
    table = schema.issuer
    known = connection.execute(sa.select(table.c.issuer_id).where(table.c.issuer_id.in_(issuer_ids)))
    for issuer_id in sorted(issuer_ids - set(known.scalars())):
        raise PolicyViolation(f"no issuer {issuer_id}")


def _register(connection: sa.Connection, keys: Sequence[ScopeKey]) -> None:
    """Make the lines of scopes that have had no CRL yet, and were not opened as partitions."""
    if not keys:
        return
    first_id = connection.execute(sa.select(next_scope_id())).scalar_one()
    connection.execute(
        sa.insert(schema.crl_scope),
        [
            {"issuer_id": issuer_id, "scope": scope, "last_number": 0, "scope_id": scope_id}
            for scope_id, (issuer_id, scope) in enumerate(keys, first_id)
        ],
    )


def last_numbers(connection: sa.Connection, keys: Sequence[ScopeKey]) -> dict[ScopeKey, int]:
    """Return the last number given out to the regular CRLs of scopes, or that of their last CRL.

    Scopes that have no line yet are left out.
    """
    table = schema.crl_scope
    found: dict[ScopeKey, int] = {}
    for piece in pieces(keys):
        rows = connection.execute(
            sa.select(table.c.issuer_id, table.c.scope, table.c.last_number).where(is_one_of(piece))
        )
        found |= {(row.issuer_id, row.scope): row.last_number for row in rows}
    return found


def last_number(connection: sa.Connection, issuer_id: int, scope: str) -> int:
    """Return the number of ``last_numbers`` for one scope; 0: none."""
    key = issuer_id, scope
    return last_numbers(connection, [key]).get(key, 0)


def require_open(connection: sa.Connection, issuer_id: int, scope: str) -> None:
    """Refuse another CRL of a scope whose last one is out.  Raises: PolicyViolation."""
    _require_open((issuer_id, scope), last_number(connection, issuer_id, scope))


def _require_open(key: ScopeKey, number: int) -> None:
    if number >= LAST_NUMBER_MIN:
        raise PolicyViolation(f"issuer {key[0]}, scope {key[1]}: its last CRL is out, no other follows")


def insert_allocated(connection: sa.Connection, keys: Sequence[CRLKey], seq: int, this_update_s: int) -> None:
    """Write the lines of CRLs that are to be made at *seq*."""
    connection.execute(
        sa.insert(schema.crl),
        [{**key._asdict(), "state": ALLOCATED, "seq": seq, "this_update_s": this_update_s} for key in keys],
    )


def next_scope_id() -> sa.ScalarSelect[int]:
    """Return the number for a scope that is being registered; the caller's statement holds the lock."""
    return sa.select(sa.func.coalesce(sa.func.max(schema.crl_scope.c.scope_id), 0) + 1).scalar_subquery()


def record(connection: sa.Connection, signed: Sequence[SignedCRL]) -> None:
    """Move CRLs from allocated to published.

    Raises: IllegalTransition — one of them is not allocated; the caller's transaction must not be committed.
    """
    if not signed:
        return
    table = schema.crl
    moved = connection.execute(
        sa.update(table)
        .where(_HAS_KEY, table.c.state == ALLOCATED)
        .values(
            state=PUBLISHED,
            base_number=sa.bindparam("at_base"),
            next_update_s=sa.bindparam("until_s"),
            sha256=sa.bindparam("digest"),
            bytes=sa.bindparam("octets"),
        ),
        [
            {
                **_of_key(item.key),
                "at_base": item.base_number,
                "until_s": item.next_update_s,
                "digest": item.sha256,
                "octets": item.size,
            }
            for item in signed
        ],
    )
    if moved.rowcount != len(signed):
        what = signed[0].key.text if len(signed) == 1 else f"one of {len(signed)} CRLs"
        raise IllegalTransition(f"{what} is not allocated")


def note_shown(connection: sa.Connection, shown: Collection[CRLKey], time_ms: int) -> None:
    """Note that a catalogue which names the CRLs *shown* is out from *time_ms* on.

    Those that an earlier catalogue named keep their time.
    """
    table = schema.crl
    unshown = sa.select(table.c.issuer_id, table.c.scope, table.c.number, table.c.kind).where(
        schema.IS_UNSHOWN
    )
    keys = [key for row in connection.execute(unshown) if (key := CRLKey(*row)) in shown]
    if keys:
        query = sa.update(table).where(_HAS_KEY).values(published_ms=time_ms)
        connection.execute(query, [_of_key(key) for key in keys])


def unshown(connection: sa.Connection) -> set[ScopeKey]:
    """Return the scopes of which a published CRL was in no catalogue yet."""
    table = schema.crl
    rows = connection.execute(sa.select(table.c.issuer_id, table.c.scope).where(schema.IS_UNSHOWN))
    return {(issuer_id, scope) for issuer_id, scope in rows}


def withdraw(connection: sa.Connection, keys: Collection[CRLKey]) -> None:
    """Move CRLs to withdrawn.

    Takes:  each CRL once.
    Raises: IllegalTransition — one of them is not there; the caller's transaction must not be committed.
    """
    if not keys:
        return
    query = sa.update(schema.crl).where(_HAS_KEY).values(state=WITHDRAWN)
    if connection.execute(query, [_of_key(key) for key in keys]).rowcount != len(keys):
        what = next(iter(keys)).text if len(keys) == 1 else f"one of {len(keys)} CRLs"
        raise IllegalTransition(f"{what} is not there")


def unfinished(connection: sa.Connection, keys: Sequence[ScopeKey]) -> list[CRLRecord]:
    """Return the lines of scopes that were allocated and are neither published nor withdrawn.

    Looked for from a scope's last number on, not among all that it ever had: the next number is given out
    only once these are withdrawn.  Beyond it are last CRLs whose making ended early.
    """
    table, scopes = schema.crl, schema.crl_scope
    found: list[CRLRecord] = []
    for piece in pieces(keys):
        rows = connection.execute(
            sa.select(table)
            .select_from(
                # An outer join, because that is how SQLite is made to begin with the scopes.
                scopes.outerjoin(
                    table,
                    sa.and_(
                        table.c.issuer_id == scopes.c.issuer_id,
                        table.c.scope == scopes.c.scope,
                        table.c.number >= scopes.c.last_number,
                        table.c.state == ALLOCATED,
                    ),
                )
            )
            .where(is_one_of(piece))
            .order_by(table.c.issuer_id, table.c.scope, table.c.number, table.c.kind)
        )
        found += [CRLRecord(*row) for row in rows if row.issuer_id is not None]
    return found


def crls(
    connection: sa.Connection, issuer_id: int, scope: str, kind: str | None, state: str | None
) -> list[CRLRecord]:
    """Return a scope's lines, by rising number, complete before delta."""
    table = schema.crl
    query = sa.select(table).where(table.c.issuer_id == issuer_id, table.c.scope == scope)
    if kind is not None:
        query = query.where(table.c.kind == kind)
    if state is not None:
        query = query.where(table.c.state == state)
    return [CRLRecord(*row) for row in connection.execute(query.order_by(table.c.number, table.c.kind))]


def is_one_of(keys: Sequence[ScopeKey]) -> sa.ColumnElement[bool]:
    """Say that a line of ``crl_scope`` is that of one of these scopes."""
    scopes = schema.crl_scope
    return sa.tuple_(scopes.c.issuer_id, scopes.c.scope).in_(keys)


def is_crl(key: CRLKey) -> sa.ColumnElement[bool]:
    """Say that a line of ``crl`` is the one with this key."""
    return sa.and_(*(schema.crl.c[name] == value for name, value in key._asdict().items()))


def _of_key(key: CRLKey) -> dict[str, object]:
    return {f"of_{name}": value for name, value in key._asdict().items()}


def pieces(keys: Sequence[_Key]) -> Iterator[Sequence[_Key]]:
    """Yield *keys* in such pieces as one statement may name."""
    for start in range(0, len(keys), KEYS_AT_ONCE):
        yield keys[start : start + KEYS_AT_ONCE]


# Line by line, for SQLite walks over the whole table where several columns are IN a list of many.
_HAS_KEY = sa.and_(*(schema.crl.c[name] == sa.bindparam(f"of_{name}") for name in CRLKey._fields))

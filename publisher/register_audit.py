"""An audit of the register's past: every change is read again once a day, two thousand a second at most.

::

    the first pass of a process: from a place drawn at random ─▶ to where the sequence stands
    the second, at once after:   from its beginning ────────────▶ to where the sequence stands
    then one a day:              the same

Where there are so many changes that no process lives long enough for all of them, the first passes of several
come to each sooner or later, because they begin at other places.

CRLs come from kept lists, which are led on by the newest changes alone (``crl_lists``); what the register has
lost of its past since would show only when a list is built anew, perhaps years later.  So each change is held
against the running hash, which covers every octet of every change of an epoch, its columns against the
octets, and the certificate that it is about must be there and be the same.  That is one look at the register
however many scopes there are, in slices of their own short transactions, and needs neither lists nor keys.
Not seen: changes lost at the end of an epoch that a restore has ended, for nothing says how far it went; and
what a certificate's row says of its number (of which the changes have a keyed hash), its end, its state and
its partition.

Knows: what a change must be, and what of it is wrong.  Does not know: how to mend it (a backup), or CRLs.
"""

from __future__ import annotations

import logging
import random
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from certstatus import clock
from certstatus.changes import NO_REASON, ChangeKind, first_chain, next_chain, unpack_change
from certstatus.errors import FeedError
from issuance import schema
from issuance.history import SHOWN_MS
from issuance.store import Store

log = logging.getLogger(__name__)

_SLICE_ROWS = 1000
_SLICE_EVERY_S = 0.5
_PASS_EVERY_S = clock.DAY_S
# So many places are named, the first that were found; and so many are known one by one, and logged.
_NAMED_MAX = 3
_KEPT_MAX = 1000
_OF_NO_CERTIFICATE = (ChangeKind.ENTITLEMENTS, ChangeKind.ISSUERS, ChangeKind.CA_KEY_EVENT)


class Wrong(NamedTuple):
    """Changes that are not what was recorded: so many from *seq* on, and what is wrong with them."""

    seq: int
    changes: int
    what: str


class _Findings:
    """What a pass has found.

    Bounded: where every change is wrong, the builder has other things to do than to keep them all.
    """

    def __init__(self) -> None:
        self.changes = 0
        self.places = 0
        # The first ``_KEPT_MAX`` of them.
        self.first: list[Wrong] = []

    def add(self, item: Wrong) -> bool:
        """Count one more place; say whether it is kept."""
        self.changes += item.changes
        self.places += 1
        if len(self.first) == _KEPT_MAX:
            return False
        self.first.append(item)
        return True


class _Place(NamedTuple):
    """The last change that was looked at, and the running hash after it."""

    seq: int
    chain: bytes


class _Epoch(NamedTuple):
    base_seq: int
    epoch: bytes


class RegisterAudit:
    """The audit of one store."""

    def __init__(
        self,
        store: Store,
        *,
        now_ms: Callable[[], int] = clock.now_ms,
        monotonic_s: Callable[[], float] = clock.monotonic_s,
        draw: Callable[[int], int] = lambda end: random.randrange(end + 1),
    ) -> None:
        """Takes: *draw*: gives a number up to its argument, where the first pass begins."""
        self._store = store
        self._now_ms = now_ms
        self._monotonic_s = monotonic_s
        self._draw = draw
        self._not_before_s = float("-inf")
        self._pass_from_s = float("-inf")
        self._at: _Place | None = None
        # After which number this pass began; None: none is under way, or ever was.
        self._began_seq: int | None = None
        self._is_first = True
        # What the pass has found, and what the one before it had.
        self._found = _Findings()
        self._found_before = _Findings()
        # Those of the pass before that need not be logged again.
        self._known: set[int] = set()
        self.checked = 0
        self.ended_ms = 0

    def step(self) -> str:
        """Look at the next slice, if it is time; say so when a pass has ended.  Raises: StoreError."""
        steady_s = self._monotonic_s()
        if steady_s < self._not_before_s:
            return ""
        if self._began_seq is None:
            if steady_s - self._pass_from_s < _PASS_EVERY_S:
                return ""
            self._begin(steady_s)
        self._not_before_s = steady_s + _SLICE_EVERY_S
        return self._end() if self._slice() else ""

    def _begin(self, steady_s: float) -> None:
        self._began_seq = self._draw(self._store.state().seq) if self._is_first else 0
        # After a part the whole follows at once.
        self._pass_from_s = float("-inf") if self._began_seq else steady_s
        self._is_first, self._at = False, None
        self._known = {item.seq for item in self._found_before.first}
        self._found, self.checked = _Findings(), 0

    def _end(self) -> str:
        self._began_seq = None
        self.ended_ms = self._now_ms()
        self._found_before = self._found
        return f"{self.checked} changes, {self.wrong} wrong"

    # --- what is told ----------------------------------------------------------------------------------

    @property
    def wrong(self) -> int:
        """How many changes are wrong, by the last whole pass or by this one so far, whichever found more."""
        return max(self._found.changes, self._found_before.changes)

    @property
    def trouble(self) -> str:
        """What is wrong, as operators are told; empty if nothing is."""
        found = max((self._found, self._found_before), key=lambda found: found.places)
        if not found.places:
            return ""
        named = "; ".join(f"change {item.seq}: {item.what}" for item in found.first[:_NAMED_MAX])
        rest = f"; and at {found.places - _NAMED_MAX} other places" if found.places > _NAMED_MAX else ""
        return f"the store is not what was recorded: {named}{rest}"

    def status(self) -> dict[str, Any]:
        """Return what the status file says.  Called from another thread."""
        return {
            "wrong": self.wrong,
            "trouble": self.trouble,
            "checked": self.checked,
            "ended_ms": self.ended_ms,
        }

    def _note(self, found: Iterable[Wrong]) -> None:
        for item in found:
            if self._found.add(item) and item.seq not in self._known:
                log.error("register: change %d: %s", item.seq, item.what)

    # --- a slice ---------------------------------------------------------------------------------------

    def _slice(self) -> bool:
        """Look at some changes; say whether there are no more."""
        began_seq = self._began_seq or 0
        after_seq = began_seq if self._at is None else self._at.seq
        with self._store.reading(repeatable=True) as connection:
            state = connection.execute(_STATE).one()
            epochs = [_Epoch(row.base_seq, row.epoch) for row in connection.execute(_EPOCHS)]
            window = {"after_seq": after_seq, "upto_seq": state.seq, "rows": _SLICE_ROWS}
            rows = connection.execute(_CHANGES, window).all()
        self.checked += len(rows)
        for row in rows:
            # Of the first one of a part nobody knows what was before it.
            if self._at is not None or not began_seq:
                self._note(_wrong_with(row, self._at, epochs))
            self._at = _Place(row.seq, row.chain)
        if len(rows) == _SLICE_ROWS:
            return False
        if self._at is not None or not began_seq:
            end = _Place(state.seq, state.chain)
            self._note(_missing_at_end(self._at or _Place(0, b""), end, state.base_seq))
        return True


def _wrong_with(row: Any, before: _Place | None, epochs: Sequence[_Epoch]) -> Iterator[Wrong]:  # noqa: ANN401 — a row of ``_CHANGES``
    """Yield what is wrong with a change, and with what must be between it and the one *before*."""
    epoch = epochs[max(bisect_left(epochs, (row.seq, b"")) - 1, 0)]
    if before is None or before.seq <= epoch.base_seq:
        before = _Place(epoch.base_seq, first_chain(epoch.epoch))
    if row.seq > before.seq + 1:
        yield Wrong(before.seq + 1, row.seq - before.seq - 1, f"lost, up to {row.seq - 1}")
    elif row.chain != next_chain(before.chain, row.packed):
        yield Wrong(row.seq, 1, "altered: its running hash does not follow from the one before it")
        return
    try:
        told = unpack_change(row.packed)
    except FeedError as exc:
        yield Wrong(row.seq, 1, f"altered: {exc}")
        return
    says = (row.seq, row.kind, row.issuer_id or 0, row.recorded_ms, row.invalidity_s)
    if says != (told.seq, told.kind, told.issuer_id, told.recorded_ms, told.invalidity_s) or (
        row.reason != (None if told.reason == NO_REASON else told.reason)
    ):
        yield Wrong(row.seq, 1, "altered: its columns do not say what its octets do")
    elif told.kind not in _OF_NO_CERTIFICATE and (
        row.fingerprint != told.fingerprint or row.certificate_issuer_id != told.issuer_id
    ):
        yield Wrong(row.seq, 1, "its certificate is lost, or another one")


def _missing_at_end(last: _Place, end: _Place, base_seq: int) -> Iterator[Wrong]:
    """Yield what is missing between the last change there is and where the store stands."""
    last_seq = max(base_seq, last.seq)
    if end.seq > last_seq:
        yield Wrong(last_seq + 1, end.seq - last_seq, f"lost, up to {end.seq}")
    elif last.seq == end.seq > base_seq and last.chain != end.chain:
        yield Wrong(end.seq, 1, "altered: its running hash is not that of the store")


_STATE = sa.select(schema.store_state.c.base_seq, schema.store_state.c.seq, schema.store_state.c.chain).where(
    schema.store_state.c.id == 1
)
_EPOCHS = sa.select(schema.epoch.c.base_seq, schema.epoch.c.epoch).order_by(schema.epoch.c.base_seq)
_CHANGES = (
    sa.select(
        schema.change.c.seq,
        schema.change.c.kind,
        schema.change.c.issuer_id,
        schema.change.c.reason,
        SHOWN_MS,
        schema.change.c.invalidity_s,
        schema.change.c.packed,
        schema.change.c.chain,
        schema.certificate.c.fingerprint,
        schema.certificate.c.issuer_id.label("certificate_issuer_id"),
    )
    .select_from(
        schema.change.outerjoin(
            schema.certificate, schema.certificate.c.issued_seq == schema.change.c.certificate_seq
        )
    )
    .where(schema.change.c.seq > sa.bindparam("after_seq"), schema.change.c.seq <= sa.bindparam("upto_seq"))
    .order_by(schema.change.c.seq)
    .limit(sa.bindparam("rows", type_=sa.Integer()))
)

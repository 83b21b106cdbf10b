"""Who is asking: from a peer's address to what may be told it, and where that is counted.

Knows: a verifier is the narrowest registered network that holds the address; everybody may
ask about an issuer whose access is public, and is counted there as verifier 0.
An ``Asker`` is good until entitlements or issuers change, an agreement's date comes, or the
counter file ends, whichever is first; then it is found anew, before anything is looked up
in any cache.
Source: Act arts. 17, 18, 36, 37 (only those notified and agreed with are provided).
"""

from __future__ import annotations

from certstatus.counters import Provision
from certstatus.entitlements import PUBLIC_VERIFIER_ID, Entitlements, Verifier, parse_address
from certstatus.errors import CountersUnavailable
from responder.counting import Counting
from responder.standing import Access, Standing

_ADDRESSES_MAX = 65_536
_PUBLIC = "public"


class Asker:
    """A verifier (or the public) as the answer path needs it.

    access      the standing's access this was found under; None once it is outdated
    until_s     POSIX second from which it must be found anew
    entitled    issuers it may be told of -> the verifier they are counted under
    rows        issuers asked about so far -> first cell of the row in ``cells``
    refusals    the same for what was refused
    """

    __slots__ = ("access", "cells", "entitled", "refusals", "rows", "until_s", "verifier_id")

    def __init__(
        self, access: Access, until_s: int, verifier_id: int, entitled: dict[int, int], cells: memoryview
    ) -> None:
        self.access: Access | None = access
        self.until_s = until_s
        self.verifier_id = verifier_id
        self.entitled = entitled
        self.cells = cells
        self.rows: dict[int, int] = {}
        self.refusals: dict[int, int] = {}


class Askers:
    """All askers of a worker, for one kind of provision ("ocsp", "crl")."""

    def __init__(self, counting: Counting, kind: str = "ocsp") -> None:
        self._counting = counting
        self._kind = kind
        self._access: Access | None = None
        self._in_force: Entitlements | None = None
        self._cells: memoryview | None = None
        self._by_verifier: dict[int, Asker] = {}
        self._by_address: dict[str, Asker] = {}
        counting.when_rolled.append(self._outdate)

    def find(self, address: str, standing: Standing, now_s: int) -> Asker:
        """Return who asks from *address*.

        Raises: CountersUnavailable — nothing can be counted now.
        Cost:   0.3 µs for an address met before, about 8 µs for a new one.
        """
        cells = self._counting.ensure(standing.epoch, now_s)
        in_force = self._in_force
        if (
            standing.access is not self._access
            or cells is not self._cells
            or in_force is None
            or now_s >= in_force.boundary_s
        ):
            in_force = self._start_over(standing.access, cells, now_s)
        found = self._by_address.get(address)
        if found is None:
            verifier = _look_up(in_force, address)
            verifier_id = PUBLIC_VERIFIER_ID if verifier is None else verifier.verifier_id
            found = self._by_verifier.get(verifier_id)
            if found is None:
                found = self._make(verifier_id, verifier, standing.access, in_force, cells)
            if len(self._by_address) >= _ADDRESSES_MAX:
                self._by_address.clear()
            self._by_address[address] = found
        return found

    def met(self, address: str) -> Asker | None:
        """Return who asked from *address* before, if that has not been forgotten; may be outdated."""
        return self._by_address.get(address)

    def row(self, asker: Asker, issuer_id: int, standing: Standing, now_s: int) -> int | None:
        """Return the first cell of *asker*'s row for an issuer it is entitled to, else None.

        The cell is one of ``asker.cells`` as they are after this call.
        Raises: CountersUnavailable — there is no room and no new file can be made.
        """
        row = asker.rows.get(issuer_id)
        if row is not None:
            return row
        counted_as = asker.entitled.get(issuer_id)
        if counted_as is None:
            return None
        row = self._new_row(asker, counted_as, issuer_id, standing, now_s)
        asker.rows[issuer_id] = row
        return row

    def refuse(self, asker: Asker, kind: Provision, issuer_id: int, standing: Standing, now_s: int) -> None:
        """Count a refusal; *issuer_id* 0 when it is not known.

        Raises: CountersUnavailable — as ``row``.
        """
        # Under the verifier's own number, also where its provisions are counted as the public's.
        row = asker.refusals.get(issuer_id)
        if row is None:
            row = self._new_row(asker, asker.verifier_id, issuer_id, standing, now_s)
            asker.refusals[issuer_id] = row
        asker.cells[row + kind] += 1

    def _new_row(self, asker: Asker, verifier_id: int, issuer_id: int, standing: Standing, now_s: int) -> int:
        try:
            return self._counting.row(verifier_id, issuer_id)
        except CountersUnavailable:
            self._counting.roll(standing.epoch, now_s)
        # This request goes on with the new file; later ones find their asker anew.
        asker.cells = self._counting.ensure(standing.epoch, now_s)
        asker.rows = {}
        asker.refusals = {}
        return self._counting.row(verifier_id, issuer_id)

    def _start_over(self, access: Access, cells: memoryview, now_s: int) -> Entitlements:
        self._outdate()
        self._access = access
        self._cells = cells
        self._in_force = access.entitlements.at(now_s)
        return self._in_force

    def _outdate(self) -> None:
        # Connections hold on to their askers; this is how they learn that theirs is one of the past.
        for asker in self._by_verifier.values():
            asker.access = None
        self._by_verifier = {}
        self._by_address = {}
        self._in_force = None

    def _make(
        self,
        verifier_id: int,
        verifier: Verifier | None,
        access: Access,
        in_force: Entitlements,
        cells: memoryview,
    ) -> Asker:
        entitled = {}
        for issuer_id, served in access.by_id.items():
            if served.issuer.access == _PUBLIC:
                entitled[issuer_id] = PUBLIC_VERIFIER_ID
            elif verifier is not None and verifier.may(served.issuer.service, self._kind):
                entitled[issuer_id] = verifier.verifier_id
        until_s = min(in_force.boundary_s, self._counting.until_s)
        made = Asker(access, until_s, verifier_id, entitled, cells)
        self._by_verifier[verifier_id] = made
        return made


def _look_up(entitlements: Entitlements, address: str) -> Verifier | None:
    try:
        return entitlements.look_up(parse_address(address))
    except ValueError:
        # A peer without an address (a unix socket) is nobody registered.
        return None

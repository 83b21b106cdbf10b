"""When to issue which CRL, over which base, and when entries may leave: decisions, no I/O.

Knows: the periods of an issuer's policy, and the rules that keep ``combine(base, delta) =
complete``: the base is the oldest complete CRL still inside its nextUpdate that nothing has cut
off, and entries leave only after a complete CRL showed them past their certificate's end.
Does not know: entries (``crl_entries``), files, the store.
Source: RFC 5280 §3.3 (leaving), §5.1.2.5 (nextUpdate), §5.2.3-5.2.4 (numbers, bases).

Where the policy has no hold, no delta may ever say removeFromCRL.  So for such an issuer
everything that takes an entry away (a lapse; a release, should the policy once have had holds)
cuts off all complete CRLs from before it: they are no base any more, the next CRL is a complete
one without a delta, and later deltas start from it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol


class Periods(Protocol):
    """What the plan needs of an issuer's policy; all in seconds."""

    @property
    def crl_period_s(self) -> int: ...
    @property
    def crl_validity_s(self) -> int: ...
    @property
    def delta_period_s(self) -> int: ...
    @property
    def delta_validity_s(self) -> int: ...
    @property
    def lapse_period_s(self) -> int: ...
    @property
    def hold(self) -> bool: ...


class IssuedCRL(NamedTuple):
    """A published CRL as the plan sees it; ``seq`` is the cut it was made at."""

    number: int
    seq: int
    this_update_s: int
    next_update_s: int


class Due(NamedTuple):
    """What is to be issued now."""

    complete: bool
    delta: bool


def due(periods: Periods, now_s: int, complete: IssuedCRL | None, delta: IssuedCRL | None) -> Due:
    """Return what the schedule asks for, given the newest published CRL of each kind.

    A complete CRL is accompanied by a delta.  A delta older than the newest complete CRL is of no
    use to anybody, so another follows as soon as the clock shows a later second.
    """
    if complete is None:
        return Due(True, True)
    complete_s, delta_s = next_issue_s(periods, complete, delta)
    if now_s >= complete_s:
        return Due(True, True)
    return Due(False, now_s >= delta_s)


def next_issue_s(periods: Periods, complete: IssuedCRL, delta: IssuedCRL | None) -> tuple[int, int]:
    """Return when the next complete CRL and the next delta are due, given the newest of each kind."""
    complete_s = _renew_at_s(complete, periods.crl_period_s, periods.crl_validity_s)
    if delta is None or delta.number < complete.number:
        return complete_s, complete.this_update_s + 1
    delta_s = _renew_at_s(delta, periods.delta_period_s, periods.delta_validity_s)
    return complete_s, min(complete_s, delta_s)


def _renew_at_s(last: IssuedCRL, period_s: int, validity_s: int) -> int:
    """Return when a successor is due: after the period, and with its spare time before nextUpdate.

    The second bound holds when the policy was changed after *last* had promised its successor.
    """
    promised_s = last.next_update_s - last.this_update_s
    spare_s = min(validity_s - period_s, promised_s // 2)
    return min(last.this_update_s + period_s, last.next_update_s - spare_s)


def next_update_s(this_update_s: int, validity_s: int, earlier: Iterable[IssuedCRL]) -> int:
    """Return nextUpdate: after the validity, and not before that of any earlier CRL of its kind."""
    return max([this_update_s + validity_s, *(crl.next_update_s for crl in earlier)])


def choose_base(
    completes: Iterable[IssuedCRL], this_update_s: int, number: int, cut_off_seq: int
) -> IssuedCRL | None:
    """Return the base of delta *number*: the oldest complete CRL that a client may still rely on.

    Takes:   complete CRLs whose files are there; *cut_off_seq*: what was made before it is no base.
    Gives:   None if there is none; then only a complete CRL can be issued.
    """
    usable = [
        crl
        for crl in completes
        if crl.number < number and crl.next_update_s > this_update_s and crl.seq >= cut_off_seq
    ]
    return min(usable, key=lambda crl: crl.number, default=None)


class LapseRule(NamedTuple):
    """Which entries may leave: certificates that ended before ``ended_before_s`` and were revoked at
    or before number ``listed_at_seq``; so a complete CRL issued after their end has listed them."""

    ended_before_s: int
    listed_at_seq: int


def lapse(
    periods: Periods, now_s: int, complete: IssuedCRL | None, last_lapse_s: int | None
) -> LapseRule | None:
    """Return which entries may leave now, or None: the last ones left too recently, or no CRL yet."""
    if complete is None or (last_lapse_s is not None and now_s - last_lapse_s < periods.lapse_period_s):
        return None
    return LapseRule(complete.this_update_s, complete.seq)

"""Over which base a CRL is issued, until when it holds, and when entries may leave: decisions, no I/O.

Knows: the periods of an issuer's policy, and the rules that keep ``combine(base, delta) =
complete``: the base is the oldest complete CRL still inside its nextUpdate that nothing has cut
off, and entries leave only after a complete CRL showed them past their certificate's end.
Does not know: when something is due (``crl_schedule``), entries (``crl_entries``), files, the store.
Source: RFC 5280 §3.3 (leaving), §5.1.2.5 (nextUpdate), §5.2.3-5.2.4 (numbers, bases).

Where the policy has no hold, no delta may ever say removeFromCRL.  So for such an issuer
everything that takes an entry away (a lapse; a release, should the policy once have had holds)
cuts off all complete CRLs from before it, in the scopes that have shown the entry: they are no base
any more, the next CRL is a complete one without a delta, and later deltas start from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

KEEP = "keep"


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
    def expired_entries(self) -> str: ...
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


def is_over(last_end_s: int | None, complete: IssuedCRL | None, now_s: int) -> bool:
    """Say whether a partition's certificates have all ended, and a complete CRL after that was out.

    Takes:  *last_end_s*: when the last of them ends, None if nobody knows; *complete*: the newest that is
            out; *now_s*: the clock on the wall, which may have been set back since that one was made.
    Source: RFC 5280 §3.3.
    """
    if last_end_s is None or complete is None:
        return False
    return last_end_s < complete.this_update_s and last_end_s < now_s


class LapseRule(NamedTuple):
    """Which entries may leave: certificates that ended before ``ended_before_s`` and were revoked at
    or before number ``listed_at_seq``; so a complete CRL issued after their end has listed them."""

    ended_before_s: int
    listed_at_seq: int


def is_lapse_time(periods: Periods, now_s: int, ended_s: int | None) -> bool:
    """Say whether entries may leave: the policy keeps none for good, and the last run of lapses did not end
    too recently.

    Takes: *ended_s*: when it ended, POSIX s; None: there was none, or it has more to do.
    """
    if periods.expired_entries == KEEP:
        return False
    return ended_s is None or now_s - ended_s >= periods.lapse_period_s


def lapse(completes: Sequence[IssuedCRL | None]) -> LapseRule | None:
    """Return which entries may leave, or None: a CRL is missing.

    Takes:  the newest complete CRL of *every* scope of the issuer.  A lapse is one change for all lists that
            a certificate stands in, so each of them must have shown the entry past its end: the rule is
            what the oldest of these CRLs allows.
    """
    newest = [complete for complete in completes if complete is not None]
    if not newest or len(newest) < len(completes):
        return None
    return LapseRule(min(crl.this_update_s for crl in newest), min(crl.seq for crl in newest))

"""How many answers a verifier may have signed for itself alone.

An answer to a nonce, or to a signed request, is of use to nobody else and costs a signature each
time.  Whoever floods these takes the signatures that others' certificates need, so every verifier
has so many a second, and as many at once after a quiet second; the public is one verifier.
Knows: when each verifier may have the next one.
Does not know: what it is given instead.
One thread only.
Source: RFC 9654 §2; RFC 9919 §3.2.1 (the most complete answer possible), §8.4 (floods).
"""

from __future__ import annotations

# What was not used up is kept for so long.
BURST_S = 1.0
# Sums of periods are a little off what they stand for.
_SLACK_S = 1e-6


class NonceBudget:
    """One moment for each verifier: when all that it has taken will have been paid for."""

    __slots__ = ("_paid_s",)

    def __init__(self) -> None:
        # By the verifier's number: no more entries than were ever registered.
        self._paid_s: dict[int, float] = {}

    def take(self, verifier_id: int, per_s: int, monotonic_s: float) -> bool:
        """Say whether *verifier_id* may have a signature for itself at *monotonic_s*, and take it.

        Takes:   per_s signatures a second on the whole, 0 for no bound; time that never goes back.
        Cost:    0.3 µs.
        """
        if per_s == 0:
            return True
        begun_s = max(self._paid_s.get(verifier_id, 0.0), monotonic_s - BURST_S)
        paid_s = begun_s + BURST_S / per_s
        if paid_s > monotonic_s + _SLACK_S:
            return False
        self._paid_s[verifier_id] = paid_s
        return True

"""CRLReason: why a certificate was revoked, as a number and in the standard's spelling.

Knows: the numbers and their names.
Does not know: which of them a law, a policy or a kind of list allows.
Source: RFC 5280 §5.3.1 (7 is not used).
"""

from __future__ import annotations

from enum import IntEnum


class CRLReason(IntEnum):
    """A reason; ``label`` is how RFC 5280 and every tool spell it."""

    UNSPECIFIED = 0
    KEY_COMPROMISE = 1
    CA_COMPROMISE = 2
    AFFILIATION_CHANGED = 3
    SUPERSEDED = 4
    CESSATION_OF_OPERATION = 5
    CERTIFICATE_HOLD = 6
    REMOVE_FROM_CRL = 8
    PRIVILEGE_WITHDRAWN = 9
    AA_COMPROMISE = 10

    @property
    def label(self) -> str:
        """The name in the standard's spelling, e.g. ``keyCompromise``."""
        return _LABELS[self]


_LABELS = {
    CRLReason.UNSPECIFIED: "unspecified",
    CRLReason.KEY_COMPROMISE: "keyCompromise",
    CRLReason.CA_COMPROMISE: "cACompromise",
    CRLReason.AFFILIATION_CHANGED: "affiliationChanged",
    CRLReason.SUPERSEDED: "superseded",
    CRLReason.CESSATION_OF_OPERATION: "cessationOfOperation",
    CRLReason.CERTIFICATE_HOLD: "certificateHold",
    CRLReason.REMOVE_FROM_CRL: "removeFromCRL",
    CRLReason.PRIVILEGE_WITHDRAWN: "privilegeWithdrawn",
    CRLReason.AA_COMPROMISE: "aACompromise",
}


def reason_text(number: int | None) -> str:
    """Return how a reason is shown to people; one that has no name by its number."""
    if number is None:
        return "no reason given"
    try:
        return CRLReason(number).label
    except ValueError:
        return f"reason {number}"

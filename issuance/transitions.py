"""Which change may follow which state of a certificate.

::

                 REVOKED                    HELD
    (nothing) ──ISSUED──▶ VALID ◀──RELEASED── HELD
                            │                  │
                            └─────REVOKED──────┴──▶ REVOKED ─┐ REASON_CHANGED
                                                       ▲─────┘

LAPSED notes that an entry left the CRL, CERTIFICATE_HASH tells which certificate it is; neither
changes a state.  CA_KEY_EVENT revokes whatever is not revoked yet.  There is no way out of REVOKED
(Act arts. 15(1), 34(1)).
Knows: this table, as a pure function; the store applies it to rows, replay applies it to history.
Does not know: who may act, nor an issuer's policy on holds.
"""

from __future__ import annotations

from typing import NamedTuple

from certstatus.changes import ChangeKind
from certstatus.crl_reason import CRLReason
from certstatus.errors import IllegalTransition
from issuance.schema import CertificateState


class Standing(NamedTuple):
    """A certificate's state at one number of the sequence.

    ``reason``: CRLReason number or None; ``revoked_at_ms`` and ``invalidity_s`` (0 for none)
    say something only when the state is not VALID.
    """

    state: CertificateState
    reason: int | None = None
    revoked_at_ms: int | None = None
    invalidity_s: int = 0


VALID = Standing(CertificateState.VALID)


def standing_after(
    standing: Standing, kind: int, reason: int | None, recorded_ms: int, invalidity_s: int = 0
) -> Standing:
    """Return where a change of *kind*, recorded at *recorded_ms*, takes a certificate.

    Raises: IllegalTransition — the state does not allow this act; the message is the bare cause,
            for the caller to put the certificate's number before it.
    """
    state = standing.state
    if kind == ChangeKind.REVOKED:
        if state is CertificateState.REVOKED:
            raise IllegalTransition("is already revoked")
        return Standing(CertificateState.REVOKED, reason, recorded_ms, invalidity_s)
    if kind == ChangeKind.CA_KEY_EVENT:
        if state is CertificateState.REVOKED:
            return standing
        return Standing(CertificateState.REVOKED, CRLReason.CA_COMPROMISE, recorded_ms, 0)
    if kind == ChangeKind.HELD:
        if state is not CertificateState.VALID:
            raise IllegalTransition(f"is {state.name.lower()}, only a valid certificate can be held")
        return Standing(CertificateState.HELD, CRLReason.CERTIFICATE_HOLD, recorded_ms, 0)
    if kind == ChangeKind.RELEASED:
        if state is not CertificateState.HELD:
            raise IllegalTransition(f"is {state.name.lower()}, only a held certificate can be released")
        return VALID
    if kind == ChangeKind.REASON_CHANGED:
        if state is not CertificateState.REVOKED:
            raise IllegalTransition(f"is {state.name.lower()}, only a revocation's reason can be changed")
        return standing._replace(reason=reason)
    if kind == ChangeKind.CERTIFICATE_HASH:
        return standing
    if kind == ChangeKind.LAPSED:
        if state is CertificateState.VALID:
            raise IllegalTransition("is valid, only an entry of a CRL can lapse")
        return standing
    raise IllegalTransition(f"cannot undergo a change of kind {kind}")

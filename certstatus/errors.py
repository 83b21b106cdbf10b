"""Every error this system raises on purpose, and the answer that each one carries.

One root; groups by side and moment.  A class says which OCSP response status
(RFC 6960 §4.2.1) and which exit code it turns into and under which label it is counted;
rendering happens in one place per surface (``responder/answer.py``, ``certstatus/cli``).
What HTTP refuses by itself (too large, wrong method) is none of these.
Messages say what, which, limit, found; never personal values.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import ClassVar

# OCSPResponseStatus, RFC 6960 §4.2.1 (4 is not used).
SUCCESSFUL = 0
MALFORMED_REQUEST = 1
INTERNAL_ERROR = 2
TRY_LATER = 3
SIG_REQUIRED = 5
UNAUTHORIZED = 6

# Exit codes, after sysexits(3).
EXIT_USAGE = 64
EXIT_DATA = 65
EXIT_NO_INPUT = 66
EXIT_UNAVAILABLE = 69
EXIT_SOFTWARE = 70
EXIT_TEMPORARY = 75
EXIT_REFUSED = 77
EXIT_CONFIG = 78


_SHOWN_MAX = 200
_NAMED_MAX = 5


class CertStatusError(Exception):
    """Root.  Anything outside this tree is a bug and becomes internalError."""

    ocsp_status: ClassVar[int] = INTERNAL_ERROR
    exit_code: ClassVar[int] = EXIT_SOFTWARE
    outcome: ClassVar[str] = "internal_error"


# --- the asker's side: counted as refusals, never as provisions -------------------------------


class RequestError(CertStatusError):
    """The request cannot be answered because of what it is or who sent it."""

    ocsp_status = MALFORMED_REQUEST
    exit_code = EXIT_DATA
    outcome = "malformed"


class MalformedRequest(RequestError):
    """Not DER, an empty list, trailing bytes, a nonce out of range."""


class DERError(MalformedRequest):
    """Bytes are not the strict DER of the type expected there; the only error of every reader."""


class TooManyCertificates(RequestError):
    """More CertIDs in one request than ``certificates_per_request_max``."""

    ocsp_status = UNAUTHORIZED
    outcome = "too_many"


class NotEntitled(RequestError):
    """The asker has no right to this answer: not registered, out of scope, ended, suspended."""

    ocsp_status = UNAUTHORIZED
    exit_code = EXIT_REFUSED
    outcome = "not_entitled"


class NotAuthoritative(RequestError):
    """We hold no record that could answer: unknown issuer, unknown hash, no common signer."""

    ocsp_status = UNAUTHORIZED
    outcome = "not_authoritative"


# --- our side, passing: tryLater with Retry-After -----------------------------------------------


class ServiceError(CertStatusError):
    """We cannot answer now, and say when to come back."""

    ocsp_status = TRY_LATER
    exit_code = EXIT_TEMPORARY
    outcome = "try_later"


class StaleIndex(ServiceError):
    """The index is older than ``age_max_s``, not loaded, or not verified."""

    outcome = "stale"


class StaleForeignCRL(ServiceError):
    """A CA that revokes elsewhere has published no later CRL, or none has been taken over."""

    outcome = "stale_foreign_crl"


class Overloaded(ServiceError):
    """A bounded queue is full."""

    outcome = "overloaded"


class NonceBudgetSpent(ServiceError):
    """A verifier asks for more answers of its own, by nonce or signature, than it may have."""

    outcome = "nonce_budget"


class SignerUnavailable(ServiceError):
    """No responder certificate is valid now for this issuer."""

    outcome = "no_signer"


class CountersUnavailable(ServiceError):
    """The answer cannot be counted, so it is not given."""

    outcome = "no_counters"


# --- our side, not passing: internalError, alarm --------------------------------------------------


class IntegrityError(CertStatusError):
    """Something stored or received is not what it claims to be."""


class FeedError(IntegrityError):
    """A stream entry, beat or document is malformed, forged, out of order or of another epoch."""


class SnapshotError(IntegrityError):
    """A snapshot file or chunk has the wrong length, checksum or layout."""


class ArchiveDamaged(IntegrityError):
    """The archive of CRLs holds, at some place, something else than was put there."""

    exit_code = EXIT_DATA


class BackupDamaged(IntegrityError):
    """A file is no backup, or something in it is missing, too much or altered."""

    exit_code = EXIT_DATA


def printable(name: object) -> str:
    """Return a file's name as text that can be written anywhere, octets that are no UTF-8 as \\xff."""
    return os.fsencode(str(name)).decode("utf-8", "backslashreplace")


class ImportRefused(CertStatusError):
    """A file of a CA that is to be imported is not what it must be; nothing was imported.

    The message names the file, the line (0: none to name) and the field.
    """

    exit_code = EXIT_DATA

    def __init__(self, file: object, line: int, field: str, what: str) -> None:
        self.file = printable(file)
        place = f"{self.file}, line {line}" if line else self.file
        super().__init__(f"{place}: {field}: {what}")
        self.line = line
        self.field = field


class CRLCheckFailed(IntegrityError):
    """A CRL differs from what it must contain; *findings* lists how.

    *serials*: the numbers of the certificates that are to blame (INTEGER content), where that is known.
    """

    exit_code = EXIT_DATA

    def __init__(self, findings: list[str], serials: Sequence[bytes] = ()) -> None:
        text = "; ".join(findings)
        if serials:
            text += ": certificate " + ", ".join(serial.hex() for serial in serials[:_NAMED_MAX])
        if len(serials) > _NAMED_MAX:
            text += f" and {len(serials) - _NAMED_MAX} others"
        super().__init__(text)
        self.findings = findings


# --- the side that relies on CRLs ---------------------------------------------------------------


class CRLRefused(CertStatusError):
    """A CRL, a list of them or a CA certificate is not what it must be; what was there before stays."""

    exit_code = EXIT_DATA


class FetchFailed(CertStatusError):
    """A server did not give what it was asked for; it may another time."""

    exit_code = EXIT_TEMPORARY


class FolderBusy(CertStatusError):
    """Another process keeps the same folder of CRLs current."""

    exit_code = EXIT_TEMPORARY


# --- before anything is signed or recorded -------------------------------------------------------


class IssuanceError(CertStatusError):
    """An act of issuance is refused; nothing was recorded."""

    exit_code = EXIT_REFUSED
    outcome = "refused"


class PolicyViolation(IssuanceError):
    """The key, name, period or act is outside the issuer's policy."""


class UnknownCertificate(IssuanceError):
    """No certificate with this serial number (and service) in the register."""

    exit_code = EXIT_NO_INPUT


class PastUnavailable(IssuanceError):
    """What was published at a time cannot be said: it is yet to come, or retained no longer."""

    exit_code = EXIT_NO_INPUT


class IllegalTransition(IssuanceError):
    """The certificate's or record's state does not allow this act."""


class StoreError(CertStatusError):
    """The store of record is absent, of another version, or refuses."""

    exit_code = EXIT_UNAVAILABLE


class StoreAway(StoreError):
    """The store's database does not answer now: down, starting, unreachable, its disk full."""

    exit_code = EXIT_TEMPORARY


class CommitUnknown(StoreAway):
    """The database went away while it was to commit: what was to be recorded is, or is not."""


class FencedOff(StoreError):
    """Another publisher has taken over since; what this one writes is refused."""


class LeaseHeld(StoreError):
    """Another publisher holds the lease and it has not run out."""

    exit_code = EXIT_TEMPORARY


class ValkeyUnavailable(CertStatusError):
    """Valkey/Redis cannot be reached or lost its contents."""

    exit_code = EXIT_UNAVAILABLE


class KeyFileError(CertStatusError):
    """A key file is absent, readable by others, encrypted with another passphrase, or of no use."""

    exit_code = EXIT_NO_INPUT


class AlreadyServed(CertStatusError):
    """Another process serves this state folder."""

    exit_code = EXIT_TEMPORARY


class PortTaken(CertStatusError):
    """A port cannot be listened on."""

    exit_code = EXIT_UNAVAILABLE


class ServeFailed(CertStatusError):
    """A process that serving needs does not stay up."""

    exit_code = EXIT_UNAVAILABLE


class ProbeFailed(CertStatusError):
    """A responder that was probed did not answer, or not what it should within the time."""

    exit_code = EXIT_UNAVAILABLE


class ConfigError(CertStatusError):
    """A configuration key is unknown, missing or out of range."""

    exit_code = EXIT_CONFIG

    def __init__(self, file: str, key: str, expected: str, found: object) -> None:
        super().__init__(f"{file}: {key}: expected {expected}, found {_shown(found)}")
        self.file = file
        self.key = key
        self.expected = expected
        self.found = found


def _shown(found: object) -> str:
    """Return *found* as it may stand in a message, not longer than one can read."""
    try:
        text = repr(found)
    except (ValueError, RecursionError):
        # Python refuses to write out numbers of thousands of digits.
        return "what is too long to be shown"
    return text if len(text) <= _SHOWN_MAX else f"{text[:_SHOWN_MAX]}..."

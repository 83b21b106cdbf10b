"""The CRL extension expiredCertsOnCRL: since when a CRL keeps the entries of certificates that have ended.

Without it, that a certificate which has ended is not listed says nothing: its entry may have left.  With it
the CRL's scope is wider: it lists every revoked certificate whose end is that date or a later one.
Knows: reading and writing it.
Does not know: from when on a list is whole (the publisher does).
Source: ITU-T X.509 §9.5.2.8 (never critical; GeneralizedTime); RFC 5280 §3.3, §5.2.4 (scope), EN 319 411-2.
"""

from __future__ import annotations

from collections.abc import Iterable

from certstatus import oid
from certstatus.der import generalized_time, read_generalized_time
from certstatus.errors import DERError
from certstatus.extension import Extension, encode_extension


def encode_expired_certs(from_s: int) -> bytes:
    """Return the Extension of a CRL that keeps whoever ends at *from_s* (POSIX) or later.

    Raises:  DERError — outside the years 1950..9999.
    """
    return encode_extension(oid.EXPIRED_CERTS_ON_CRL, generalized_time(from_s))


def read_expired_certs(value_der: bytes) -> int:
    """Return the date in an extension's value, POSIX seconds.

    Raises:  DERError — not one GeneralizedTime in whole seconds, and nothing after it.
    """
    from_s, end = read_generalized_time(value_der, 0, len(value_der))
    if end != len(value_der):
        raise DERError("expiredCertsOnCRL: octets after the time")
    return from_s


def expired_certs_of(extensions: Iterable[Extension]) -> int | None:
    """Return the date among a CRL's extensions; None where there is none, or none that can be read.

    What cannot be read says nothing, as if it were not there; that it is there, lint says.
    """
    for name, _, value in extensions:
        if name == oid.EXPIRED_CERTS_ON_CRL:
            try:
                return read_expired_certs(value)
            except DERError:
                return None
    return None

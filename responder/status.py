"""What is said of one certificate: from what the index holds of it to status, validity and extensions.

Knows: the issuer's policy, and in which cases it must not be followed.  A number counts as never
issued only where complete lists vouch for it, those of every key of the name: certificates of a
statutory service, of an issuer without such a list, and what the key signed beside the register
(its own certificate, responders') are never said to be revoked because nobody issued them.
Also: what it said of good certificates in this second (``Moment.goods``).
Does not know: requests, kept answers, signatures; how long before nextUpdate an answer is given.
Source: RFC 6960 §2.2 (statuses, extended definition), §2.7, §4.4.2 (CRL references), §4.4.4
(archive cutoff), §4.4.5 (invalidity date), §4.4.8; RFC 5280 §5.3; Common PKI (CertHash);
Act arts. 14, 33.
"""

from __future__ import annotations

from enum import Enum
from itertools import repeat
from typing import NamedTuple

from certstatus import clock, oid
from certstatus.changes import DAY_MAX, NO_REASON
from certstatus.counters import Provision
from certstatus.crl_catalogue import CatalogueEntry
from certstatus.crl_reason import CRLReason
from certstatus.der import NULL_DER, explicit, generalized_time, integer, octet_string, sequence, tlv
from certstatus.der import oid as encode_oid
from certstatus.errors import NotAuthoritative
from certstatus.extension import encode_extension
from certstatus.index import View
from certstatus.ocsp_response import GOOD_DER, REASONS, UNKNOWN_DER, revoked
from certstatus.snapshot import GOOD, HELD, REVOKED, IndexRow
from responder.standing import ServedIssuer, Standing

# RFC 6960 §2.2 fixes time and reason of what was never issued.
_NEVER_ISSUED_DER = revoked(0, CRLReason.CERTIFICATE_HOLD)
_FOR_EVER_S = 1 << 62
_IA5_STRING = 0x16
# With NULL, as in our CertIDs (RFC 5754 §2 has every client accept it).
_SHA256_DER = sequence(encode_oid(oid.SHA256), NULL_DER)
# The day of a certificate that only a CRL has told of, which says nothing of its end: the last there is.
_NO_DAY = DAY_MAX


class Absent(Enum):
    """No row in the issuer's own part of the index.

    ELSEWHERE   another key of the same name has issued the number
    NOWHERE     none of them has, or nobody asked because it would make no difference
    """

    NOWHERE = 0
    ELSEWHERE = 1


Found = IndexRow | Absent


class Status(NamedTuple):
    """What is said of one certificate.

    kind            the column it is counted in
    until_s         POSIX second from which something else is said, change or not
    never_issued    whether it is `revoked` by the extended definition
    """

    status_der: bytes
    kind: int
    validity_s: int
    until_s: int = _FOR_EVER_S
    extensions: tuple[bytes, ...] = ()
    never_issued: bool = False


class Moment(NamedTuple):
    """When and out of what is said of one issuer's certificates: POSIX seconds, and the standing.

    goods   by last day (``not_after_day``): what was said of a good one of which nothing more is known, and
            is said of every other that ends on that day
    """

    now_s: int
    produced_at_s: int
    standing: Standing
    goods: dict[int, Status]


def look_up(view: View, served: ServedIssuer, fingerprint: bytes) -> Found:
    """Return what the index holds of a certificate.

    Cost:  1.3 µs; as much again for each other key of the name, where `revoked` may mean never issued.
    """
    issuer = served.issuer
    row = view.look_up(issuer.issuer_id, fingerprint)
    if row is not None:
        return row
    if served.says_never_issued:
        for sibling in served.siblings:
            if view.look_up(sibling, fingerprint) is not None:
                return Absent.ELSEWHERE
    elif _counts_as_good(served) and issuer.issuer_id in view.events:
        # Without a list every number counts as issued, so the end of the key is the end of each.
        reason, event_ms = view.events[issuer.issuer_id]
        return IndexRow(fingerprint, _NO_DAY, REVOKED, reason, event_ms // 1000)
    return Absent.NOWHERE


def watched(
    served: ServedIssuer, found: tuple[Found, ...], fingerprints: tuple[bytes, ...]
) -> list[tuple[int, bytes]]:
    """Return the (issuer_id, fingerprint) pairs a change to any of which may change what is said."""
    pairs = list(zip(repeat(served.issuer.issuer_id), fingerprints))
    if served.says_never_issued:
        for item, fingerprint in zip(found, fingerprints, strict=True):
            if isinstance(item, Absent):
                pairs += zip(served.siblings, repeat(fingerprint))
    return pairs


def say(served: ServedIssuer, serial: bytes, found: Found, moment: Moment) -> Status:
    """Return what is said of the certificate with the number *serial*, of which *found* was found.

    Of a good one of which nothing more is known, *moment* remembers it for all that end on the same day.
    Raises: NotAuthoritative — the policy is to say nothing of it.
    """
    if isinstance(found, Absent):
        return _say_absent(served, serial, found)
    is_common = found.state == GOOD and not found.certificate_sha256
    if is_common:
        said = moment.goods.get(found.not_after_day)
        if said is not None:
            return said
    issuer = served.issuer
    has_end = found.not_after_day != _NO_DAY or issuer.issued_list == "complete"
    if found.state == GOOD and not has_end:
        # Once on a CRL and on it no more: on no list.
        return _say_absent(served, serial, Absent.NOWHERE)
    until_s = _FOR_EVER_S
    extensions: tuple[bytes, ...] = ()
    last_second_s = clock.jst_day_end_s(found.not_after_day)
    expired = has_end and moment.now_s > last_second_s
    if expired:
        kept_s = issuer.archive_cutoff_days * clock.DAY_S
        if issuer.expired == "unauthorized":
            raise NotAuthoritative("an expired certificate")
        # Beyond the cutoff we claim no knowledge, so none may be given under that claim.
        if issuer.expired != "last" or (kept_s and last_second_s < moment.produced_at_s - kept_s):
            return _unknown(served)
        cutoff_s = moment.produced_at_s - kept_s if kept_s else served.since_s
        extensions = (encode_extension(oid.OCSP_ARCHIVE_CUTOFF, generalized_time(cutoff_s)),)
        if kept_s:
            until_s = last_second_s + kept_s + 1
    elif has_end:
        until_s = last_second_s + 1
    if issuer.cert_hash and found.certificate_sha256:
        # Whatever its state: what is proven is that we know the certificate, not that it is good.
        value_der = sequence(_SHA256_DER, octet_string(found.certificate_sha256))
        extensions += (encode_extension(oid.CERT_HASH, value_der),)
    if found.state == GOOD:
        status = Status(GOOD_DER, Provision.GOOD, issuer.validity_good_s, until_s, extensions)
        if is_common:
            moment.goods[found.not_after_day] = status
        return status
    is_held = found.state == HELD
    if issuer.invalidity_date and found.invalidity_s and not is_held:
        date_der = generalized_time(found.invalidity_s)
        extensions += (encode_extension(oid.INVALIDITY_DATE, date_der),)
    crl = None if expired or not issuer.crl_id else _crl_with(served, found, moment)
    if crl is not None:
        extensions += (_crl_reference(issuer.crl_url, crl),)
        until_s = min(until_s, crl.next_update_s)
    reason = CRLReason.CERTIFICATE_HOLD if is_held else found.reason
    status_der = revoked(found.revoked_at_s, reason if reason in REASONS else None)
    validity_s = issuer.validity_good_s if is_held else issuer.validity_revoked_s
    return Status(status_der, Provision.REVOKED, validity_s, until_s, extensions)


def _say_absent(served: ServedIssuer, serial: bytes, absent: Absent) -> Status:
    issuer = served.issuer
    if _counts_as_good(served):
        return Status(GOOD_DER, Provision.GOOD, issuer.validity_good_s)
    if issuer.issued_list != "complete":
        return _unknown(served)
    if issuer.not_issued == "unauthorized":
        raise NotAuthoritative("a number that was never issued")
    if served.says_never_issued and absent is Absent.NOWHERE and serial not in served.beside_register:
        # As short as unknown: it may be issued a second later.
        return Status(
            _NEVER_ISSUED_DER,
            Provision.REVOKED,
            issuer.validity_unknown_s,
            _FOR_EVER_S,
            (),
            never_issued=True,
        )
    return _unknown(served)


def _counts_as_good(served: ServedIssuer) -> bool:
    """Say whether a number that is on no list is good: the CA is known by its CRLs alone."""
    return served.issuer.issued_list != "complete" and served.issuer.unlisted == "good"


def _unknown(served: ServedIssuer) -> Status:
    return Status(UNKNOWN_DER, Provision.UNKNOWN, served.issuer.validity_unknown_s)


def _crl_with(served: ServedIssuer, row: IndexRow, moment: Moment) -> CatalogueEntry | None:
    """Return the current complete CRL that has this revoked or held certificate, None when in doubt."""
    issuer = served.issuer
    view = moment.standing.view
    is_ours = issuer.foreign_crl is None and issuer.crl_url != "" and issuer.crl_url.isascii()
    if not is_ours or issuer.issuer_id in view.events:
        return None
    entry = moment.standing.catalogue.complete(issuer.issuer_id)
    if entry is None:
        return None
    later = view.overlay.get((issuer.issuer_id, row.fingerprint))
    # A snapshot keeps no numbers, but a change behind the CRL's cut is not earlier than its thisUpdate.
    is_there = row.revoked_at_s < entry.this_update_s if later is None else later[1] <= entry.seq
    return entry if is_there and entry.this_update_s <= moment.now_s < entry.next_update_s else None


def _crl_reference(url: str, crl: CatalogueEntry) -> bytes:
    """Return the extension CrlID (RFC 6960 §4.4.2)."""
    value_der = sequence(
        explicit(0, tlv(_IA5_STRING, url.encode("ascii"))),
        explicit(1, integer(crl.number)),
        explicit(2, generalized_time(crl.this_update_s)),
    )
    return encode_extension(oid.OCSP_CRL, value_der)


assert NO_REASON not in REASONS

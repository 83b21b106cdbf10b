"""Rows C: complete and delta CRLs as they come over the wire, against what was done to the certificates."""

from __future__ import annotations

import json
import subprocess
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest
from crl_history import ALL, BASE_URL, Entry, History
from crl_reading import (
    AIA,
    AKI,
    CERTIFICATE_ISSUER,
    CRL_NUMBER,
    DELTA_INDICATOR,
    FRESHEST,
    IDP,
    INVALIDITY,
    REASON,
    REASONS,
    Line,
    ReadCRL,
    elements,
    read_crl,
)
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import AuthorityInformationAccessOID
from demo_service import Service, service_of
from request_octets import integer, post, seq, tlv
from served_installation import Served, openssl
from wire_client import Wire

from certstatus.crl import parse_certificate_list
from certstatus.crl_combine import combine
from certstatus.errors import CRLCheckFailed

HOLD, REMOVE = 6, 8


def complete(wire: Wire, history: History, number: int) -> ReadCRL:
    """The complete CRL *number*."""
    return read_crl(wire.get(f"{history.place}/{number}.crl").body, history.corp.ca)


def delta(wire: Wire, history: History, number: int) -> ReadCRL:
    """The delta CRL *number*."""
    return read_crl(wire.get(f"{history.place}/{number}.delta.crl").body, history.corp.ca)


def all_of(wire: Wire, history: History) -> tuple[dict[int, ReadCRL], dict[int, ReadCRL]]:
    """Every complete CRL and every delta of the history."""
    return (
        {number: complete(wire, history, number) for number in history.completes},
        {number: delta(wire, history, number) for number in history.deltas},
    )


def said(line: Line | None) -> Entry | None:
    """What a line says, in the history's words."""
    return None if line is None else Entry(line.revoked_at_s, line.reason, line.invalidity_at_s)


# --- form --------------------------------------------------------------------------------------------


@pytest.mark.row("C1", "C26")
def test_version_2_of_the_ca_that_may_sign_crls(history_wire: Wire, history: History) -> None:
    """The issuer octet for octet, one algorithm inside and outside, signed by a key meant for it."""
    ca = history.corp.ca
    assert ca.extensions.get_extension_for_class(x509.KeyUsage).value.crl_sign
    for crls in all_of(history_wire, history):
        for crl in crls.values():
            assert crl.parts[0] == integer(1)
            assert crl.issuer == ca.subject.public_bytes() != seq()
            assert elements(crl.der)[1] == crl.parts[1]


@pytest.mark.row("C2")
def test_next_update_is_there_and_never_falls(history_wire: Wire, history: History) -> None:
    """Each promises a successor, and none takes an earlier promise back."""
    for crls in all_of(history_wire, history):
        promised = [crl.next_update_s for crl in crls.values()]
        assert promised == sorted(promised)
        assert all(crl.next_update_s > crl.this_update_s for crl in crls.values())


@pytest.mark.row("C3")
def test_dates_before_2050_are_utc_times_in_seconds(history_wire: Wire, history: History) -> None:
    """``YYMMDDHHMMSSZ``, thirteen characters, in the head and in every entry."""
    for crls in all_of(history_wire, history):
        for crl in crls.values():
            for date in crl.parts[3:5]:
                assert (date[0], date[1], date[-1:]) == (0x17, 13, b"Z")
            assert all(line.time_tag == 0x17 for line in crl.lines)


@pytest.mark.row("C4")
def test_no_entries_means_no_list(history_wire: Wire, history: History) -> None:
    """The first delta, before anything happened, has no SEQUENCE where entries would be."""
    first = delta(history_wire, history, history.deltas[0])
    assert first.lines == ()
    assert [part[0] for part in first.parts] == [0x02, 0x30, 0x30, 0x17, 0x17, 0xA0]


@pytest.mark.row("C5")
def test_every_crl_names_its_key_and_its_number(history_wire: Wire, history: History) -> None:
    """The CA's SKI as keyIdentifier, a number of at most 20 octets, neither critical."""
    ski = history.corp.ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    for crls in all_of(history_wire, history):
        for number, crl in crls.items():
            assert not crl.extensions[AKI].critical
            assert crl.key_id == ski
            assert not crl.extensions[CRL_NUMBER].critical
            assert crl.number == number
            assert crl.extensions[CRL_NUMBER].value[1] <= 20


@pytest.mark.row("C6")
def test_one_rising_sequence_of_numbers_for_both_kinds(history_wire: Wire, history: History) -> None:
    """A later thisUpdate has a higher number; what shares a number shares thisUpdate and content."""
    completes, deltas = all_of(history_wire, history)
    dated = {(crl.this_update_s, crl.number) for crl in (*completes.values(), *deltas.values())}
    ordered = sorted(dated)
    assert [number for _, number in ordered] == list(range(1, len(dated) + 1))
    assert len({this_update_s for this_update_s, _ in ordered}) == len(ordered)
    together = set(completes) & set(deltas)
    assert len(together) >= 3
    for number in together:
        base = completes[1]
        combined = combine(parse_certificate_list(base.der), parse_certificate_list(deltas[number].der))
        assert combined == parse_certificate_list(completes[number].der).entries


# --- entries -----------------------------------------------------------------------------------------


@pytest.mark.row("C7", "C22", "C23")
def test_an_ended_certificate_leaves_after_a_complete_crl_has_shown_it(
    history_wire: Wire, history: History
) -> None:
    """First on a delta, on every delta while it waits, on one complete CRL after its end; then removed."""
    completes, deltas = all_of(history_wire, history)
    short = history.named["short"]
    shown = [number for number, crl in completes.items() if crl.line(short) is not None]
    assert shown == history.completes[-2:-1]
    first = next(number for number, crl in deltas.items() if crl.line(short) is not None)
    assert first < shown[0]
    for number, crl in deltas.items():
        if first <= number <= shown[0]:
            assert said(crl.line(short)) == history.listed_at(shown[0])[short]
    last = deltas[history.deltas[-1]].line(short)
    assert last is not None
    assert last.reason == REMOVE


@pytest.mark.row("C8")
def test_where_entries_leave_no_crl_claims_to_keep_them(history_wire: Wire, history: History) -> None:
    """By default they do, so expiredCertsOnCRL would be untrue."""
    for crls in all_of(history_wire, history):
        assert all("2.5.29.60" not in crl.extensions for crl in crls.values())


@pytest.mark.row("C9", "C10")
def test_reasons_and_invalidity_dates_where_they_are_known(history_wire: Wire, history: History) -> None:
    """Not critical; unspecified says nothing; an invalidity date is a GeneralizedTime with Z."""
    completes, deltas = all_of(history_wire, history)
    for crl in (*completes.values(), *deltas.values()):
        for line in crl.lines:
            assert line.reason not in (0, 7)
            assert line.reason != REMOVE or crl.base is not None
            assert not any(extension.critical for extension in line.extensions.values())
            assert set(line.extensions) <= {REASON, INVALIDITY}
    newest = completes[history.completes[-1]]
    leaked = newest.line(history.named["leaked"])
    assert leaked is not None
    assert leaked.reason == 1
    assert leaked.invalidity_at_s is not None
    assert leaked.invalidity_at_s < leaked.revoked_at_s
    text = datetime.fromtimestamp(leaked.invalidity_at_s, UTC).strftime("%Y%m%d%H%M%SZ")
    assert leaked.extensions[INVALIDITY].value == tlv(0x18, text.encode())
    plain = completes[history.completes[1]].line(history.named["plain"])
    assert plain is not None
    assert plain.extensions == {}


@pytest.mark.row("C10")
def test_no_revocation_is_dated_before_a_crl_that_does_not_list_it(
    history_wire: Wire, history: History
) -> None:
    """A new entry's date is not before the CRLs that went out without it."""
    completes, _ = all_of(history_wire, history)
    ordered = list(completes.values())
    for before, after in pairwise(ordered):
        known = {line.serial for line in before.lines}
        for line in after.lines:
            assert line.serial in known or line.revoked_at_s >= before.this_update_s


@pytest.mark.row("C11", "C12", "C14")
def test_the_scope_is_end_entities_of_this_key(history_wire: Wire, history: History) -> None:
    """Critical, a name, onlyContainsUserCerts: not indirect, no subset of reasons."""
    for crls in all_of(history_wire, history):
        for crl in crls.values():
            assert crl.extensions[IDP].critical
            name, only_user_certs = elements(crl.extensions[IDP].value)
            assert name[0] == 0xA0
            assert only_user_certs == bytes.fromhex("8101ff")
            assert all(CERTIFICATE_ISSUER not in line.extensions for line in crl.lines)
    newest = history.completes[-1]
    found = complete(history_wire, history, newest)
    assert {line.serial: said(line) for line in found.lines} == history.listed_at(newest)


@pytest.mark.row("C13")
def test_certificate_and_crl_name_one_point_by_the_same_octets(history_wire: Wire, history: History) -> None:
    """The directory name of the certificate's distribution point, with the key's generation in it."""
    certificate = history.certificate()
    points = certificate.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    # The partition's, by name and place; the whole list's by name.
    point = points[1 if history.scope == ALL else 0]
    (name,) = [item for item in point.full_name or () if isinstance(item, x509.DirectoryName)]
    assert "g1" in name.value.rfc4514_string()
    places = b"".join(
        tlv(0x86, item.value.encode())
        for item in point.full_name or ()
        if isinstance(item, x509.UniformResourceIdentifier)
    )
    assert bool(places) == (history.scope != ALL)
    for crls in all_of(history_wire, history):
        for crl in crls.values():
            named = tlv(0xA0, tlv(0xA0, tlv(0xA4, name.value.public_bytes()) + places))
            assert elements(crl.extensions[IDP].value)[0] == named


@pytest.mark.row("C13", "C16", "C28")
def test_certificates_point_to_where_the_crls_are(history_wire: Wire, history: History) -> None:
    """The address in a certificate gives the complete CRL, the one in freshestCRL the delta."""
    certificate = history.certificate()
    extensions = certificate.extensions
    points = extensions.get_extension_for_class(x509.CRLDistributionPoints)
    freshest = extensions.get_extension_for_class(x509.FreshestCRL)
    assert not points.critical
    assert not freshest.critical
    # Those of its partition: the whole list has no address there.
    for crl in all_of(history_wire, history)[0].values():
        assert not crl.extensions[FRESHEST].critical
    if history.scope != ALL:
        at = read_crl(history_wire.get(_path(points.value)).body, history.corp.ca)
        assert (at.base, at.number) == (None, history.completes[-1])
        newer = read_crl(history_wire.get(_path(freshest.value)).body, history.corp.ca)
        assert (newer.base, newer.number) == (1, history.deltas[-1])
        for crl in all_of(history_wire, history)[0].values():
            # One and the same name in the certificate and the CRL: nothing beside it.
            assert crl.extensions[FRESHEST].value == freshest.value.public_bytes()
    assert all(point.reasons is None and point.crl_issuer is None for point in freshest.value)
    for other in all_of(history_wire, history)[1].values():
        assert FRESHEST not in other.extensions
    # noRevAvail (RFC 9608) would say that there is no status to be had.
    assert "2.5.29.56" not in {extension.oid.dotted_string for extension in extensions}


def _path(points: x509.CRLDistributionPoints | x509.FreshestCRL) -> str:
    (uri,) = [
        name.value
        for point in points
        for name in point.full_name or ()
        if isinstance(name, x509.UniformResourceIdentifier)
    ]
    assert uri.startswith(f"{BASE_URL}/crl/")
    return uri.removeprefix(BASE_URL)


@pytest.mark.row("C15")
def test_parts_are_the_whole_together_and_have_nothing_in_common(
    history_wire: Wire, history: History
) -> None:
    """Every scope of the list at ``/crl/``, of an issuer in buckets and of the one with the history."""
    listed = json.loads(history_wire.get("/crl/").body)["scopes"]
    cas = {"CORP": history.corp.ca, "AUTH": service_of(history.installation.state, "AUTH").ca}
    for service, ca in cas.items():
        mine = {
            item["scope"].partition("/g1/")[2]: read_crl(
                history_wire.get(item["complete"]["by_number"]).body, ca
            )
            for item in listed
            if item["service"] == service
        }
        whole = {line.serial: said(line) for line in mine.pop(ALL).lines}
        assert len(mine) >= 2
        assert len({crl.extensions[IDP].value for crl in mine.values()}) == len(mine)
        parts = [(line.serial, said(line)) for crl in mine.values() for line in crl.lines]
        # No duplicates, so nothing is in two of them.
        assert len(parts) == len(whole) > 0
        assert dict(parts) == whole


@pytest.mark.row("C25")
def test_certificates_and_no_crl_say_where_the_cas_is(history_wire: Wire, history: History) -> None:
    """The CA's certificate, one, in DER, to everybody; a stranger's path is not there."""
    for crls in all_of(history_wire, history):
        assert all(AIA not in crl.extensions for crl in crls.values())
    certificate = x509.load_pem_x509_certificate((history.corp.folder / "good.pem").read_bytes())
    access = certificate.extensions.get_extension_for_class(x509.AuthorityInformationAccess)
    assert not access.critical
    uris = {item.access_method: item.access_location.value for item in access.value}
    assert set(uris) == {AuthorityInformationAccessOID.OCSP, AuthorityInformationAccessOID.CA_ISSUERS}
    path = uris[AuthorityInformationAccessOID.CA_ISSUERS].removeprefix(BASE_URL)
    reply = history_wire.get(path)
    assert (reply.status, reply.header("Content-Type")) == (200, "application/pkix-cert")
    assert reply.body == history.corp.ca.public_bytes(Encoding.DER)
    head = history_wire.get(path, method="HEAD")
    assert (head.body, head.header("Content-Length")) == (b"", str(len(reply.body)))
    assert history_wire.get(path, f"If-None-Match: {reply.header('ETag')}").status == 304
    assert history_wire.get(path, 'If-Match: "x"').status == 412
    assert history_wire.get(path, method="POST").header("Allow") == "GET, HEAD"
    assert history_wire.get("/ca/corp/g2.cer").status == 404


# --- deltas ------------------------------------------------------------------------------------------


@pytest.mark.row("C17", "C18")
def test_a_delta_is_based_on_a_published_complete_crl_of_the_same_kind(
    history_wire: Wire, history: History
) -> None:
    """The indicator is critical, the base can be fetched; issuer, key and scope are the base's own."""
    completes, deltas = all_of(history_wire, history)
    for crl in deltas.values():
        assert crl.extensions[DELTA_INDICATOR].critical
        assert crl.base is not None
        base = completes[crl.base]
        assert base.number < crl.number
        assert base.issuer == crl.issuer
        assert base.extensions[AKI] == crl.extensions[AKI]
        assert base.extensions[IDP] == crl.extensions[IDP]
        assert base.next_update_s > crl.this_update_s
    assert all(DELTA_INDICATOR not in crl.extensions for crl in completes.values())


@pytest.mark.row("C19", "C24")
def test_every_allowed_combination_is_the_complete_list(history_wire: Wire, history: History) -> None:
    """For every complete k and delta n with base(n) <= k < n: what others would have at n; else refused."""
    completes, deltas = all_of(history_wire, history)
    joined = 0
    for k, base in completes.items():
        for n, change in deltas.items():
            pair = parse_certificate_list(base.der), parse_certificate_list(change.der)
            assert change.base is not None
            if not change.base <= k < n:
                with pytest.raises(CRLCheckFailed):
                    combine(*pair)
                continue
            joined += 1
            mine = {
                int.from_bytes(entry.serial, "big"): Entry(
                    entry.revoked_at_s, entry.reason, entry.invalidity_at_s
                )
                for entry in combine(*pair)
            }
            assert mine == history.listed_at(n) == _joined(base, change)
    assert joined >= 10


def _joined(base: ReadCRL, change: ReadCRL) -> dict[int, Entry]:
    """Base and delta put together as a client would, with nothing of the code under test."""
    found = {line.serial: line for line in base.lines} | {line.serial: line for line in change.lines}
    return {
        serial: Entry(line.revoked_at_s, line.reason, line.invalidity_at_s)
        for serial, line in found.items()
        if line.reason != REMOVE
    }


@pytest.mark.row("C20", "C21")
def test_a_delta_says_all_that_changed_and_nothing_else(history_wire: Wire, history: History) -> None:
    """Revoked, another reason, held again: listed.  Released after a CRL had shown it: removed."""
    _, deltas = all_of(history_wire, history)
    named = history.named
    second, third, newest = history.deltas[-5], history.deltas[-4], history.deltas[-1]
    reasons = {
        (name, number): None if (line := deltas[number].line(named[name])) is None else line.reason or 0
        for name in named
        for number in (second, third, newest)
    }
    # Revoked, its reason corrected since, revoked out of a hold, still held.
    for name, reason in (("leaked", 1), ("plain", 5), ("ended", 4), ("kept", HOLD)):
        assert {reasons[name, number] for number in (second, third, newest)} == {reason}
    # On a complete CRL, released.
    assert {reasons["released", number] for number in (second, third, newest)} == {REMOVE}
    # Released, and held again.
    assert (reasons["again", second], reasons["again", third]) == (REMOVE, HOLD)
    # Held and released between two CRLs: nobody has seen it.
    assert {reasons["unseen", number] for number in (second, third, newest)} == {None}
    # Only an intermediate delta has shown it, so all later ones must take it back.
    assert (reasons["both", second], reasons["both", third], reasons["both", newest]) == (
        HOLD,
        REMOVE,
        REMOVE,
    )
    # What was revoked before the base, and has not changed, is not repeated.
    assert not {line.serial for line in deltas[newest].lines} & set(history.corp.revoked)
    assert all(history.is_mine(line.serial) for line in deltas[newest].lines)


@pytest.mark.row("C27")
def test_openssl_follows_base_and_delta_to_the_same_end(
    history_wire: Wire, history: History, tmp_path: Path
) -> None:
    """A client's own path validation: a certificate on hold in the delta is revoked, a good one passes."""
    crls = {
        "base": history_wire.get(f"{history.place}/1.crl").body,
        "delta": history_wire.get(f"{history.place}/delta.crl").body,
        "newest": history_wire.get(f"{history.place}/complete.crl").body,
    }
    for name, der in crls.items():
        (tmp_path / f"{name}.der").write_bytes(der)
        openssl(f"crl -inform DER -in {tmp_path / name}.der -out {tmp_path / name}.pem")
    folder = history.corp.folder
    leaked = history.named["leaked"]
    (tmp_path / "leaked.pem").write_text(history.installation.run("show", f"{leaked:032x}", "--pem").stdout)

    def verified(certificate: Path, *names: str) -> str:
        files = [word for name in names for word in ("-CRLfile", str(tmp_path / f"{name}.pem"))]
        options = ["-crl_check", "-extended_crl", "-use_deltas"]
        words = ["openssl", "verify", *options, "-CAfile", str(folder / "ca.pem"), *files, str(certificate)]
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=30)
        return done.stdout + done.stderr

    # At the base nobody knew; the delta says it, and so does the newest complete CRL.
    assert ": OK" in verified(tmp_path / "leaked.pem", "base")
    assert "certificate revoked" in verified(tmp_path / "leaked.pem", "base", "delta")
    assert "certificate revoked" in verified(tmp_path / "leaked.pem", "newest")
    kept = history.named["kept"]
    (tmp_path / "kept.pem").write_text(history.installation.run("show", f"{kept:032x}", "--pem").stdout)
    assert "certificate revoked" in verified(tmp_path / "kept.pem", "base", "delta")


# --- both services together --------------------------------------------------------------------------


@pytest.mark.row("C29")
def test_ocsp_and_crl_say_the_same_of_every_certificate(history_wire: Wire, history: History) -> None:
    """Status, date and reason of all of them."""
    newest = complete(history_wire, history, history.completes[-1])
    lines = {line.serial: line for line in newest.lines}
    corp = history.corp
    serials = [serial for serial in (*corp.good, *corp.revoked) if history.is_mine(serial)]
    for at in range(0, len(serials), 20):
        asked = serials[at : at + 20]
        answer = corp.read(history_wire.ask(post(corp.request(*asked))))
        for serial, single in zip(asked, answer.singles, strict=True):
            line = lines.get(serial)
            assert single.serial == serial
            assert (single.status == "revoked") == (line is not None)
            if line is not None:
                assert single.revoked_at is not None
                assert int(single.revoked_at.timestamp()) == line.revoked_at_s
                assert REASONS[single.reason or "unspecified"] == (line.reason or 0)


@pytest.mark.row("C29")
def test_ocsp_knows_a_revocation_before_any_crl_lists_it(wire: Wire, served: Served, auth: Service) -> None:
    """`revoke` returns when OCSP says so; the CRL that lists it comes after."""
    serial = auth.good[-1]
    place = "/crl/auth/g1/all/complete.crl"
    served.run("revoke", f"{serial:032x}", "--reason", "superseded")
    assert auth.read(wire.ask(post(auth.request(serial)))).word == "revoked"
    assert read_crl(wire.get(place).body, auth.ca).line(serial) is None
    served.run("publish", "now", "--all", "--service", "AUTH")
    while (crl := read_crl(wire.get(place).body, auth.ca)).line(serial) is None:
        assert auth.read(wire.ask(post(auth.request(serial)))).word == "revoked"
    assert crl.line(serial) is not None

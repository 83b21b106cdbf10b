"""What is said of a certificate under each policy, and what no policy can make the answer path say."""

from __future__ import annotations

import itertools
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from answer_cases import NOW_S, TRY_LATER, UNAUTHORIZED, Scene, Somebody, body
from asn1crypto import ocsp as asn1_ocsp
from cryptography import x509
from cryptography.x509 import ocsp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from responder_cases import CA, FAR_DAY, INDEX_KEY, SHA1, SHA256, get_request, request_der, serial_of

from certstatus import oid
from certstatus.cert_id import encode_cert_id
from certstatus.changes import DAY_MAX, Change, ChangeKind, fingerprint
from certstatus.clock import DAY_S, jst_day_end_s, jst_day_number
from certstatus.crl_catalogue import COMPLETE, DELTA, CatalogueEntry
from certstatus.der import generalized_time, integer_content
from certstatus.errors import NotAuthoritative
from certstatus.index import Snapshot, View
from certstatus.issuer_table import Issuer
from certstatus.ocsp_response import BasicResponse, parse_response
from certstatus.snapshot import GOOD, HELD, REVOKED, IndexRow, fold_changes, write_snapshot
from responder.answer import How
from responder.standing import ServedIssuer
from responder.status import Absent, Found, Moment, Status, say

DAY = jst_day_number(NOW_S)
URL = "http://crl.example/crl/lab/g1/all/complete.crl"


class Lab:
    """An issuer of no statutory service, generation 1 with test certificates 1 and 2 (revoked), and 2."""

    def __init__(self, scene: Scene, policy: dict[str, Any]) -> None:
        self.scene = scene
        self.ca, self.sibling = CA(1, "LAB", NOW_S), CA(2, "LAB", NOW_S)
        for path in (scene.folder / "keys").iterdir():
            path.unlink()
        self.responder_serial = self.ca.install_responder(scene.folder / "keys", NOW_S)
        self.sibling.install_responder(scene.folder / "keys", NOW_S)
        scene.path.signers = scene.keys.load()
        self.issuer = replace(self.ca.issuer, access="public", crl_url=URL, **policy)
        self.serve()

    def serve(self, *others: Issuer, **policy: Any) -> None:
        """Serve the first generation under a further policy, and the second or *others*."""
        second = replace(self.sibling.issuer, access="public", generation=2)
        self.issuer = replace(self.issuer, **policy)
        self.scene.ground.serve(self.issuer, *(others or (second,)))

    def basic(self, *numbers: int, alg: int = SHA1) -> BasicResponse:
        """What is answered about these test certificates."""
        return self.read(self.scene.ask(self.ca.request(*numbers, alg=alg)))

    def read(self, answer: bytes) -> BasicResponse:
        basic = parse_response(body(answer)).basic
        assert basic is not None, body(answer).hex()
        return basic

    def status(self, n: int) -> str:
        """One of the words of this module for what is said of test certificate *n*."""
        basic = self.basic(n)
        if basic.extended_revoke:
            return "never issued"
        return ("good", "revoked", "unknown")[basic.singles[0].status]


@pytest.fixture
def lab(scene: Scene) -> Lab:
    """Numbers that were never issued are said to be revoked."""
    return Lab(scene, {"not_issued": "revoked"})


# --- never issued ------------------------------------------------------------------------------------


def test_never_issued_has_the_extended_form(lab: Lab) -> None:
    """Revoked on hold since 1970, marked as the extended definition in the response, not in the single."""
    response = lab.scene.ocsp(lab.ca.request(3))
    assert response.certificate_status == ocsp.OCSPCertStatus.REVOKED
    assert response.revocation_reason == x509.ReasonFlags.certificate_hold
    assert response.revocation_time_utc is not None
    assert response.revocation_time_utc.timestamp() == 0
    assert len(response.single_extensions) == 0
    (extension,) = response.extensions
    assert extension.oid.dotted_string == oid.OCSP_EXTENDED_REVOKE
    assert not extension.critical
    assert isinstance(extension.value, x509.UnrecognizedExtension)
    assert extension.value.value == b"\x05\x00"
    assert response.next_update_utc is not None
    assert response.next_update_utc.timestamp() == NOW_S + lab.issuer.validity_unknown_s


def test_the_extended_form_is_read_by_asn1crypto_as_well(lab: Lab) -> None:
    """Nonce and extended-revoke stand side by side in one list."""
    der = body(lab.scene.ask(lab.ca.request(3, nonce=bytes(16))))
    data = asn1_ocsp.OCSPResponse.load(der, strict=True).response_data
    names = {item["extn_id"].dotted: item["critical"].native for item in data["response_extensions"]}
    assert names == {oid.OCSP_EXTENDED_REVOKE: False, oid.OCSP_NONCE: False}
    single = data["responses"][0]["cert_status"]
    assert single.name == "revoked"
    assert single.chosen["revocation_reason"].native == "certificate_hold"


def test_no_mark_where_nothing_was_never_issued(lab: Lab) -> None:
    """The mark stands in a response exactly if one of its certificates needs it."""
    assert not lab.basic(1, 2).extended_revoke
    mixed = lab.basic(1, 3, 2)
    assert mixed.extended_revoke
    assert [(item.status, item.revocation_time_s) for item in mixed.singles] == [
        (0, None),
        (1, 0),
        (1, NOW_S),
    ]


def test_what_another_key_of_the_name_issued_is_unknown(lab: Lab) -> None:
    """Never said to be never issued, though this key did not issue it."""
    lab.scene.ground.change(ChangeKind.ISSUED, 7, issuer_id=2)
    assert lab.status(7) == "unknown"
    assert lab.status(8) == "never issued"


def test_never_issued_falls_everywhere_when_it_is_issued(lab: Lab) -> None:
    """By this key or another of the name, from the memo, the cache, and an answer being signed."""
    for n, issuer_id, then in ((10, 1, "good"), (11, 2, "unknown")):
        message = get_request(lab.ca.request(n))
        lab.scene.keep(lab.ca.request(n), How(True, message=message))
        assert lab.scene.again(message) is not None
        lab.scene.ground.change(ChangeKind.ISSUED, n, issuer_id=issuer_id)
        assert lab.scene.again(message) is None
        assert lab.status(n) == then


def test_issued_by_another_key_while_it_is_signed(lab: Lab) -> None:
    """The other key's list is looked at again before the answer goes out."""
    lab.scene.tamper(lambda: lab.scene.ground.change(ChangeKind.ISSUED, 12, issuer_id=2))
    assert lab.status(12) == "unknown"


def test_never_issued_falls_in_a_snapshot_too(lab: Lab) -> None:
    """When changes are folded into a snapshot the whole question is asked again."""
    message = get_request(lab.ca.request(13))
    lab.scene.keep(lab.ca.request(13), How(True, message=message))
    lab.scene.ground.change(ChangeKind.ISSUED, 13, issuer_id=2)
    lab.scene.ground.fold()
    assert lab.scene.again(message) is None
    assert lab.status(13) == "unknown"


def test_a_new_key_of_the_name_is_asked_as_well(lab: Lab) -> None:
    """A generation that joins later counts for answers given before."""
    message = get_request(lab.ca.request(14))
    lab.scene.keep(lab.ca.request(14), How(True, message=message))
    third = replace(CA(3, "LAB", NOW_S).issuer, generation=3)
    lab.serve(replace(lab.sibling.issuer, generation=2), third)
    assert lab.scene.again(message) is None
    assert lab.status(14) == "never issued"
    lab.scene.ground.change(ChangeKind.ISSUED, 14, issuer_id=3)
    assert lab.status(14) == "unknown"


def test_an_issuer_of_the_same_name_in_another_service_is_another_key_of_the_name(lab: Lab) -> None:
    """A name decides, whatever the service is called."""
    other = CA(3, "ELSE", NOW_S)
    lab.serve(replace(other.issuer, names_der=(other.name_der, lab.ca.name_der)))
    lab.scene.ground.change(ChangeKind.ISSUED, 15, issuer_id=3)
    assert lab.status(15) == "unknown"


def test_an_incomplete_list_of_another_key_vouches_for_nothing(lab: Lab) -> None:
    """One key known by its CRLs alone may have issued any number."""
    lab.serve(replace(lab.sibling.issuer, generation=2, issued_list="absent"))
    assert lab.status(3) == "unknown"


@pytest.mark.parametrize(
    "wrong",
    [
        {"service": "SIGN"},
        {"service": "AUTH"},
        {"issued_list": "absent"},
        {"foreign_crl": (NOW_S - 5, NOW_S + 900)},
    ],
    ids=str,
)
def test_no_table_makes_the_path_say_never_issued_where_it_must_not(lab: Lab, wrong: dict[str, Any]) -> None:
    """Whatever was published: not in the statutory services, not without a complete list."""
    lab.serve(**wrong)
    assert lab.status(3) == "unknown"


def test_what_the_key_signed_beside_the_register_is_unknown(lab: Lab) -> None:
    """The CA's own certificate and its responders' were issued, though no list has them."""
    lab.serve(beside_register=(lab.responder_serial,))
    both = lab.ca.hashes[SHA1]
    for serial in (bytes.fromhex(lab.responder_serial), integer_content(lab.ca.certificate.serial_number)):
        cert_id = encode_cert_id(SHA1, both[:20], both[20:], serial)
        basic = lab.read(lab.scene.ask(request_der([cert_id])))
        assert (basic.singles[0].status, basic.extended_revoke) == (2, False)


def test_the_end_of_the_key_issues_nothing(lab: Lab) -> None:
    """After a CA-key event what was issued is revoked, what was not is still what it was."""
    lab.scene.ground.change(ChangeKind.CA_KEY_EVENT, 0, reason=2)
    assert [lab.status(n) for n in (1, 2, 3)] == ["revoked", "revoked", "never issued"]
    assert lab.basic(1).singles[0].reason == 2


def test_never_issued_can_be_unauthorized(lab: Lab) -> None:
    """Then the whole request is, and the next one about the same number after it was issued is not."""
    lab.serve(not_issued="unauthorized")
    for request in (lab.ca.request(3), lab.ca.request(1, 3)):
        assert body(lab.scene.ask(request)) == UNAUTHORIZED
    lab.scene.ground.change(ChangeKind.ISSUED, 3)
    assert lab.status(3) == "good"


def test_never_issued_is_counted_as_what_is_said(lab: Lab) -> None:
    """A revocation was told."""
    lab.status(3)
    assert lab.scene.counted() == {"REVOKED": 1}


# --- known by CRLs alone -----------------------------------------------------------------------------


@pytest.mark.parametrize(("unlisted", "said"), [("good", "good"), ("unknown", "unknown")])
def test_a_number_on_no_crl(lab: Lab, unlisted: str, said: str) -> None:
    """Without a list of what was issued the policy decides; on a CRL it is revoked, taken off it is not."""
    lab.serve(issued_list="absent", unlisted=unlisted, not_issued="unauthorized")
    lab.scene.ground.change(ChangeKind.REVOKED, 20, reason=4, day=DAY_MAX)
    lab.scene.ground.change(ChangeKind.HELD, 21, day=DAY_MAX)
    assert [lab.status(n) for n in (3, 20, 21)] == [said, "revoked", "revoked"]
    lab.scene.ground.change(ChangeKind.RELEASED, 21, day=DAY_MAX)
    assert lab.status(21) == said
    assert set(lab.scene.counted()) == {said.upper(), "REVOKED"}


def test_a_complete_list_makes_unlisted_numbers_good_never(lab: Lab) -> None:
    """A table that contradicts itself is read on the safe side."""
    lab.serve(issued_list="complete", unlisted="good", not_issued="unknown")
    assert lab.status(3) == "unknown"


def test_the_end_of_the_key_ends_every_number(lab: Lab) -> None:
    """Where every number counts as issued, a CA-key event revokes it, in caches too."""
    lab.serve(issued_list="absent", unlisted="good", not_issued="unknown")
    message = get_request(lab.ca.request(3))
    lab.scene.keep(lab.ca.request(3), How(True, message=message))
    lab.scene.ground.change(ChangeKind.CA_KEY_EVENT, 0, reason=2)
    assert lab.scene.again(message) is None
    single = lab.basic(3).singles[0]
    assert (single.status, single.reason, single.revocation_time_s) == (1, 2, NOW_S)


# --- revoked elsewhere -------------------------------------------------------------------------------


def test_times_are_those_of_the_crl_taken_over(lab: Lab) -> None:
    """thisUpdate is the CRL's; nextUpdate ours, or the CRL's where that is sooner."""
    lab.serve(foreign_crl=(NOW_S - 40_000, NOW_S + 500), not_issued="unknown")
    by_status = {n: lab.basic(n).singles[0] for n in (1, 2, 3)}
    assert {single.this_update_s for single in by_status.values()} == {NOW_S - 40_000}
    assert {n: (item.next_update_s or 0) - NOW_S for n, item in by_status.items()} == {1: 500, 2: 500, 3: 120}
    assert lab.basic(1).produced_at_s == NOW_S


def test_a_crl_of_tomorrow_is_not_believed_before_its_time(lab: Lab) -> None:
    """A CA whose clock is ahead puts no thisUpdate into our future."""
    lab.serve(foreign_crl=(NOW_S + 600, NOW_S + 90_000))
    assert lab.basic(1).singles[0].this_update_s == NOW_S


def test_after_its_end_the_issuer_falls_silent(lab: Lab) -> None:
    """tryLater from the second of nextUpdate on, cached or not, until a newer CRL is taken over."""
    scene = lab.scene
    lab.serve(foreign_crl=(NOW_S - 40_000, NOW_S + 30))
    message = get_request(lab.ca.request(1))
    scene.keep(lab.ca.request(1), How(True, message=message))
    scene.clock.pass_s(29)
    assert lab.status(1) == "good"
    scene.clock.pass_s(1)
    assert scene.again(message) is None
    for request in (lab.ca.request(1), lab.ca.request(2), lab.ca.request(3)):
        assert body(scene.ask(request)) == TRY_LATER
    assert scene.path.outcomes["stale_foreign_crl"] == 3
    assert lab.read(scene.ask(lab.sibling.request(1))).singles[0].status == 0
    lab.serve(foreign_crl=(NOW_S + 20, NOW_S + 90_000))
    assert lab.status(1) == "good"


def test_a_newer_crl_makes_every_answer_anew(lab: Lab) -> None:
    """An answer under the older CRL's times is not given once a newer one is taken over."""
    lab.serve(foreign_crl=(NOW_S - 1000, NOW_S + 5000))
    assert lab.basic(1).singles[0].this_update_s == NOW_S - 1000
    lab.serve(foreign_crl=(NOW_S - 10, NOW_S + 9000))
    assert lab.basic(1).singles[0].this_update_s == NOW_S - 10


# --- extensions --------------------------------------------------------------------------------------


def extensions_of(lab: Lab, n: int) -> dict[str, bytes]:
    """Single extensions by name; none may be critical."""
    (single,) = lab.basic(n).singles
    assert not any(item.critical for item in single.extensions)
    return {item.oid: item.value for item in single.extensions}


def test_the_cutoff_reaches_back_as_configured(lab: Lab) -> None:
    """producedAt minus the days; what expired before that is unknown, to the second, cached or not."""
    lab.serve(expired="last", archive_cutoff_days=10)
    lab.scene.ground.change(ChangeKind.ISSUED, 30, day=DAY - 5)
    lab.scene.ground.change(ChangeKind.ISSUED, 31, day=DAY - 11)
    assert extensions_of(lab, 30) == {oid.OCSP_ARCHIVE_CUTOFF: generalized_time(NOW_S - 10 * DAY_S)}
    assert [lab.status(n) for n in (1, 30, 31)] == ["good", "good", "unknown"]
    last_s = jst_day_end_s(DAY - 5) + 10 * DAY_S
    for second, said in ((last_s - 1, "good"), (last_s, "good"), (last_s + 1, "unknown")):
        lab.scene.clock.ms = second * 1000
        lab.ca.install_responder(lab.scene.folder / "keys", second)
        lab.scene.path.signers = lab.scene.keys.load()
        lab.scene.ground.beat()
        assert lab.status(30) == said


def test_the_invalidity_date_is_told_where_it_is_known(lab: Lab) -> None:
    """For revoked certificates, when the policy says so."""
    lab.scene.ground.change(ChangeKind.ISSUED, 40)
    lab.scene.ground.change(ChangeKind.REVOKED, 40, reason=1, invalidity_s=NOW_S - 7777)
    assert extensions_of(lab, 40) == {}
    lab.serve(invalidity_date=True)
    assert extensions_of(lab, 40) == {oid.INVALIDITY_DATE: generalized_time(NOW_S - 7777)}
    assert extensions_of(lab, 2) == extensions_of(lab, 1) == extensions_of(lab, 3) == {}
    lab.scene.ground.change(ChangeKind.HELD, 40, invalidity_s=NOW_S - 7777)
    assert extensions_of(lab, 40) == {}


def test_the_hash_of_the_certificate_is_said_where_it_was_told(lab: Lab) -> None:
    """Of good, held and revoked ones alike, when the policy says so; of none that is not in the index."""
    ground = lab.scene.ground
    ground.change(ChangeKind.ISSUED, 40, sha256=b"h" * 32)
    assert extensions_of(lab, 40) == {}
    lab.serve(cert_hash=True)
    wanted = {oid.CERT_HASH: _cert_hash(b"h" * 32)}
    assert extensions_of(lab, 40) == wanted
    for kind in (ChangeKind.HELD, ChangeKind.RELEASED, ChangeKind.HELD, ChangeKind.REVOKED):
        ground.change(kind, 40, reason=1)
        assert extensions_of(lab, 40) == wanted
    assert extensions_of(lab, 1) == extensions_of(lab, 2) == extensions_of(lab, 3) == {}
    ground.change(ChangeKind.CERTIFICATE_HASH, 2, sha256=b"i" * 32)
    assert extensions_of(lab, 2) == {oid.CERT_HASH: _cert_hash(b"i" * 32)}
    assert lab.status(2) == "revoked"
    ground.change(ChangeKind.ISSUED, 41, sha256=b"j" * 32)
    assert lab.status(41) == "good"
    ground.change(ChangeKind.CA_KEY_EVENT, 0, reason=2)
    assert lab.status(41) == "revoked"
    assert extensions_of(lab, 41) == {oid.CERT_HASH: _cert_hash(b"j" * 32)}


def test_a_cached_answer_falls_when_the_hash_is_told(lab: Lab) -> None:
    """An answer made before the hash was known is not given after."""
    lab.serve(cert_hash=True)
    assert extensions_of(lab, 1) == {}
    lab.scene.ground.change(ChangeKind.CERTIFICATE_HASH, 1, sha256=b"h" * 32)
    assert extensions_of(lab, 1) == {oid.CERT_HASH: _cert_hash(b"h" * 32)}


def test_no_hash_beside_unknown(lab: Lab) -> None:
    """An expired certificate that is said to be unknown is not proven to be known."""
    lab.serve(cert_hash=True)
    lab.scene.ground.change(ChangeKind.ISSUED, 40, day=DAY - 2, sha256=b"h" * 32)
    assert lab.status(40) == "unknown"
    assert extensions_of(lab, 40) == {}
    lab.serve(expired="last")
    assert lab.status(40) == "good"
    assert set(extensions_of(lab, 40)) == {oid.CERT_HASH, oid.OCSP_ARCHIVE_CUTOFF}


def _cert_hash(sha256: bytes) -> bytes:
    """SEQUENCE { AlgorithmIdentifier SHA-256 with NULL, OCTET STRING }, octet by octet."""
    return bytes.fromhex("3031300d06096086480165030402010500 0420") + sha256


def crl(seq: int, this_update_s: int, **other: Any) -> CatalogueEntry:
    """The entry of a CRL made at a cut."""
    values: dict[str, Any] = {
        "issuer_id": 1,
        "scope": "all",
        "kind": COMPLETE,
        "file": "lab/g1/all/200.crl",
        "name": "lab/g1/all/complete.crl",
        "current": True,
        "number": 200,
        "base_number": None,
        "seq": seq,
        "this_update_s": this_update_s,
        "next_update_s": this_update_s + 86_400,
        "next_issue_s": this_update_s + 3600,
        "size": 1,
        "sha256": "",
    }
    return CatalogueEntry(**(values | other))


@pytest.fixture
def listed(lab: Lab) -> Lab:
    """Answers name the CRL on which a certificate stands."""
    lab.serve(crl_id=True)
    return lab


def test_the_crl_that_has_the_certificate_is_named(listed: Lab) -> None:
    """URL as in certificates, number and thisUpdate, for revoked and held certificates and no others."""
    scene = listed.scene
    scene.ground.change(ChangeKind.HELD, 1)
    scene.clock.pass_s(5)
    scene.ground.publish(crl(scene.ground.standing.seq, NOW_S + 5))
    scene.ground.beat()
    der = body(scene.ask(listed.ca.request(2)))
    (single,) = asn1_ocsp.OCSPResponse.load(der, strict=True).response_data["responses"]
    (extension,) = single["single_extensions"]
    assert extension["extn_id"].dotted == oid.OCSP_CRL
    value = extension["extn_value"].parsed
    assert value["crl_url"].native == URL
    assert value["crl_num"].native == 200
    assert value["crl_time"].native.timestamp() == NOW_S + 5
    assert set(extensions_of(listed, 1)) == {oid.OCSP_CRL}
    scene.ground.change(ChangeKind.RELEASED, 1)
    assert extensions_of(listed, 1) == extensions_of(listed, 3) == {}


@pytest.mark.parametrize(
    "other",
    [
        {"seq": 3},
        {"issuer_id": 2},
        {"kind": DELTA},
        {"current": False},
        {"next_update_s": NOW_S + 5},
        {"this_update_s": NOW_S + 100},
    ],
    ids=str,
)
def test_in_doubt_no_crl_is_named(listed: Lab, other: dict[str, Any]) -> None:
    """Made before the revocation (change 3 is its issue), another's, a delta, an old one, or past its end."""
    scene = listed.scene
    scene.ground.change(ChangeKind.REVOKED, 2, reason=1)
    scene.clock.pass_s(5)
    scene.ground.beat()
    scene.ground.publish(crl(scene.ground.standing.seq, NOW_S + 5))
    assert set(extensions_of(listed, 2)) == {oid.OCSP_CRL}
    scene.ground.publish(replace(crl(scene.ground.standing.seq, NOW_S + 5), **other))
    listed.serve()
    answer = scene.ask_anew(listed.ca.request(2))
    assert listed.read(answer).singles[0].extensions == ()


@pytest.mark.parametrize(("revoked_at_s", "is_named"), [(NOW_S - 1, True), (NOW_S, False)])
def test_out_of_a_snapshot_the_time_decides(
    listed: Lab, tmp_path: Path, revoked_at_s: int, is_named: bool
) -> None:
    """A row without its change's number is on the CRL only if it is older than the CRL's thisUpdate."""
    print_of = fingerprint(serial_of(50), INDEX_KEY)
    changes = [
        Change(kind, 1, 1, FAR_DAY, print_of, 0, revoked_at_s * 1000, seq)
        for seq, kind in ((1, ChangeKind.ISSUED), (9, ChangeKind.REVOKED))
    ]
    path = tmp_path / "nine.idx"
    write_snapshot(path, b"e" * 16, 9, NOW_S * 1000, bytes(32), fold_changes(changes, None))
    scene = listed.scene
    before = scene.ground.standing
    scene.ground.standing = replace(
        before, view=View(Snapshot(path)), mark=before.mark + 1, era=before.era + 1
    )
    scene.ground.publish(crl(5, NOW_S))
    assert set(extensions_of(listed, 50)) == ({oid.OCSP_CRL} if is_named else set())


def test_no_crl_is_named_that_is_not_ours_or_not_simply_so(listed: Lab) -> None:
    """Not when revocations happen elsewhere, after a CA-key event, or for an expired certificate."""
    scene = listed.scene
    scene.ground.publish(crl(1000, NOW_S - 5))
    scene.ground.change(ChangeKind.ISSUED, 51, day=DAY - 3)
    scene.ground.change(ChangeKind.REVOKED, 51, reason=1, day=DAY - 3)
    listed.serve(expired="last")
    assert set(extensions_of(listed, 51)) == {oid.OCSP_ARCHIVE_CUTOFF}
    assert set(extensions_of(listed, 2)) == {oid.OCSP_CRL}
    for wrong in ({"foreign_crl": (NOW_S - 9, NOW_S + 999)}, {"crl_url": ""}, {"crl_url": "http://crl.例/"}):
        listed.serve(**wrong)
        assert extensions_of(listed, 2) == {}
        listed.serve(foreign_crl=None, crl_url=URL)
    scene.ground.change(ChangeKind.CA_KEY_EVENT, 0, reason=2)
    assert extensions_of(listed, 2) == {}


def test_a_named_crl_is_not_named_beyond_its_end(listed: Lab) -> None:
    """A cached answer goes with the CRL that it names."""
    scene = listed.scene
    scene.ground.publish(crl(1000, NOW_S - 86_300))
    message = get_request(listed.ca.request(2))
    scene.keep(listed.ca.request(2), How(True, message=message))
    scene.clock.pass_s(99)
    scene.ground.beat()
    assert set(extensions_of(listed, 2)) == {oid.OCSP_CRL}
    scene.clock.pass_s(1)
    scene.ground.beat()
    assert scene.again(message) is None
    assert extensions_of(listed, 2) == {}


# --- two hash functions ------------------------------------------------------------------------------


def test_both_hashes_are_answered_where_the_policy_says_so(lab: Lab) -> None:
    """A SHA-256 twin follows each SHA-1 single and says the same; each certificate counts once."""
    lab.serve(both_hashes=True, not_issued="unknown")
    basic = lab.basic(1, 2)
    said = [(item.cert_id.hash_alg, item.cert_id.serial, item.status) for item in basic.singles]
    assert said == [
        (SHA1, serial_of(1), 0),
        (SHA256, serial_of(1), 0),
        (SHA1, serial_of(2), 1),
        (SHA256, serial_of(2), 1),
    ]
    assert {item.cert_id_der for item in basic.singles if item.cert_id.hash_alg == SHA256} == {
        lab.ca.cert_id_der(n, SHA256) for n in (1, 2)
    }
    assert lab.scene.counted() == {"GOOD": 1, "REVOKED": 1}


def test_a_twin_that_was_asked_for_is_not_repeated(lab: Lab) -> None:
    """Requests by SHA-256 stay as they are, and those for both get exactly what they asked."""
    lab.serve(both_hashes=True)
    assert len(lab.basic(1, alg=SHA256).singles) == 1
    both = request_der([lab.ca.cert_id_der(1, SHA1), lab.ca.cert_id_der(1, SHA256)])
    assert [item.cert_id.hash_alg for item in lab.read(lab.scene.ask(both)).singles] == [SHA1, SHA256]


# --- caches ------------------------------------------------------------------------------------------

POLICIES = st.fixed_dictionaries(
    {},
    optional={
        "not_issued": st.sampled_from(["unknown", "unauthorized", "revoked"]),
        "issued_list": st.sampled_from(["complete", "absent"]),
        "unlisted": st.sampled_from(["unknown", "good"]),
        "expired": st.sampled_from(["unknown", "unauthorized", "last"]),
        "archive_cutoff_days": st.sampled_from([0, 1, 400]),
        "invalidity_date": st.booleans(),
        "both_hashes": st.booleans(),
        "cert_hash": st.booleans(),
        "foreign_crl": st.sampled_from([None, (NOW_S - 50, NOW_S + 900), (NOW_S - 5, NOW_S + 100)]),
    },
)
ROWS = st.builds(
    IndexRow,
    st.binary(min_size=12, max_size=12),
    st.sampled_from([DAY - 500, DAY - 1, DAY, DAY, DAY_MAX]),
    st.sampled_from([GOOD, GOOD, GOOD, GOOD, HELD, REVOKED]),
    st.just(2),
    st.just(NOW_S - 60),
    st.sampled_from([0, NOW_S - 90]),
    st.sampled_from([b"", b"", b"h" * 32]),
)


def said_or_refused(served: ServedIssuer, serial: bytes, found: Found, moment: Moment) -> Status | str:
    try:
        return say(served, serial, found, moment)
    except NotAuthoritative as exc:
        return str(exc)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    policy=POLICIES,
    cert_hash=st.booleans(),
    rows=st.lists(st.one_of(ROWS, ROWS, st.sampled_from(Absent)), min_size=4, max_size=12),
)
def test_what_is_said_of_a_good_one_is_said_of_all_that_end_on_its_day(
    lab: Lab, policy: dict[str, Any], cert_hash: bool, rows: list[Found]
) -> None:
    """In the same order, one moment that remembers and one for each that has nothing to remember."""
    lab.issuer = replace(lab.ca.issuer, access="public", crl_url=URL)
    lab.serve(**policy | {"cert_hash": cert_hash, "beside_register": (lab.responder_serial,)})
    standing = lab.scene.ground.standing
    served = standing.access.by_id[1]
    # The responder's own certificate is beside the register.
    serials = itertools.cycle([serial_of(1), bytes.fromhex(lab.responder_serial)])
    shared = Moment(NOW_S, NOW_S + 1, standing, {})
    for serial, row in zip(serials, rows, strict=False):
        fresh = Moment(NOW_S, NOW_S + 1, standing, {})
        assert said_or_refused(served, serial, row, shared) == said_or_refused(served, serial, row, fresh)


STEPS = st.one_of(
    st.tuples(
        st.just("change"),
        st.sampled_from(
            [
                ChangeKind.ISSUED,
                ChangeKind.REVOKED,
                ChangeKind.HELD,
                ChangeKind.RELEASED,
                ChangeKind.REASON_CHANGED,
                ChangeKind.CA_KEY_EVENT,
                ChangeKind.CERTIFICATE_HASH,
            ]
        ),
        st.integers(1, 3),
        st.integers(1, 2),
        st.sampled_from([DAY - 2, DAY, DAY + 900]),
        st.sampled_from([b"h" * 32, b"i" * 32]),
    ),
    st.tuples(st.just("policy"), POLICIES),
    st.tuples(st.just("pass"), st.integers(1, 40)),
    st.tuples(st.just("fold")),
    st.tuples(st.just("ask"), st.lists(st.integers(1, 3), min_size=1, max_size=2)),
)


def said_by(answer: bytes) -> object:
    """What an answer says, apart from when it was made and from the random in its signature."""
    response = parse_response(body(answer))
    if response.basic is None:
        return response.status
    basic = response.basic
    return basic.extended_revoke, [
        (
            item.cert_id,
            item.status,
            item.revocation_time_s,
            item.reason,
            [extension for extension in item.extensions if extension.oid != oid.OCSP_ARCHIVE_CUTOFF],
            [extension.oid for extension in item.extensions],
        )
        for item in basic.singles
    ]


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    print_blob=True,
)
@given(steps=st.lists(STEPS, min_size=3, max_size=14))
def test_what_is_remembered_is_what_would_be_said_anew(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[Any, ...]]
) -> None:
    """After any acts, under any policies: cache and memo say what a path without memory says."""
    with closing(Scene(tmp_path_factory.mktemp("lab"))) as scene:
        lab = Lab(scene, {"not_issued": "revoked"})
        for step in steps:
            kind, *values = step
            if kind == "change":
                change, n, issuer_id, day, sha256 = values
                # A change of another kind tells none.
                told = sha256 if change in (ChangeKind.ISSUED, ChangeKind.CERTIFICATE_HASH) else b""
                scene.ground.change(change, n, issuer_id, reason=2, day=day, sha256=told)
            elif kind == "policy":
                lab.issuer = replace(lab.ca.issuer, access="public", not_issued="revoked")
                lab.serve(**values[0])
            elif kind == "pass":
                scene.clock.pass_s(values[0])
                scene.ground.beat()
            elif kind == "fold":
                scene.ground.fold()
            for numbers in [values[0]] if kind == "ask" else [[1], [2], [3], [3, 1]]:
                request = lab.ca.request(*numbers)
                message = get_request(request)
                anew = scene.ask_anew(request, Somebody())
                repeated = scene.again(message)
                if repeated is not None:
                    assert said_by(repeated) == said_by(anew)
                assert said_by(scene.keep(request, How(True, message=message))) == said_by(anew)

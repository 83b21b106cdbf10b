"""What published CRLs say, read back for a restore."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from ca_cases import make_issuing
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from store_cases import START_MS

from certstatus import clock, oid
from certstatus.crl import encode_certificate_list, encode_tbs_cert_list
from certstatus.crl_entry import CRLEntry
from certstatus.crl_reason import CRLReason
from certstatus.der import integer_content
from certstatus.distribution_point import encode_distribution_points, encode_issuing_distribution_point
from issuance import profiles
from issuance.ca_keys import CAKeyFolder
from issuance.issue import Issuing
from issuance.issuers import issuer_by_id, key_id
from issuance.published_crls import PublishedEntry, read_published
from issuance.store import Store

_NOW_S = START_MS // 1000


@pytest.mark.parametrize("number", [1, 0x80, (1 << 159) - 1, -1, -128, -32768])
def test_a_serial_number_is_read_as_it_stands(
    sqlite_store: Store, keys: CAKeyFolder, tmp_path: Path, number: int
) -> None:
    """Whatever its sign, as imported CAs may have them: by other octets a restore would not find it."""
    issuing = make_issuing(sqlite_store, keys, "OTHER")
    serial = integer_content(number)
    tbs_der = encode_tbs_cert_list(
        issuer_name_der=issuing.issuer.names_der[0],
        signature_algorithm_der=oid.ECDSA_WITH_SHA256_DER,
        this_update_s=_NOW_S,
        next_update_s=_NOW_S + 86_400,
        entries=[CRLEntry(serial, _NOW_S - 60, 1)],
        crl_number=1,
        aki_key_id=key_id(issuing.profile.ca_certificate),
    )
    assert isinstance(issuing.ca_key, ec.EllipticCurvePrivateKey)
    signature = issuing.ca_key.sign(tbs_der, ec.ECDSA(hashes.SHA256()))
    (tmp_path / "1.crl").write_bytes(encode_certificate_list(tbs_der, oid.ECDSA_WITH_SHA256_DER, signature))
    state = read_published([tmp_path], [issuer_by_id(sqlite_store, 1)], 0)[1]
    assert state.crls == 1
    assert set(state.revoked) == {serial}


def _write(folder: Path, issuing: Issuing, number: int, entries: list[CRLEntry], base: int | None) -> bytes:
    """Write a CRL as it is published; return it."""
    tbs_der = encode_tbs_cert_list(
        issuer_name_der=issuing.issuer.names_der[0],
        signature_algorithm_der=oid.ECDSA_WITH_SHA256_DER,
        this_update_s=_NOW_S + number,
        next_update_s=_NOW_S + 86_400,
        entries=entries,
        crl_number=number,
        aki_key_id=key_id(issuing.profile.ca_certificate),
        base_crl_number=base,
    )
    assert isinstance(issuing.ca_key, ec.EllipticCurvePrivateKey)
    signature = issuing.ca_key.sign(tbs_der, ec.ECDSA(hashes.SHA256()))
    crl_der = encode_certificate_list(tbs_der, oid.ECDSA_WITH_SHA256_DER, signature)
    (folder / f"{number}{'' if base is None else '.delta'}.crl").write_bytes(crl_der)
    return crl_der


class Twin:
    """What CRLs say was revoked and held, read by `cryptography`, entry by entry."""

    def __init__(self) -> None:
        self.revoked: dict[bytes, PublishedEntry] = {}
        self.held: dict[bytes, PublishedEntry] = {}

    def follow(self, crl_der: bytes, number: int) -> None:
        """Take over the next CRL."""
        crl = x509.load_der_x509_crl(crl_der)
        if not any(isinstance(extension.value, x509.DeltaCRLIndicator) for extension in crl.extensions):
            self.held.clear()
        for entry in crl:
            serial, reason, invalidity_s = integer_content(entry.serial_number), None, 0
            for extension in entry.extensions:
                if isinstance(extension.value, x509.CRLReason):
                    reason = CRLReason[extension.value.reason.name.upper()]
                elif isinstance(extension.value, x509.InvalidityDate):
                    invalidity_s = int(extension.value.invalidity_date_utc.timestamp())
            found = PublishedEntry(
                None if reason is None else int(reason),
                int(entry.revocation_date_utc.timestamp()),
                invalidity_s,
                number,
            )
            self.held.pop(serial, None)
            if reason == CRLReason.CERTIFICATE_HOLD:
                self.held[serial] = found
            elif reason != CRLReason.REMOVE_FROM_CRL:
                self.revoked.setdefault(serial, found)


@pytest.mark.parametrize("seed", range(4))
def test_what_crls_say_is_what_another_reader_finds(
    sqlite_store: Store, keys: CAKeyFolder, tmp_path: Path, seed: int
) -> None:
    """Complete ones and deltas in order of their numbers, holds that come and go; some with serial numbers
    that no row has room for."""
    issuing, drawn, twin = make_issuing(sqlite_store, keys, "OTHER"), random.Random(seed), Twin()
    numbers = [3, 0x80, (1 << 159) - 1, -5, *range(1000, 1020)] + ([(1 << 200) + 9] if seed % 2 else [])
    for number in range(1, 12):
        base = number - 1 if number % 3 else None
        reasons = [None, 1, 4, 6] + ([8] if base is not None else [])
        entries = [
            CRLEntry(
                integer_content(serial),
                _NOW_S - drawn.randrange(1000),
                drawn.choice(reasons),
                drawn.choice([None, _NOW_S - 5000]),
            )
            for serial in drawn.sample(numbers, 9)
        ]
        twin.follow(_write(tmp_path, issuing, number, entries, base), number)
    state = read_published([tmp_path], [issuer_by_id(sqlite_store, 1)], 0)[1]
    assert state.revoked == twin.revoked
    assert state.held == twin.held
    assert twin.held
    assert (state.crls, state.numbers) == (11, {"all": 11})


@pytest.mark.parametrize(
    ("place", "scope"),
    [
        ("other/g1/all", "all"),
        ("archive/other/g1/dp/0123456789ab", "dp/0123456789ab"),
        ("other/g1/sign/g2/x", "sign/g2/x"),
        ("collected", "all"),
        ("other/g1", "all"),
        ("sign/g1/m1/13104", "all"),
    ],
)
def test_a_crl_without_a_point_of_ours_is_of_the_scope_of_its_folder(
    sqlite_store: Store, keys: CAKeyFolder, tmp_path: Path, place: str, scope: str
) -> None:
    """So a taken-over CA's CRLs are told apart, whose points keep the names they had."""
    issuing = make_issuing(sqlite_store, keys, "OTHER")
    theirs = encode_issuing_distribution_point((None, ("http://old.example/ca.crl",)))
    for number, idp_der in ((7, None), (8, theirs)):
        tbs_der = encode_tbs_cert_list(
            issuer_name_der=issuing.issuer.names_der[0],
            signature_algorithm_der=oid.ECDSA_WITH_SHA256_DER,
            this_update_s=_NOW_S,
            next_update_s=_NOW_S + 86_400,
            entries=[],
            crl_number=number,
            aki_key_id=key_id(issuing.profile.ca_certificate),
            issuing_distribution_point_der=idp_der,
        )
        assert isinstance(issuing.ca_key, ec.EllipticCurvePrivateKey)
        signature = issuing.ca_key.sign(tbs_der, ec.ECDSA(hashes.SHA256()))
        path = tmp_path / place / f"{number}.crl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_certificate_list(tbs_der, oid.ECDSA_WITH_SHA256_DER, signature))
        state = read_published([tmp_path], [issuer_by_id(sqlite_store, 1)], 0)[1]
        assert state.numbers == {scope: number}


@pytest.mark.parametrize("scope", ["all", "m1/13104", "n64/b17"])
def test_a_points_name_says_generation_and_scope(scope: str) -> None:
    """What goes into it comes out again; other names say nothing."""
    ca = profiles.ca_name("SIGN", "Organization", "")
    made, _ = profiles.crl_names(ca, "SIGN", 12, "http://status.example", scope).complete
    assert made is not None
    parts = parse_name(made)
    assert profiles.scope_of_point(parts) == (12, scope)
    for cut in (parts.rdns[:-1], parts.rdns[:-2], parts.rdns[:2], parts.rdns[-1:]):
        assert profiles.scope_of_point(x509.Name(cut)) is None


def parse_name(name_der: bytes) -> x509.Name:
    """A Name read by `cryptography`, which does so only within something else."""
    value_der = encode_distribution_points([(name_der, ())])
    csr = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .add_extension(
            x509.UnrecognizedExtension(x509.ObjectIdentifier(oid.CRL_DISTRIBUTION_POINTS), value_der),
            critical=False,
        )
        .sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    )
    read = x509.load_der_x509_csr(csr.public_bytes(Encoding.DER))
    found = read.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    (name,) = found[0].full_name or []
    assert isinstance(name, x509.DirectoryName)
    return name.value


def _put(
    folder: Path,
    issuing: Issuing,
    scope: str,
    number: int,
    reasons: dict[int, int],
    *,
    at_s: int = 0,
    base: int | None = None,
) -> None:
    """Publish a CRL of a scope: the serial numbers with these reasons, *at_s* after the beginning."""
    tbs_der = encode_tbs_cert_list(
        issuer_name_der=issuing.issuer.names_der[0],
        signature_algorithm_der=oid.ECDSA_WITH_SHA256_DER,
        this_update_s=_NOW_S + at_s,
        next_update_s=_NOW_S + 86_400,
        entries=[CRLEntry(integer_content(serial), _NOW_S - 60, why) for serial, why in reasons.items()],
        crl_number=number,
        aki_key_id=key_id(issuing.profile.ca_certificate),
        base_crl_number=base,
    )
    assert isinstance(issuing.ca_key, ec.EllipticCurvePrivateKey)
    signature = issuing.ca_key.sign(tbs_der, ec.ECDSA(hashes.SHA256()))
    path = folder / "other/g1" / scope / f"{number}{'' if base is None else '.delta'}.crl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_certificate_list(tbs_der, oid.ECDSA_WITH_SHA256_DER, signature))


def _held(store: Store, folder: Path) -> set[int]:
    state = read_published([folder], [issuer_by_id(store, 1)], 0)[1]
    return {int.from_bytes(serial, "big") for serial in state.held}


def test_the_list_of_one_partition_releases_nobody_of_another(
    sqlite_store: Store, keys: CAKeyFolder, tmp_path: Path
) -> None:
    """A complete CRL lists all holds of its scope, and says nothing of those of others."""
    issuing = make_issuing(sqlite_store, keys, "OTHER")
    for number in (1, 2):
        _put(tmp_path, issuing, "all", number, {5: 6, 6: 6})
        _put(tmp_path, issuing, "m1/13104", number, {5: 6})
        _put(tmp_path, issuing, "m1/13113", number, {6: 6})
        _put(tmp_path, issuing, "m1/14100", number, {})
    assert _held(sqlite_store, tmp_path) == {5, 6}


@pytest.mark.parametrize("newer", ["all", "m1/13104"])
def test_the_newest_list_of_who_is_on_two_says_who_is_held(
    sqlite_store: Store, keys: CAKeyFolder, tmp_path: Path, newer: str
) -> None:
    """Held or released since: what the older one of the two says does not count."""
    issuing = make_issuing(sqlite_store, keys, "OTHER")
    for scope in ("all", "m1/13104"):
        _put(tmp_path, issuing, scope, 1, {5: 6, 7: 6})
    _put(tmp_path, issuing, newer, 2, {6: 6, 7: 6}, at_s=60)
    _put(tmp_path, issuing, newer, 3, {7: 8}, at_s=120, base=2)
    assert _held(sqlite_store, tmp_path) == {6}


@pytest.mark.parametrize(
    ("name", "value", "instead"),
    [
        # One kind of extension twice.
        ("1.2.3.5", "0500", ("06032a0305", "06032a0304")),
        # An issuerAltName with an x400Address.
        ("2.5.29.18", "3002a300", ("", "")),
    ],
)
def test_a_stray_crl_that_cannot_be_read_is_passed_over(
    sqlite_store: Store, keys: CAKeyFolder, tmp_path: Path, name: str, value: str, instead: tuple[str, str]
) -> None:
    """Somebody else's file in the folder stops no restore, whatever its extensions are."""
    issuing = make_issuing(sqlite_store, keys, "OTHER")
    _put(tmp_path, issuing, "all", 1, {5: 1})
    builder = x509.CertificateRevocationListBuilder().issuer_name(x509.Name([]))
    builder = builder.last_update(clock.utc(_NOW_S)).next_update(clock.utc(_NOW_S + 60))
    for text, value_der in (("1.2.3.4", b"\5\0"), (name, bytes.fromhex(value))):
        extension = x509.UnrecognizedExtension(x509.ObjectIdentifier(text), value_der)
        builder = builder.add_extension(extension, critical=False)
    made = builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    old, new = (bytes.fromhex(text) for text in instead)
    stray = made.public_bytes(Encoding.DER).replace(old, new)
    with pytest.raises((x509.DuplicateExtension, x509.UnsupportedGeneralNameType)):
        len(x509.load_der_x509_crl(stray).extensions)
    (tmp_path / "stray.crl").write_bytes(stray)
    state = read_published([tmp_path], [issuer_by_id(sqlite_store, 1)], 0)[1]
    assert (state.crls, len(state.revoked)) == (1, 1)

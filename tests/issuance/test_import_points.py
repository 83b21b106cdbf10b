"""Partitioned CAs: one part's CRL is not the whole list; and what is issued here names the CRLs' point."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path

import pytest
from ca_cases import new_key
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID
from divided_cases import published
from import_cases import (
    END_S,
    NOW_MS,
    NOW_S,
    PEM,
    OldCA,
    dump,
    moment,
    name,
    point_of,
    run,
    scope_of,
)
from store_cases import INDEX_KEY

from certstatus import oid
from certstatus.der import generalized_time
from certstatus.errors import ImportRefused
from issuance.ca_keys import CAKeyFolder
from issuance.import_run import follow_crl
from issuance.issue import Issuing, issue
from issuance.issuers import issuer_of
from issuance.revoke import FoundCertificate, revoke
from issuance.store import Store
from publisher.crl_plan import Due
from publisher.crl_publish import CRLPublisher
from publisher.crl_scopes import CRLScope

ONE = x509.UniformResourceIdentifier("http://old.example/1.crl")
TWO = x509.UniformResourceIdentifier("http://old.example/2.crl")
ALL = x509.DirectoryName(name("all certificates"))


@pytest.fixture
def old(tmp_path: Path) -> OldCA:
    """A CA that somebody else had."""
    return OldCA(tmp_path / "old")


# --- a part is not the whole -------------------------------------------------------------------------


def test_a_crl_of_one_point_is_not_the_list_of_all(store: Store, keys: CAKeyFolder, old: OldCA) -> None:
    """A certificate of another partition: refused, with the CRL, the point and the certificate named."""
    folder = old.write_certificates(1, points=[point_of(ONE)])
    old.write_certificates(2, points=[point_of(TWO)])
    before = dump(store)
    order = old.order(
        certificates=(folder,), crl_paths=(old.write_crl({3: None}, 7, NOW_S - 10, scope_of(ONE)),)
    )
    with pytest.raises(ImportRefused) as refused:
        run(store, keys, order)
    said = str(refused.value)
    assert said.startswith(f"{old.folder}/ca.crl: issuing distribution point: the CRL is of the point")
    assert "http://old.example/1.crl alone, which certificate 02 in" in said
    assert "0002.pem does not name" in said
    assert dump(store) == before


def test_a_certificate_without_points_is_not_covered_by_a_crl_of_one(
    store: Store, keys: CAKeyFolder, old: OldCA
) -> None:
    """Also one of version 1, which cannot have any."""
    crl = old.write_crl({3: None}, 7, NOW_S - 10, scope_of(ONE))
    with pytest.raises(ImportRefused, match="which certificate 01 in"):
        run(store, keys, old.order(certificates=(old.write_certificates(1),), crl_paths=(crl,)))


@pytest.mark.parametrize("relative", [False, True])
def test_a_crl_whose_point_every_certificate_names_is_taken(
    store: Store, keys: CAKeyFolder, old: OldCA, relative: bool
) -> None:
    """By one name among several, of any kind; and it may be of nothing but users' certificates."""
    part = x509.RelativeDistinguishedName([x509.NameAttribute(NameOID.COMMON_NAME, "whole")])
    points = [point_of(ONE), point_of(TWO, ALL)]
    scope = scope_of(ALL)
    if relative:
        points.append(x509.DistributionPoint(None, part, None, None))
        scope = scope_of(relative_name=part)
    crl = old.write_crl({3: None}, 7, NOW_S - 10, scope)
    order = old.order(certificates=(old.write_certificates(1, 2, points=points),), crl_paths=(crl,))
    assert run(store, keys, order).difference.issued == 3


def test_a_crl_of_no_point_is_the_list_of_all(store: Store, keys: CAKeyFolder, old: OldCA) -> None:
    """Whatever the certificates name; and an index says nothing of points."""
    folder = old.write_certificates(1, points=[point_of(ONE)])
    old.write_certificates(2, points=[point_of(TWO)])
    crl = old.write_crl({3: None}, 7, NOW_S - 10, scope_of())
    run(store, keys, old.order(certificates=(folder,), crl_paths=(crl,)))


def test_a_followed_ca_that_begins_to_partition_is_not_followed_into_a_part(
    store: Store, keys: CAKeyFolder, old: OldCA
) -> None:
    """The old list stands until certificates show that they all name the new point."""
    folder = old.write_certificates(1, points=[point_of(ONE)])
    whole = old.write_crl({3: None}, 7, NOW_S - 100)
    run(store, keys, old.order(key_path=None, certificates=(folder,), crl_paths=(whole,)))
    issuer = issuer_of(store, "OLD")
    part = old.crl_der({3: None}, 8, NOW_S - 50, scope_of(ONE))
    before = dump(store)
    with pytest.raises(ImportRefused, match=r"1\.crl alone, and the one taken over last of no point"):
        follow_crl(store, issuer, INDEX_KEY, part, "polled", keys.folder.parent, NOW_MS)
    (old.folder / "part.crl").write_bytes(part)
    order = old.order(key_path=None, crl_paths=(old.folder / "part.crl",))
    with pytest.raises(ImportRefused, match="import it with the certificates"):
        run(store, keys, order)
    assert dump(store) == before
    run(store, keys, old.order(key_path=None, certificates=(folder,), crl_paths=(old.folder / "part.crl",)))
    # From then on it is the one that is followed; another is not.
    newer = old.crl_der({3: None, 4: None}, 9, NOW_S - 40, scope_of(ONE))
    issuer = issuer_of(store, "OLD")
    assert follow_crl(store, issuer, INDEX_KEY, newer, "polled", keys.folder.parent, NOW_MS) is not None
    other = old.crl_der({3: None}, 10, NOW_S - 30, scope_of(TWO))
    with pytest.raises(ImportRefused, match=r"2\.crl alone"):
        follow_crl(store, issuer_of(store, "OLD"), INDEX_KEY, other, "polled", keys.folder.parent, NOW_MS)
    # One that is of all again is no less than what was there.
    again = old.crl_der({3: None, 4: None}, 11, NOW_S - 20)
    assert follow_crl(store, issuer_of(store, "OLD"), INDEX_KEY, again, "polled", keys.folder.parent, NOW_MS)


def test_what_an_old_crl_says_of_expired_certificates_is_not_vouched_for(
    sqlite_store: Store, keys: CAKeyFolder, old: OldCA
) -> None:
    """It may keep them since long ago; ours do since the import, for only since then we know."""
    kept = x509.UnrecognizedExtension(
        x509.ObjectIdentifier(oid.EXPIRED_CERTS_ON_CRL), generalized_time(NOW_S - 10**8)
    )
    builder = x509.CertificateRevocationListBuilder().issuer_name(name(old.common))
    builder = builder.last_update(moment(NOW_S - 1000)).next_update(moment(NOW_S + 100_000))
    builder = builder.add_extension(kept, critical=False).add_extension(x509.CRLNumber(7), critical=False)
    path = old.folder / "kept.crl"
    path.write_bytes(builder.sign(old.key, hashes.SHA256()).public_bytes(PEM))
    policy = dataclasses.replace(old.order().policy, expired_entries="keep")
    order = old.order(policy=policy, crl_paths=(path,), certificates=(old.write_certificates(1),))
    run(sqlite_store, keys, order)
    crl, _ = published(sqlite_store, keys)["all"]
    assert crl.expired_certs_from_s == NOW_S + 1


# --- what is issued here -----------------------------------------------------------------------------

_RELATIVE = x509.RelativeDistinguishedName([x509.NameAttribute(NameOID.COMMON_NAME, "whole")])


@pytest.mark.parametrize(
    "scope",
    [None, scope_of(), scope_of(ONE), scope_of(ALL), scope_of(ALL, ONE), scope_of(relative_name=_RELATIVE)],
    ids=["no IDP", "no point", "URI", "directory name", "both", "relative"],
)
def test_what_a_taken_over_ca_issues_is_covered_by_its_crls(
    store: Store, keys: CAKeyFolder, old: OldCA, tmp_path: Path, scope: x509.IssuingDistributionPoint | None
) -> None:
    """OpenSSL finds old and new certificates on the CRLs published here: good, and revoked once they are."""
    point = point_of(*(scope.full_name or [])) if scope is not None and scope.full_name else None
    if scope is not None and scope.relative_name is not None:
        point = x509.DistributionPoint(None, _RELATIVE, None, None)
    folder = old.write_certificates(1, points=[] if point is None else [point])
    crl = old.write_crl({3: None}, 7, NOW_S - 10, *([] if scope is None else [scope]))
    run(store, keys, old.order(certificates=(folder,), crl_paths=(crl,)))
    issuing = Issuing.of(issuer_of(store, "OLD"), keys.private_key(issuer_of(store, "OLD").issuer_id))
    issued = issue(store, issuing, INDEX_KEY, new_key(), NOW_MS, not_after_s=END_S)
    pem = tmp_path / "new.pem"
    certificate = x509.load_der_x509_certificate(issued.certificate_der)
    pem.write_bytes(certificate.public_bytes(PEM))
    places = certificate.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    if scope is None or scope.relative_name is None:
        # The place where the CRLs of the taken-over CA are now.
        ours = x509.UniformResourceIdentifier("http://status.example:8080/crl/old/g1/all/complete.crl")
        assert ours in (places[0].full_name or [])
        assert set(scope.full_name or [] if scope else []) <= set(places[0].full_name or [])
    for path in (pem, folder / "0001.pem"):
        assert ": OK" in verified(store, keys, old, tmp_path, path)
    issuer_id = issuing.issuer.issuer_id
    revoke(store, FoundCertificate(issuer_id, "OLD", issued.serial), NOW_MS + 5000, reason=1)
    said = verified(store, keys, old, tmp_path, pem, now_ms=NOW_MS + 60_000)
    assert "certificate revoked" in said
    # By the delta as well: to the same end.
    assert "certificate revoked" in verified(
        store, keys, old, tmp_path, pem, now_ms=NOW_MS + 120_000, deltas=True
    )


def verified(
    store: Store,
    keys: CAKeyFolder,
    old: OldCA,
    folder: Path,
    pem: Path,
    now_ms: int = NOW_MS,
    *,
    deltas: bool = False,
) -> str:
    """Publish CRLs, and return what OpenSSL says of a certificate by them."""
    times = iter(range(now_ms, now_ms + 10_000_000, 10))
    publisher = CRLPublisher(
        store, keys, keys.folder.parent, now_ms=lambda: next(times), pause=lambda _s: None
    )
    fence = store.acquire_publisher("crl", 1 << 40, now_ms, "test")
    made = publisher.issue(CRLScope(issuer_of(store, "OLD")), Due(not deltas, deltas), fence)
    named: list[str | Path] = []
    for item in made:
        path = folder / f"{item.number}-{item.kind}.pem"
        path.write_bytes(x509.load_der_x509_crl(item.file.read_bytes()).public_bytes(PEM))
        named += ["-CRLfile", path]
    if deltas:
        base = next(item for item in sorted(folder.glob("*-complete.pem")))
        named += ["-CRLfile", base, "-extended_crl", "-use_deltas"]
    at = ["-attime", str(now_ms // 1000 + 5)]
    return _openssl_verify(*at, "-crl_check", "-CAfile", old.ca_path, *named, pem)


def _openssl_verify(*words: str | Path) -> str:

    done = subprocess.run(
        ["openssl", "verify", *map(str, words)], capture_output=True, text=True, check=False, timeout=60
    )
    return done.stdout + done.stderr

"""Issuers: their keys, certificates, generations, policies, and the table the responders get."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import stat
from pathlib import Path

import pytest
import sqlalchemy as sa
from ca_cases import issuer_config, make_issuing, openssl, write_pem
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from import_cases import EDI_PARTY_NAME
from store_cases import START_MS

from certstatus import clock
from certstatus.beat import Pointer
from certstatus.changes import ChangeKind, unpack_change
from certstatus.documents import open_document
from certstatus.errors import (
    ConfigError,
    IllegalTransition,
    KeyFileError,
    PolicyViolation,
    UnknownCertificate,
)
from certstatus.issuer_table import read_issuer_table
from issuance import profiles, schema
from issuance.ca_keys import PASSPHRASE_VARIABLE, CAKeyFolder, load_key
from issuance.issue import Issuing
from issuance.issuers import (
    IssuerPolicy,
    add_ca_certificate,
    create_issuer,
    issuer_by_id,
    issuer_of,
    issuer_table_document,
    issuers,
    set_policy,
)
from issuance.revoke import record_ca_key_event
from issuance.store import Store

# 2027-01-15T08:00:00Z is 17:00 in Japan; ten years later the day ends at 14:59:59Z.
_CA_ENDS_S = 2_115_644_399
_SIGNATURES = {
    "p256": "ecdsa-with-SHA256",
    "p384": "ecdsa-with-SHA384",
    "rsa2048": "sha256WithRSAEncryption",
    "rsa3072": "sha256WithRSAEncryption",
    "rsa4096": "sha256WithRSAEncryption",
}


@pytest.mark.parametrize("algorithm", sorted(_SIGNATURES))
def test_a_ca_certificate_is_what_the_profile_says(
    sqlite_store: Store, keys: CAKeyFolder, tmp_path: Path, algorithm: str
) -> None:
    """Every key algorithm gives a self-signed CA certificate that openssl reads as the profile has it."""
    issuing = make_issuing(sqlite_store, keys, key=algorithm)
    certificate = issuing.profile.ca_certificate
    path = write_pem(tmp_path / "ca.pem", issuing.issuer.certificates_der[0])
    text = openssl("x509", "-in", path, "-noout", "-text")
    assert f"Signature Algorithm: {_SIGNATURES[algorithm]}" in text
    assert "X509v3 Basic Constraints: critical\n                CA:TRUE\n" in text
    assert "X509v3 Key Usage: critical\n                Certificate Sign, CRL Sign\n" in text
    assert "X509v3 Subject Key Identifier" in text
    assert "C = JP, O = certstatus TEST, OU = for digital signature" in text
    assert openssl(
        "verify", "-x509_strict", "-check_ss_sig", "-attime", str(START_MS // 1000), "-CAfile", path, path
    )
    assert int(certificate.not_valid_before_utc.timestamp()) == START_MS // 1000
    assert int(certificate.not_valid_after_utc.timestamp()) == _CA_ENDS_S
    assert certificate.not_valid_after_utc.strftime("%H:%M:%S") == "14:59:59"


def test_the_two_services_have_names_of_their_own(sqlite_store: Store, keys: CAKeyFolder) -> None:
    """SIGN and AUTH never share a name or a key; both say TEST."""
    sign, auth = make_issuing(sqlite_store, keys, "SIGN"), make_issuing(sqlite_store, keys, "AUTH")
    assert sign.issuer.name_der != auth.issuer.name_der
    assert sign.issuer.spki_der != auth.issuer.spki_der
    assert "OU=for user authentication" in auth.profile.ca_certificate.subject.rfc4514_string()
    assert b"TEST" in sign.issuer.name_der
    assert b"TEST" in auth.issuer.name_der


def test_generations_share_their_name_and_nothing_else(store: Store, keys: CAKeyFolder) -> None:
    """A second generation has the next number, the same name byte for byte, and another key and key id."""
    first, second = make_issuing(store, keys), make_issuing(store, keys, key="p384")
    assert (first.issuer.generation, second.issuer.generation) == (1, 2)
    assert first.issuer.name_der == second.issuer.name_der
    assert first.issuer.spki_der != second.issuer.spki_der
    assert first.issuer.key_id != second.issuer.key_id
    assert issuer_of(store, "SIGN").issuer_id == second.issuer.issuer_id
    assert issuer_of(store, "SIGN", 1).issuer_id == first.issuer.issuer_id
    with pytest.raises(UnknownCertificate, match="generation 3"):
        issuer_of(store, "SIGN", 3)
    with pytest.raises(PolicyViolation, match="has another"):
        make_issuing(store, keys, organization="Somebody else TEST")
    with pytest.raises(PolicyViolation, match="already that of SIGN"):
        make_issuing(store, keys, "OTHER", organizational_unit="for digital signature")
    assert len(issuers(store)) == 2
    assert len(list(keys.folder.glob("*.key"))) == 2


def test_sign_and_auth_allow_no_hold(sqlite_store: Store, keys: CAKeyFolder) -> None:
    """The statutory services refuse a policy with hold, at creation and later; others may have it."""
    for service in ("SIGN", "AUTH"):
        with pytest.raises(PolicyViolation, match="the Act knows no hold"):
            make_issuing(sqlite_store, keys, service, hold=True)
    sign = make_issuing(sqlite_store, keys, "SIGN").issuer
    with pytest.raises(PolicyViolation, match="the Act knows no hold"):
        set_policy(sqlite_store, sign.issuer_id, dataclasses.replace(sign.policy, hold=True), START_MS)
    assert make_issuing(sqlite_store, keys, "OTHER", hold=True).issuer.policy.hold


def test_crl_names_are_http_only(sqlite_store: Store, keys: CAKeyFolder) -> None:
    """An https base is refused: fetching a CRL must not need a CRL."""
    with pytest.raises(ConfigError, match="http://"):
        create_issuer(sqlite_store, keys, issuer_config("SIGN", base_url="https://status.example"), START_MS)


def test_the_issuer_table_is_published_with_the_change_that_made_it(store: Store, keys: CAKeyFolder) -> None:
    """Table, generation and ISSUERS change appear in one beat, and the table says what the register says."""
    sign, auth = make_issuing(store, keys, "SIGN"), make_issuing(store, keys, "AUTH", access="public")
    basis = store.beat(START_MS, [])
    document = issuer_table_document(store)
    pointer = basis.publications["issuers"]
    assert pointer == Pointer(basis.cut.seq, hashlib.sha256(document).digest())
    assert (
        unpack_change(store.changes_after(basis.cut.seq - 1, basis.cut.seq, 1)[0].packed).kind
        == ChangeKind.ISSUERS
    )
    table = read_issuer_table(open_document(document, pointer))
    assert [(item.issuer_id, item.service, item.access) for item in table] == [
        (1, "SIGN", "registered"),
        (2, "AUTH", "public"),
    ]
    assert table[0].spki_der == sign.issuer.spki_der
    assert table[0].key_id == sign.issuer.key_id
    assert table[1].names_der == (auth.issuer.name_der,)
    assert table[1].certificates_der == auth.issuer.certificates_der
    assert table[0].ca_key_event_ms is None


def test_a_policy_can_be_changed_and_reaches_the_table(store: Store, keys: CAKeyFolder) -> None:
    """A new policy is a change of its own and stands in the next table."""
    record = make_issuing(store, keys).issuer
    before = store.state().seq
    set_policy(
        store,
        record.issuer_id,
        dataclasses.replace(record.policy, expired="last", validity_good_s=300),
        START_MS,
    )
    assert store.state().seq == before + 1
    assert issuer_by_id(store, record.issuer_id).policy.validity_good_s == 300
    publication = store.publication("issuers")
    assert publication is not None
    assert b'"expired":"last"' in issuer_table_document(store)
    assert publication.generation == before + 1


def test_a_policy_written_by_an_older_version_has_defaults(sqlite_store: Store, keys: CAKeyFolder) -> None:
    """A key that was not known when the policy was kept reads as the configuration's default."""
    policy = make_issuing(sqlite_store, keys).issuer.policy
    kept = re.sub(r'"lapse_period_s": \d+', '"lapse_period_s": 5', policy.as_json())
    assert IssuerPolicy.from_json(kept).lapse_period_s == 5
    shortened = re.sub(r', "lapse_period_s": \d+', "", policy.as_json())
    assert IssuerPolicy.from_json(shortened) == policy


def test_a_renewed_ca_certificate_joins_its_issuer(store: Store, keys: CAKeyFolder) -> None:
    """A later certificate on the same key and name becomes the first in the table; any other is refused."""
    issuing = make_issuing(store, keys)
    other = make_issuing(store, keys, "AUTH")
    renewed = profiles.sign_ca_certificate(
        issuing.ca_key, issuing.profile.ca_certificate.subject, START_MS // 1000 + clock.DAY_S
    ).public_bytes(serialization.Encoding.DER)
    add_ca_certificate(store, 1, renewed, START_MS)
    assert issuer_by_id(store, 1).certificates_der == (renewed, issuing.issuer.certificates_der[0])
    assert (
        read_issuer_table(
            open_document(issuer_table_document(store), store.beat(START_MS, []).publications["issuers"])
        )[0].certificates_der[0]
        == renewed
    )
    with pytest.raises(PolicyViolation, match="another key"):
        add_ca_certificate(store, 1, other.issuer.certificates_der[0], START_MS)
    own = issuing.profile.ca_certificate
    odd = (
        x509.CertificateBuilder()
        .subject_name(own.subject)
        .issuer_name(own.subject)
        .public_key(own.public_key())
        .serial_number(78)
        .not_valid_before(own.not_valid_before_utc)
        .not_valid_after(own.not_valid_after_utc)
        .add_extension(EDI_PARTY_NAME, critical=False)
        .sign(issuing.ca_key, hashes.SHA256())
    )
    with pytest.raises(PolicyViolation, match="extensions cannot be read"):
        add_ca_certificate(store, 1, odd.public_bytes(serialization.Encoding.DER), START_MS)


def test_the_table_says_when_the_ca_key_was_lost(store: Store, keys: CAKeyFolder) -> None:
    """A CA-key event and the table that names it have one number; the issuer signs nothing afterwards."""
    issuing = make_issuing(store, keys)
    recorded = record_ca_key_event(store, 1, START_MS + 5_000, "key leaked")
    publication = store.publication("issuers")
    assert publication is not None
    assert publication.generation == recorded.seq
    assert b'"ca_key_event_ms":1800000005000' in issuer_table_document(store)
    with pytest.raises(IllegalTransition, match="issues nothing since"):
        Issuing.of(issuer_by_id(store, 1), issuing.ca_key)


# --- key files ---------------------------------------------------------------------------------------


def test_ca_keys_lie_encrypted_and_for_their_owner_only(sqlite_store: Store, keys: CAKeyFolder) -> None:
    """The file holds an encrypted PKCS#8 key, mode 600, that the passphrase opens."""
    issuing = make_issuing(sqlite_store, keys)
    path = keys.path(1)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_bytes().startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
    again = load_key(path, keys.passphrase)
    assert again.public_key() == issuing.ca_key.public_key()
    for name in ("store.db", "store.db-wal"):
        content = (keys.folder.parent / name).read_bytes()
        secret = issuing.ca_key.private_numbers()
        assert getattr(secret, "private_value", 0).to_bytes(32, "big") not in content


def test_a_key_file_of_no_use_is_refused(sqlite_store: Store, keys: CAKeyFolder, tmp_path: Path) -> None:
    """Absent, readable by others, wrong passphrase, plain, damaged: each has its own message."""
    make_issuing(sqlite_store, keys)
    path = keys.path(1)
    with pytest.raises(KeyFileError, match="No such file"):
        keys.private_key(7)
    with pytest.raises(KeyFileError, match="passphrase does not open"):
        load_key(path, lambda: b"wrong")
    plain = tmp_path / "plain.key"
    plain.write_bytes(
        load_key(path, keys.passphrase).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    plain.chmod(0o600)
    with pytest.raises(KeyFileError, match="expected an encrypted"):
        load_key(plain, keys.passphrase)
    path.chmod(0o640)
    with pytest.raises(KeyFileError, match="mode 640"):
        load_key(path, keys.passphrase)


def test_the_passphrase_comes_from_the_environment_or_a_file(tmp_path: Path) -> None:
    """The environment wins; without it the file must be there and for its owner only."""
    folder = tmp_path / "ca"
    assert CAKeyFolder(folder, {PASSPHRASE_VARIABLE: "secret"}).passphrase() == b"secret"
    bare = CAKeyFolder(folder, {})
    with pytest.raises(KeyFileError, match=PASSPHRASE_VARIABLE):
        bare.passphrase()
    bare.make_passphrase()
    made = bare.passphrase()
    bare.make_passphrase()
    assert bare.passphrase() == made
    bare.passphrase_path.chmod(0o644)
    with pytest.raises(KeyFileError, match="others can read"):
        bare.passphrase()


def test_a_leftover_key_is_never_overwritten(sqlite_store: Store, keys: CAKeyFolder) -> None:
    """A key without an issuer, left by an interrupted creation, is kept under another name."""
    leftover = keys.path(1)
    leftover.write_bytes(b"somebody's key")
    make_issuing(sqlite_store, keys)
    assert leftover.read_bytes() != b"somebody's key"
    kept = list(keys.folder.glob("1.unused-*.key"))
    assert [path.read_bytes() for path in kept] == [b"somebody's key"]


def test_the_wrong_key_signs_nothing(sqlite_store: Store, keys: CAKeyFolder) -> None:
    """A key file that holds another issuer's key is noticed before anything is signed."""
    sign, auth = make_issuing(sqlite_store, keys), make_issuing(sqlite_store, keys, "AUTH")
    with pytest.raises(Exception, match="holds another key"):
        Issuing.of(sign.issuer, auth.ca_key)


def test_no_private_key_is_in_the_store(sqlite_store: Store, keys: CAKeyFolder) -> None:
    """No column of the schema is meant for one, and none of the rows holds one."""
    make_issuing(sqlite_store, keys)
    with sqlite_store.reading() as connection:
        for table in schema.metadata.sorted_tables:
            assert not [name for name in table.columns.keys() if "private" in name]  # noqa: SIM118
            for row in connection.execute(sa.select(table)):
                assert not [value for value in row if "PRIVATE KEY" in str(value)]

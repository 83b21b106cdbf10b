"""A CA of somebody else's, with the files it leaves behind, and a register to compare."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import ExtensionOID, NameOID
from store_cases import INDEX_KEY

from certstatus.config import IssuerConfig
from issuance import schema
from issuance.ca_keys import CAKeyFolder
from issuance.import_run import ImportOrder, ImportReport, import_ca
from issuance.issuers import IssuerPolicy
from issuance.store import Store

NOW_S = 1_800_000_000
NOW_MS = NOW_S * 1000
REVOKED_S = 1_700_000_000
END_S = 1_900_000_000
PEM = serialization.Encoding.PEM
DER = serialization.Encoding.DER


def moment(posix_s: int) -> datetime.datetime:
    """A time as cryptography takes it."""
    return datetime.datetime.fromtimestamp(posix_s, datetime.UTC)


def utc_time(posix_s: int) -> str:
    """A time as index.txt has it."""
    return moment(posix_s).strftime("%y%m%d%H%M%SZ")


def name(common: str, kind: _ASN1Type = _ASN1Type.UTF8String) -> x509.Name:
    """A CA's name in the given string type."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common, _type=kind)])


# A subjectAltName that is an EDIPartyName, which `cryptography` refuses to read (RFC 5280 §4.2.1.6).
EDI_PARTY_NAME = x509.UnrecognizedExtension(
    ExtensionOID.SUBJECT_ALTERNATIVE_NAME, bytes.fromhex("3007a505a1030c0178")
)


@dataclass
class OldCA:
    """A CA with a key of its own; ``folder`` is where it writes."""

    folder: Path
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )
    common: str = "Old CA"
    with_ski: bool = True

    def __post_init__(self) -> None:
        """Write certificate and key."""
        self.folder.mkdir(parents=True, exist_ok=True)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name(self.common))
            .issuer_name(name(self.common))
            .public_key(self.key.public_key())
            .serial_number(77)
            .not_valid_before(moment(NOW_S - 10**8))
            .not_valid_after(moment(END_S + 10**7))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        )
        if self.with_ski:
            ski = x509.SubjectKeyIdentifier.from_public_key(self.key.public_key())
            builder = builder.add_extension(ski, critical=False)
        self.certificate = builder.sign(self.key, hashes.SHA256())
        self.ca_path = self.folder / "ca.pem"
        self.ca_path.write_bytes(self.certificate.public_bytes(PEM))
        self.key_path = self.folder / "ca.key"
        self.key_path.write_bytes(
            self.key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )

    def issue(
        self,
        serial: int,
        kind: _ASN1Type = _ASN1Type.UTF8String,
        end_s: int = END_S,
        points: Sequence[x509.DistributionPoint] = (),
    ) -> x509.Certificate:
        """A certificate under *serial*, the CA's name in the given string type."""
        builder = (
            x509.CertificateBuilder()
            .subject_name(name(f"member {serial}"))
            .issuer_name(name(self.common, kind))
            .public_key(self.key.public_key())
            .serial_number(serial)
            .not_valid_before(moment(NOW_S - 10**7))
            .not_valid_after(moment(end_s))
        )
        if points:
            builder = builder.add_extension(x509.CRLDistributionPoints(points), critical=False)
        return builder.sign(self.key, hashes.SHA256())

    def write_certificates(self, *serials: int, points: Sequence[x509.DistributionPoint] = ()) -> Path:
        """A folder with a certificate for each serial number."""
        folder = self.folder / "certificates"
        folder.mkdir(exist_ok=True)
        for serial in serials:
            path = folder / f"{serial:04X}.pem"
            # Signed again it would be another certificate.
            if not path.exists():
                path.write_bytes(self.issue(serial, points=points).public_bytes(PEM))
        return folder

    def write_index(self, *lines: str) -> Path:
        """An index.txt of these lines."""
        path = self.folder / "index.txt"
        path.write_text("".join(f"{line}\n" for line in lines))
        return path

    def crl_der(
        self,
        revoked: dict[int, x509.ReasonFlags | None],
        number: int | None = 7,
        this_update_s: int = NOW_S - 1000,
        *more: x509.ExtensionType,
    ) -> bytes:
        """A CRL that lists these serial numbers."""
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(name(self.common))
            .last_update(moment(this_update_s))
            .next_update(moment(this_update_s + 100_000))
        )
        if number is not None:
            builder = builder.add_extension(x509.CRLNumber(number), critical=False)
        for extension in more:
            builder = builder.add_extension(extension, critical=True)
        for serial, reason in revoked.items():
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(moment(REVOKED_S))
            if reason is not None:
                entry = entry.add_extension(x509.CRLReason(reason), critical=False)
            builder = builder.add_revoked_certificate(entry.build())
        return builder.sign(self.key, hashes.SHA256()).public_bytes(DER)

    def write_crl(self, *arguments: Any, **keywords: Any) -> Path:
        """The same in a file."""
        path = self.folder / "ca.crl"
        path.write_bytes(self.crl_der(*arguments, **keywords))
        return path

    def order(self, **changes: Any) -> ImportOrder:
        """An order to import it as OLD; by default its key, and nothing else."""
        config = IssuerConfig(service="OLD", base_url="http://status.example:8080", access="public")
        given: dict[str, Any] = {
            "service": "OLD",
            "ca_path": self.ca_path,
            "policy": IssuerPolicy.from_config(config),
            "key_path": self.key_path,
        }
        return ImportOrder(**(given | changes))


def point_of(*names: x509.GeneralName) -> x509.DistributionPoint:
    """A certificate's distribution point."""
    return x509.DistributionPoint(list(names), None, None, None)


def scope_of(
    *names: x509.GeneralName, relative_name: x509.RelativeDistinguishedName | None = None
) -> x509.IssuingDistributionPoint:
    """The issuing distribution point of a CRL that is of the point with these names."""
    return x509.IssuingDistributionPoint(
        full_name=list(names) or None,
        relative_name=relative_name,
        only_contains_user_certs=True,
        only_contains_ca_certs=False,
        only_some_reasons=None,
        indirect_crl=False,
        only_contains_attribute_certs=False,
    )


def valid_line(serial: int, end_s: int = END_S) -> str:
    """An index.txt line of a valid certificate."""
    digits = f"{serial:X}"
    return f"V\t{utc_time(end_s)}\t\t{'0' * (len(digits) % 2)}{digits}\tunknown\t/CN=member {serial}"


def revoked_line(serial: int, more: str = "", end_s: int = END_S) -> str:
    """An index.txt line of a revoked certificate; *more* follows the date."""
    digits = f"{serial:X}"
    date = f"{utc_time(REVOKED_S)}{more}"
    return f"R\t{utc_time(end_s)}\t{date}\t{'0' * (len(digits) % 2)}{digits}\tunknown\t/CN=member {serial}"


def run(store: Store, keys: CAKeyFolder, order: ImportOrder, now_ms: int = NOW_MS) -> ImportReport:
    """Import as ordered."""
    return import_ca(store, keys, INDEX_KEY, order, keys.folder.parent, now_ms)


def dump(store: Store) -> str:
    """All tables as one text, to be compared."""
    with store.reading(repeatable=True) as connection:
        rows = [
            f"{table.name} {tuple(row)}"
            for table in schema.metadata.sorted_tables
            for row in connection.execute(sa.select(table).order_by(*table.primary_key.columns))
        ]
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()


def states(store: Store) -> dict[str, tuple[int, int | None, int | None]]:
    """Serial in hex -> (state, reason, revoked at in POSIX s) of everything in the register."""
    table = schema.certificate
    with store.reading() as connection:
        return {
            row.serial: (
                row.state,
                row.reason,
                None if row.revoked_at_ms is None else row.revoked_at_ms // 1000,
            )
            for row in connection.execute(sa.select(table))
        }

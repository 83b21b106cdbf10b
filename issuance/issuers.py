"""The register of issuers: CA keys, their certificates and their policies.

Knows: making an issuer (several generations of a service side by side, under one name), reading
and changing its policy, further CA certificates on the same key, and the issuer table that the
responders get.  Every act here publishes that table within its own transaction, so a beat never
names a change together with a table from before it.
Does not know: end-entity certificates.
Source: RFC 5280 §4.2.1.9, §4.2.1.3 (CA certificates); Act arts. 3, 22 (two services, never mixed).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from certstatus.changes import ChangeKind
from certstatus.config import IssuerConfig, illegal_policy
from certstatus.distribution_point import parse_issuing_distribution_point, read_point_name
from certstatus.documents import encode_document
from certstatus.errors import ConfigError, PolicyViolation, UnknownCertificate
from certstatus.issuer_table import Issuer, issuer_table_content
from certstatus.key_kinds import generate_key
from certstatus.pkcs11_uri import parse_uri
from certstatus.x509_reading import UNREADABLE, load_certificate
from issuance import profiles, schema
from issuance.act import Act
from issuance.ca_keys import CAKeyFolder
from issuance.import_register import HERE, ImportedIssuer, read_imported
from issuance.store import Now, Store, read_clock

DOCUMENT = "issuers"


@dataclass(frozen=True, slots=True)
class IssuerPolicy:
    """How an issuer issues, answers and publishes; kept with it as JSON.

    Keys and units are those of the configuration's ``[[issuer]]``, where each is explained.
    """

    access: str
    hold: bool
    expired: str
    archive_cutoff_days: int
    not_issued: str
    issued_list: str
    unlisted: str
    invalidity_date: bool
    crl_id: bool
    cert_hash: bool
    both_hashes: bool
    validity_good_s: int
    validity_revoked_s: int
    validity_unknown_s: int
    certificate_life_days: int
    base_url: str
    freshest_crl: bool
    crl_period_s: int
    crl_validity_s: int
    delta_period_s: int
    delta_validity_s: int
    delta_unchanged: str
    lapse_period_s: int
    expired_entries: str
    crl_archive_days: int
    last_crl_days: int
    partition: str
    partition_buckets: int

    @classmethod
    def from_config(cls, config: IssuerConfig) -> IssuerPolicy:
        """Return the policy part of an issuer's configuration."""
        return cls(**{item.name: getattr(config, item.name) for item in fields(cls)})

    @classmethod
    def from_json(cls, text: str) -> IssuerPolicy:
        """Return the policy kept in *text*; what an older version did not write has its default.

        But for the partition: what was issued under such a policy is in none, and no policy changes by
        itself.
        """
        defaults = asdict(cls.from_config(IssuerConfig())) | {"partition": "none"}
        return cls(**(defaults | json.loads(text)))

    def as_json(self) -> str:
        """Return the text that is kept."""
        return json.dumps(asdict(self), sort_keys=True)

    def check(self, service: str) -> None:
        """Refuse a policy that the service's law or its own records do not allow.

        Raises: PolicyViolation — see ``config.illegal_policy``.
        """
        for name, expected in illegal_policy(service, self):
            raise PolicyViolation(f"{service}: {name} must be {expected}")


@dataclass(frozen=True, slots=True)
class IssuerRecord:
    """One issuer as the register holds it; ``certificates_der`` newest first."""

    issuer_id: int
    service: str
    generation: int
    key_algorithm: str
    name_der: bytes
    spki_der: bytes
    key_id: bytes
    policy: IssuerPolicy
    certificates_der: tuple[bytes, ...]
    names_der: tuple[bytes, ...]
    created_seq: int
    key_event_seq: int | None
    key_event_ms: int | None
    imported: ImportedIssuer | None = None

    @property
    def is_ready(self) -> bool:
        """Say whether answers may be given: not while its import has yet to end."""
        return self.imported is None or self.imported.is_ready

    @property
    def revokes_here(self) -> bool:
        """Say whether this installation revokes and publishes CRLs for it; False: the CA does, elsewhere."""
        return self.imported is None or self.imported.revocations == HERE

    @property
    def ca_certificate(self) -> x509.Certificate:
        """The newest CA certificate."""
        return load_certificate(self.certificates_der[0])

    @property
    def crl_names(self) -> profiles.CRLNames:
        """The names of the unpartitioned CRL scope, ``all``."""
        names = profiles.crl_names(
            self.ca_certificate.subject, self.service, self.generation, self.policy.base_url
        )
        idp_der = None if self.imported is None else self.imported.crl_idp_der
        kept_der = None if idp_der is None else parse_issuing_distribution_point(idp_der).name_der
        if kept_der is None:
            # CRLs that are of no point cover every certificate of the key, whatever it names.
            return names
        # Of the old names a freshest point has the one that is no place of a complete CRL.
        directory_name, _ = read_point_name(kept_der)
        return replace(names, kept_der=kept_der, freshest=(directory_name, names.freshest[1]))

    def partition_names(self, scope: str) -> profiles.CRLNames:
        """The names that a partition gets if it is opened now."""
        return profiles.crl_names(
            self.ca_certificate.subject, self.service, self.generation, self.policy.base_url, scope
        )

    @property
    def ocsp_url(self) -> str:
        """Where its certificates say that OCSP is."""
        return f"{self.policy.base_url.rstrip('/')}/ocsp"

    @property
    def ca_url(self) -> str:
        """Where its certificates say that the CA's own is."""
        place = f"{self.service.lower()}/g{self.generation}"
        return f"{self.policy.base_url.rstrip('/')}/ca/{place}.cer"

    @property
    def end_entity_profile(self) -> profiles.EndEntityProfile:
        """What its certificates look like."""
        return profiles.EndEntityProfile(
            self.service,
            self.ca_certificate,
            self.crl_names,
            self.ocsp_url,
            self.ca_url,
            self.policy.freshest_crl,
        )


def require_here(issuer: IssuerRecord) -> None:
    """Refuse acts of a CA that acts elsewhere, and any before its import has ended.

    Raises: PolicyViolation.
    """
    which = f"{issuer.service} generation {issuer.generation}"
    if not issuer.is_ready:
        raise PolicyViolation(f"{which}: its import has not ended; run `certstatus import` again")
    if not issuer.revokes_here:
        raise PolicyViolation(
            f"{which} issues and revokes elsewhere, and this installation only follows its CRLs;"
            " import it with its key to take it over"
        )


# --- acts --------------------------------------------------------------------------------------------


def create_issuer(store: Store, keys: CAKeyFolder, config: IssuerConfig, now: Now) -> IssuerRecord:
    """Make the next generation of a service: key, self-signed certificate, policy, record.

    The key is durable before the record: a killed call leaves a key without an issuer, never the reverse.
    Raises: PolicyViolation — the name differs from that of earlier generations, or the policy is illegal.
    """
    service = config.service
    policy = IssuerPolicy.from_config(config)
    policy.check(service)
    if not policy.base_url.startswith("http://"):
        raise ConfigError(
            "issuer", f"{service}.base_url", "http:// (a CRL is never fetched over https)", policy.base_url
        )
    name = profiles.ca_name(service, config.organization, config.organizational_unit)
    if config.key_uri:
        key, new_path = keys.make_in_token(parse_uri(config.key_uri), service, config.key)
    else:
        key = generate_key(config.key)
        new_path = keys.write_new(key)
    certificate = profiles.sign_ca_certificate(key, name, read_clock(now) // 1000)
    try:
        with store.writing(now) as act:
            record = _record_issuer(act, config, policy, certificate, keys, new_path)
    except BaseException:
        new_path.unlink(missing_ok=True)
        raise
    return issuer_by_id(store, record)


def _record_issuer(
    act: Act,
    config: IssuerConfig,
    policy: IssuerPolicy,
    certificate: x509.Certificate,
    keys: CAKeyFolder,
    new_path: Path,
) -> int:
    table = schema.issuer
    name_der = certificate.subject.public_bytes()
    rows = act.connection.execute(
        sa.select(table.c.issuer_id, table.c.service, table.c.generation, table.c.name_der)
    ).all()
    for row in rows:
        if (row.service == config.service) != (row.name_der == name_der):
            raise PolicyViolation(
                f"{config.service}: one name belongs to one service, and {row.service} has another"
                if row.service == config.service
                else f"{config.service}: the name is already that of {row.service}"
            )
    issuer_id = max((row.issuer_id for row in rows), default=0) + 1
    generation = max((row.generation for row in rows if row.service == config.service), default=0) + 1
    seq = act.seq + 1
    act.connection.execute(
        sa.insert(table).values(
            issuer_id=issuer_id,
            service=config.service,
            generation=generation,
            key_algorithm=config.key,
            name_der=name_der,
            spki_der=spki(certificate),
            key_id=key_id(certificate),
            policy=policy.as_json(),
            created_seq=seq,
        )
    )
    add_certificate(act, issuer_id, certificate, seq)
    keys.adopt(new_path, issuer_id)
    act.record(ChangeKind.ISSUERS, issuer_id=issuer_id, ground="issuer created")
    publish_issuers(act)
    return issuer_id


def set_policy(store: Store, issuer_id: int, policy: IssuerPolicy, now: Now) -> None:
    """Replace an issuer's policy from now on.

    Raises: PolicyViolation — illegal for the service; UnknownCertificate — no such issuer.
    """
    issuer = issuer_by_id(store, issuer_id)
    if not issuer.revokes_here:
        # Whatever the CRLs of a CA say that revokes elsewhere is obeyed.
        policy = replace(policy, hold=True)
    policy.check(issuer.service)
    with store.writing(now) as act:
        act.connection.execute(
            sa.update(schema.issuer)
            .where(schema.issuer.c.issuer_id == issuer_id)
            .values(policy=policy.as_json())
        )
        act.record(ChangeKind.ISSUERS, issuer_id=issuer_id, ground="policy changed", detail=policy.as_json())
        publish_issuers(act)


def add_ca_certificate(store: Store, issuer_id: int, certificate_der: bytes, now: Now) -> None:
    """Add a renewed CA certificate on the same key and name to its issuer.

    Raises: PolicyViolation — another key, another name, not a CA's, known already, or one whose extensions
            cannot be read.
    """
    record = issuer_by_id(store, issuer_id)
    certificate = load_certificate(certificate_der)
    if certificate_der in record.certificates_der:
        raise PolicyViolation(f"issuer {issuer_id}: the certificate is known already")
    if spki(certificate) != record.spki_der:
        raise PolicyViolation(f"issuer {issuer_id}: the certificate is over another key")
    if certificate.subject.public_bytes() not in record.names_der:
        raise PolicyViolation(f"issuer {issuer_id}: the certificate names another CA")
    if not _is_ca(certificate):
        raise PolicyViolation(f"issuer {issuer_id}: the certificate is not a CA's")
    with store.writing(now) as act:
        add_certificate(act, issuer_id, certificate, act.seq + 1)
        act.record(ChangeKind.ISSUERS, issuer_id=issuer_id, ground="CA certificate added")
        publish_issuers(act)


def _is_ca(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False
    except UNREADABLE as exc:
        raise PolicyViolation(f"the certificate's extensions cannot be read: {exc}") from exc


def add_certificate(act: Act, issuer_id: int, certificate: x509.Certificate, seq: int) -> None:
    """Write a CA certificate to its issuer, within *act*."""
    der = certificate.public_bytes(serialization.Encoding.DER)
    act.connection.execute(
        sa.insert(schema.issuer_certificate).values(
            issuer_id=issuer_id,
            sha256=hashlib.sha256(der).digest(),
            certificate_der=der,
            added_seq=seq,
        )
    )


# --- reading -----------------------------------------------------------------------------------------


def issuers(store: Store) -> list[IssuerRecord]:
    """Return all issuers by issuer_id."""
    with store.reading() as connection:
        return read_issuers(connection)


def issuer_by_id(store: Store, issuer_id: int) -> IssuerRecord:
    """Return one issuer.  Raises: UnknownCertificate — there is none of this number."""
    for record in issuers(store):
        if record.issuer_id == issuer_id:
            return record
    raise UnknownCertificate(f"no issuer {issuer_id}")


def issuer_of(store: Store, service: str, generation: int | None = None) -> IssuerRecord:
    """Return a service's issuer: the newest generation, or the one asked for.

    Raises: UnknownCertificate — the service has none.
    """
    found = [
        record
        for record in issuers(store)
        if record.service == service and generation in (None, record.generation)
    ]
    if not found:
        which = "" if generation is None else f", generation {generation}"
        raise UnknownCertificate(f"no issuer of {service}{which}")
    return max(found, key=lambda record: record.generation)


def read_issuers(connection: sa.Connection) -> list[IssuerRecord]:
    """Return all issuers as *connection*'s transaction sees them."""
    certificates = _by_issuer(connection, schema.issuer_certificate, "certificate_der")
    imported = read_imported(connection)
    names = _by_issuer(connection, schema.issuer_name, "name_der")
    records = []
    for row in connection.execute(sa.select(schema.issuer).order_by(schema.issuer.c.issuer_id)):
        values: dict[str, Any] = dict(row._mapping)
        values["policy"] = IssuerPolicy.from_json(row.policy)
        others = [name for name in names.get(row.issuer_id, []) if name != row.name_der]
        records.append(
            IssuerRecord(
                **values,
                certificates_der=tuple(reversed(certificates.get(row.issuer_id, []))),
                names_der=(row.name_der, *others),
                imported=imported.get(row.issuer_id),
            )
        )
    return records


def _by_issuer(connection: sa.Connection, table: sa.Table, column: str) -> dict[int, list[bytes]]:
    found: dict[int, list[bytes]] = {}
    query = sa.select(table.c.issuer_id, table.c[column]).order_by(table.c.added_seq, table.c.sha256)
    for issuer_id, value in connection.execute(query):
        found.setdefault(issuer_id, []).append(value)
    return found


# --- the table that the responders get ---------------------------------------------------------------


def issuer_table(connection: sa.Connection) -> list[Issuer]:
    """Return the issuers as responders see them."""
    dropped: dict[int, list[str]] = {}
    signed: dict[int, list[str]] = {}
    table = schema.responder_certificate
    for issuer_id, serial, dropped_seq in connection.execute(
        sa.select(table.c.issuer_id, table.c.serial, table.c.dropped_seq).order_by(
            table.c.issuer_id, table.c.serial
        )
    ):
        signed.setdefault(issuer_id, []).append(serial)
        if dropped_seq is not None:
            dropped.setdefault(issuer_id, []).append(serial)
    records = read_issuers(connection)
    unready = [record for record in records if not record.is_ready]
    return [
        Issuer(
            issuer_id=record.issuer_id,
            service=record.service,
            generation=record.generation,
            names_der=record.names_der,
            spki_der=record.spki_der,
            key_id=record.key_id,
            certificates_der=record.certificates_der,
            access=record.policy.access,
            hold=record.policy.hold,
            expired=record.policy.expired,
            archive_cutoff_days=record.policy.archive_cutoff_days,
            not_issued=_not_issued(record, unready),
            issued_list=record.policy.issued_list,
            unlisted=record.policy.unlisted,
            invalidity_date=record.policy.invalidity_date,
            # Which CRL has an entry is told by when it was revoked; an import's date says nothing of that.
            crl_id=record.policy.crl_id and record.imported is None,
            cert_hash=record.policy.cert_hash,
            both_hashes=record.policy.both_hashes,
            validity_good_s=record.policy.validity_good_s,
            validity_revoked_s=record.policy.validity_revoked_s,
            validity_unknown_s=record.policy.validity_unknown_s,
            ca_key_event_ms=record.key_event_ms,
            foreign_crl=None if record.revokes_here else _foreign_crl(record),
            # What it issued before names another place, and dates before our CRLs are recorded after them.
            crl_url=record.crl_names.complete[1][0] if record.imported is None else "",
            beside_register=tuple(signed.get(record.issuer_id, []))
            if record.policy.not_issued == "revoked"
            else (),
            dropped=tuple(dropped.get(record.issuer_id, [])),
        )
        for record in records
        # Half an import would have a certificate good whose revocation comes with the other half.
        if record.is_ready
    ]


def _not_issued(record: IssuerRecord, unready: list[IssuerRecord]) -> str:
    """Return what is said of numbers never issued: not that, while another key's list is half imported."""
    says_revoked = record.policy.not_issued == "revoked"
    if says_revoked and any(
        item.service == record.service or not set(item.names_der).isdisjoint(record.names_der)
        for item in unready
    ):
        return "unknown"
    return record.policy.not_issued


def _foreign_crl(record: IssuerRecord) -> tuple[int, int]:
    taken = record.imported
    if taken is None or taken.crl_this_update_s is None or taken.crl_next_update_s is None:
        # Without a CRL nothing is known: as silent as after the end of one.
        return 0, 0
    return taken.crl_this_update_s, taken.crl_next_update_s


def publish_issuers(act: Act) -> None:
    """Publish the issuer table as it stands within *act*, under the number of its last change."""
    act.flush()
    content = issuer_table_content(act.seq, issuer_table(act.connection))
    act.publish(DOCUMENT, act.seq, encode_document(content))


def issuer_table_document(store: Store) -> bytes:
    """Return the issuer table that is published now.

    Raises: UnknownCertificate — no issuer has ever been created.
    """
    found = store.publication(DOCUMENT)
    if found is None or found.body is None:
        raise UnknownCertificate("no issuer yet")
    return found.body


def spki(certificate: x509.Certificate) -> bytes:
    """Return the SubjectPublicKeyInfo of *certificate*, DER."""
    return certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def key_id(certificate: x509.Certificate) -> bytes:
    """Return the octets by which what a CA issued names its key: its SKI.

    An older CA certificate may have none; then it is the SHA-1 of the key's bits, which is how such
    identifiers are made (RFC 5280 §4.2.1.2 (1)).
    """
    return profiles.authority_key_id(certificate).key_identifier or b""


def services(records: Sequence[IssuerRecord]) -> list[str]:
    """Return the services among *records*, each once, in order of their first issuer."""
    return list(dict.fromkeys(record.service for record in records))

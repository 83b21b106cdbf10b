"""Issuing certificates over public keys made elsewhere.

Knows: what a subject's key must be (kind, size, never used before, never a private key), proof
of possession, signing outside the lock and recording inside it.  A certificate is handed out only
after its record has committed; one whose recording is refused existed nowhere.
Does not know: who the applicant is, nor the rules on second certificates.
Source: Act arts. 3(4)-(6), 22(4)-(6) (public key only, issue), 8, 27 (issue record).
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import sqlalchemy as sa
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from certstatus.changes import ChangeKind, fingerprint
from certstatus.crl_catalogue import UNPARTITIONED
from certstatus.der import integer_content
from certstatus.errors import IllegalTransition, IntegrityError, PolicyViolation
from certstatus.x509_reading import load_csr
from issuance import profiles, schema
from issuance.act import Act
from issuance.ca_keys import CAKey
from issuance.crl_scopes import ScopeNames, ensure_scope, known_names, new_names
from issuance.issuers import IssuerRecord, require_here
from issuance.partition import partition_of
from issuance.profiles import EndEntityProfile, SubjectKey
from issuance.store import Now, Store, read_clock

_RSA_BITS_MIN = 2048
_RSA_BITS_MAX = 8192
_RSA_EXPONENT_MIN = 65_537
_CURVES = ("secp256r1", "secp384r1")
_PRIVATE_KEY_GIVEN = "a private key was given; only its public half may leave its owner"


class SignedCertificate(NamedTuple):
    """A certificate that is signed and not yet recorded, hence not yet issued.

    ``scope``: the CRL partition whose names are in it, ``all`` for none; ``names``: these names.
    """

    serial: bytes
    certificate_der: bytes
    spki_sha256: bytes
    not_before_s: int
    not_after_s: int
    scope: str = UNPARTITIONED
    names: ScopeNames | None = None


class IssuedCertificate(NamedTuple):
    """A certificate in the register.  ``serial``: content octets; ``seq``: number of its issuing;
    ``scope``: the CRL partition it is in, ``all`` for none."""

    serial: bytes
    certificate_der: bytes
    not_after_s: int
    seq: int
    recorded_ms: int
    scope: str = UNPARTITIONED


class Issuing(NamedTuple):
    """What signing for one issuer needs; made once, used for any number of certificates."""

    issuer: IssuerRecord
    profile: EndEntityProfile
    ca_key: CAKey

    @classmethod
    def of(cls, issuer: IssuerRecord, ca_key: CAKey) -> Issuing:
        """Return the tools of *issuer*.

        Raises: IllegalTransition — its CA key was reported lost or leaked; IntegrityError — *ca_key*
                is another issuer's; PolicyViolation — it issues elsewhere.
        """
        require_here(issuer)
        if issuer.key_event_seq is not None:
            raise IllegalTransition(
                f"{issuer.service} generation {issuer.generation} issues nothing since change"
                f" {issuer.key_event_seq}, its CA-key event"
            )
        if _spki(ca_key.public_key()) != issuer.spki_der:
            raise IntegrityError(f"issuer {issuer.issuer_id}: the key file holds another key")
        return cls(issuer, issuer.end_entity_profile, ca_key)


def issue(
    store: Store,
    issuing: Issuing,
    index_key: bytes,
    public_key: SubjectKey,
    now: Now,
    *,
    subject: x509.Name | None = None,
    not_after_s: int | None = None,
    partition: str | None = None,
) -> IssuedCertificate:
    """Issue one certificate over *public_key* and record it.

    Takes:   ``subject``: default C=JP and a random CN, without any personal attribute;
             ``not_after_s``: default the issuer's life in days, ending at 23:59:59 JST;
             ``partition``: code of the municipality or ward of issue, where the policy parts CRLs by it.
    Raises:  PolicyViolation — weak key, key used before, end beyond the CA's, no such partition or a
             closed one; nothing is recorded.
    """
    check_subject_key(public_key)
    with store.reading() as connection:
        # Before a number is drawn; the unique column says so again under the lock.
        _refuse_used_key(connection, hashlib.sha256(_spki(public_key)).digest(), _spki(public_key))
    now_s = read_clock(now) // 1000
    signed = sign(
        issuing,
        public_key,
        now_s,
        subject=subject,
        not_after_s=not_after_s,
        partition=partition,
        known=partial(known_names, store, issuing.issuer.issuer_id),
    )
    with store.writing(now) as act:
        return record(act, issuing, index_key, signed)


def sign(
    issuing: Issuing,
    public_key: SubjectKey,
    now_s: int,
    *,
    subject: x509.Name | None = None,
    not_after_s: int | None = None,
    partition: str | None = None,
    known: Callable[[str], ScopeNames | None] = lambda _scope: None,
) -> SignedCertificate:
    """Sign a certificate without recording it, which takes no lock however slow the key.

    Takes:  as ``issue``; ``known``: gives the names of a CRL partition that has been opened before, which
            stay as they were whatever the policy says now.  Without it they are those of a new one, and
            recording refuses the certificate should they differ.
    Raises: PolicyViolation — not_after beyond the CA certificate's end, or in the past; the partition.
    """
    issuer, profile, ca_key = issuing
    if not_after_s is None:
        not_after_s = profiles.day_after_days(now_s, issuer.policy.certificate_life_days)
    ca_ends_s = int(profile.ca_certificate.not_valid_after_utc.timestamp())
    if not now_s < not_after_s <= ca_ends_s:
        raise PolicyViolation(
            f"notAfter must lie between now and the CA certificate's end, {ca_ends_s}; found {not_after_s}"
        )
    number = profiles.new_serial()
    scope = partition_of(issuer, integer_content(number), partition)
    names = None if scope == UNPARTITIONED else known(scope) or new_names(issuer, scope)
    certificate = profile.sign(
        ca_key,
        subject or _anonymous_name(),
        public_key,
        now_s,
        not_after_s,
        serial=number,
        points=None if names is None else names.in_certificate,
    )
    if certificate.issuer.public_bytes() != issuer.name_der:
        raise IntegrityError(f"issuer {issuer.issuer_id}: its name came out in another encoding")
    return SignedCertificate(
        integer_content(certificate.serial_number),
        certificate.public_bytes(serialization.Encoding.DER),
        hashlib.sha256(_spki(public_key)).digest(),
        now_s,
        not_after_s,
        scope,
        names,
    )


def record(act: Act, issuing: Issuing, index_key: bytes, signed: SignedCertificate) -> IssuedCertificate:
    """Record a signed certificate: only now it is issued.

    Raises: PolicyViolation — its key or number is in use (may come as late as the end of the act); its
            CRL partition has been closed, or has other names than those in the certificate.
    """
    scope_id = None
    if signed.names is not None:
        scope_id = ensure_scope(act, issuing.issuer.issuer_id, signed.scope, signed.names).scope_id
    recorded = act.record(
        ChangeKind.ISSUED,
        issuer_id=issuing.issuer.issuer_id,
        serial=signed.serial,
        fingerprint=fingerprint(signed.serial, index_key),
        not_before_s=signed.not_before_s,
        not_after_s=signed.not_after_s,
        spki_sha256=signed.spki_sha256,
        certificate_der=signed.certificate_der,
        scope_id=scope_id,
    )
    return IssuedCertificate(
        signed.serial, signed.certificate_der, signed.not_after_s, *recorded, signed.scope
    )


def record_many(
    store: Store,
    issuing: Issuing,
    index_key: bytes,
    certificates: Sequence[SignedCertificate],
    now: Now,
    progress: Callable[[int], None] | None = None,
    pause: Callable[[], None] | None = None,
) -> list[IssuedCertificate]:
    """Record many certificates in pieces, each a short act of its own.

    *progress* is called with the number recorded so far; *pause* between pieces, outside the lock,
    so that others get their turn.  A killed call has recorded whole pieces.
    """
    issued: list[IssuedCertificate] = []
    while len(issued) < len(certificates):
        with store.writing(now) as act:
            for signed in certificates[len(issued) :]:
                issued.append(record(act, issuing, index_key, signed))
                if act.is_full:
                    break
        if progress is not None:
            progress(len(issued))
        if pause is not None:
            pause()
    return issued


# --- the subject's key -------------------------------------------------------------------------------


def read_subject_key(content: bytes) -> tuple[SubjectKey, x509.Name | None]:
    """Return the public key in *content* (PEM or DER; a CSR or a bare public key), and a CSR's subject.

    Raises: PolicyViolation — a private key, a CSR whose signature does not prove possession,
            neither of the two, or a key of a kind or size that is not accepted.
    """
    if b"PRIVATE KEY" in content:
        raise PolicyViolation(_PRIVATE_KEY_GIVEN)
    is_pem = content.lstrip().startswith(b"-----BEGIN")
    try:
        request = load_csr(content)
    except ValueError:
        return _read_public_key(content, is_pem), None
    # An empty subject says nothing, so it asks for nothing.
    return proven_key(request), request.subject if len(request.subject.rdns) else None


def _read_public_key(content: bytes, is_pem: bool) -> SubjectKey:
    try:
        if is_pem:
            return _accepted(serialization.load_pem_public_key(content))
        return _accepted(serialization.load_der_public_key(content))
    except (ValueError, UnsupportedAlgorithm) as exc:
        if not is_pem and _is_private_key(content):
            # Without the cause: nothing of the key may reach a log.
            raise PolicyViolation(_PRIVATE_KEY_GIVEN) from None
        raise PolicyViolation("neither a certificate request nor a public key") from exc


def _is_private_key(content: bytes) -> bool:
    try:
        serialization.load_der_private_key(content, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return False
    return True


def proven_key(request: x509.CertificateSigningRequest) -> SubjectKey:
    """Return the key of a CSR whose signature proves that its owner has the private half.

    Raises: PolicyViolation — it does not, or the key is not accepted.
    """
    try:
        if request.is_signature_valid:
            return _accepted(request.public_key())
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise PolicyViolation("the key is neither RSA nor EC") from exc
    raise PolicyViolation("the request's signature does not prove possession of its key")


def _accepted(key: object) -> SubjectKey:
    if not isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
        raise PolicyViolation("the key is neither RSA nor EC")
    check_subject_key(key)
    return key


def check_subject_key(key: SubjectKey) -> None:
    """Refuse a key that is too weak or of a kind that verifiers need not know.

    Raises: PolicyViolation — RSA under 2048 bits or over 8192, an exponent that is even or under
            65537, a curve other than P-256 and P-384.
    """
    if isinstance(key, rsa.RSAPublicKey):
        if not _RSA_BITS_MIN <= key.key_size <= _RSA_BITS_MAX:
            raise PolicyViolation(
                f"RSA keys have {_RSA_BITS_MIN}..{_RSA_BITS_MAX} bits, found {key.key_size}"
            )
        exponent = key.public_numbers().e
        if exponent < _RSA_EXPONENT_MIN or exponent % 2 == 0:
            raise PolicyViolation(
                f"RSA public exponents are odd and at least {_RSA_EXPONENT_MIN}, found {exponent}"
            )
    elif key.curve.name not in _CURVES:
        raise PolicyViolation(f"EC keys are on P-256 or P-384, found {key.curve.name}")


def _refuse_used_key(connection: sa.Connection, spki_sha256: bytes, spki_der: bytes) -> None:
    used = connection.execute(
        sa.select(schema.certificate.c.service, schema.certificate.c.serial).where(
            schema.certificate.c.spki_sha256 == spki_sha256
        )
    ).one_or_none()
    if used is not None:
        raise PolicyViolation(
            f"the public key is already in {used.service} certificate {used.serial}; a key is certified once"
        )
    ca = connection.execute(
        sa.select(schema.issuer.c.issuer_id).where(schema.issuer.c.spki_der == spki_der)
    ).first()
    if ca is not None:
        raise PolicyViolation("the public key is that of an issuer")


def _spki(key: SubjectKey) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _anonymous_name() -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "JP"),
            x509.NameAttribute(NameOID.COMMON_NAME, secrets.token_hex(12).upper()),
        ]
    )

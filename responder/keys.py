"""A responder host's OCSP keys: making, asking for certificates, installing, choosing a signer.

::

    STATE/host/host.toml                     name = "..."
    STATE/host/host.key                      Ed25519; signs this host's certificate requests
    STATE/host/keys/<issuer_id>-pending-<algorithm>.key  an OCSP key whose certificate is not here yet
    STATE/host/keys/<issuer_id>-pending-<algorithm>.req  the signed request for it
    STATE/host/keys/<issuer_id>-<serial>.key, .crt       a key and its certificate, PEM
    STATE/host/keys/<issuer_id>-<serial>-adopted.key, .crt  the same, made elsewhere and brought here

Keys never leave the host; a certificate replaces the one before long before that expires, and both
are good for as long as they are valid.  An issuer may have keys of several algorithms at once.
Knows: these files, what makes a responder certificate acceptable, which signer is current.
Does not know: how requests travel (``host_agent``), or which answers a signer signs.
Source: RFC 6960 §2.6, §4.2.2.2 (delegated responders), §4.2.1 (byKey), §4.4.7.2 (choice of algorithm);
RFC 5758, 4055 (hash by key).
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import InternalError, InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from certstatus import oid
from certstatus.cert_id import responder_key_hash
from certstatus.certificate_request import CertificateRequest, read_request, request_digest
from certstatus.der import integer_content
from certstatus.durable import sync_folder, write_durable
from certstatus.errors import KeyFileError, MalformedRequest
from certstatus.issuer_table import Issuer
from certstatus.key_kinds import CURVE_NAMES, SigningKey, generate_key, signature_hash
from certstatus.ocsp_request import PreferredAlgorithm
from certstatus.ocsp_response import ResponseFrame
from certstatus.pkcs11_key import TokenECKey, TokenRSAKey, make_key, open_key
from certstatus.pkcs11_uri import SCHEME, parse_uri
from certstatus.publisher_key import SECRET_MODE, load_ed25519_private, read_secret
from certstatus.x509_reading import UNREADABLE, load_certificate

SignerKey = SigningKey

# A new certificate is asked for when this part of the present one's life is over.
RENEW_AT = 2 / 3
# Below this part of its life left, without a successor, something is wrong with renewing.
ALARM_AT = 1 / 6
# An expired signer's files stay a little, for whoever looks why answers stopped.
EXPIRED_KEPT_S = 86_400
RSA_BITS_MIN = 2048

_ADOPTED = "-adopted"
# Whatever else lies in the folder, a copy put aside say, is nobody's pair.
_PAIR = re.compile(rf"([0-9]{{1,9}})-[0-9a-f]+({_ADOPTED})?")
_UNREADABLE = (*UNREADABLE, TypeError, UnsupportedAlgorithm, InternalError)
# Certificates, for issuers as they are and were, of which it is known whether they may answer for them.
_JUDGED_MAX = 4096
# Some 20 µs; P-384 takes 170, RSA-2048 250.
_FAST = "p256"
_CURVES = {"p256": oid.SECP256R1, "p384": oid.SECP384R1, "p521": oid.SECP521R1}
_ALGORITHMS = {
    oid.SHA256_WITH_RSA: (oid.SHA256_WITH_RSA_DER, hashlib.sha256, hashes.SHA256()),
    oid.SHA384_WITH_RSA: (oid.SHA384_WITH_RSA_DER, hashlib.sha384, hashes.SHA384()),
    oid.SHA512_WITH_RSA: (oid.SHA512_WITH_RSA_DER, hashlib.sha512, hashes.SHA512()),
    oid.ECDSA_WITH_SHA256: (oid.ECDSA_WITH_SHA256_DER, hashlib.sha256, hashes.SHA256()),
    oid.ECDSA_WITH_SHA384: (oid.ECDSA_WITH_SHA384_DER, hashlib.sha384, hashes.SHA384()),
    oid.ECDSA_WITH_SHA512: (oid.ECDSA_WITH_SHA512_DER, hashlib.sha512, hashes.SHA512()),
}


@dataclass(frozen=True, slots=True)
class Signer:
    """A key that may answer for an issuer, with the certificate that says so.

    ``serial``: lower-case hex as in the issuer table's ``dropped``.  ``key_algorithm``: as configured,
    e.g. ``p256``; ``signature_algorithm``: dotted.  ``is_adopted``: made elsewhere, so nobody here can
    renew it.  ``pair``: the files it was loaded from, as ``Unfit`` names them.  ``is_fast``: it signs within
    some tens of microseconds, which a key in a token never does.  Times in POSIX seconds, both ends included.
    ``sign`` returns the signature over the octets given to it.
    """

    issuer_id: int
    serial: str
    certificate_der: bytes
    key: SignerKey = field(repr=False, compare=False)
    key_algorithm: str
    signature_algorithm: str
    signature_algorithm_der: bytes
    responder_key_hash: bytes
    not_before_s: int
    not_after_s: int
    sign: Callable[[bytes], bytes] = field(repr=False, compare=False)
    is_adopted: bool = False
    pair: str = field(default="", compare=False)
    is_fast: bool = field(init=False, repr=False, compare=False)
    frame: ResponseFrame = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Find out whether it is fast, and make the frame that all its answers stand in."""
        is_fast = self.key_algorithm == _FAST and not isinstance(self.key, TokenECKey)
        object.__setattr__(self, "is_fast", is_fast)
        frame = ResponseFrame(self.signature_algorithm_der, (self.certificate_der,))
        object.__setattr__(self, "frame", frame)

    @property
    def renew_at_s(self) -> int:
        """When its successor should be asked for."""
        return self.not_before_s + int((self.not_after_s - self.not_before_s) * RENEW_AT)

    @property
    def alarm_at_s(self) -> int:
        """When the lack of a successor is an alarm."""
        return self.not_after_s - int((self.not_after_s - self.not_before_s) * ALARM_AT)

    def is_valid(self, now_s: int) -> bool:
        """Say whether the certificate is valid now."""
        return self.not_before_s <= now_s <= self.not_after_s

    def fits(self, wanted: PreferredAlgorithm) -> bool:
        """Say whether a client that wants this algorithm can do with this key's signatures."""
        return wanted.signature == self.signature_algorithm and wanted.curve in ("", _curve(self.key))

    def with_hash_of(self, signature_algorithm: str) -> Signer:
        """Return the same key signing by another of its algorithms."""
        algorithm_der, sign = _signing(self.key, signature_algorithm)
        return replace(
            self,
            signature_algorithm=signature_algorithm,
            signature_algorithm_der=algorithm_der,
            sign=sign,
        )


class Unfit(NamedTuple):
    """A pair of files that makes no signer.

    ``pair``: their name without suffix, ``1-02ab``.  ``problem``: which of them, and what is wrong with it.
    """

    pair: str
    problem: str


class SignerSet:
    """All signers of a host as they were when loaded; immutable, replaced as a whole.

    *default*: the key algorithm that signs unless a client wants another, where there is such a key.
    *unfit*: what was there to be loaded and could not be.
    """

    __slots__ = ("_default", "_of", "signers", "unfit")

    def __init__(
        self, signers: Iterable[Signer] = (), default: str = "", unfit: Iterable[Unfit] = ()
    ) -> None:
        # Newest first.
        self.signers = tuple(sorted(signers, key=lambda signer: signer.not_before_s, reverse=True))
        self.unfit = tuple(unfit)
        self._default = default
        self._of: dict[int, _Choice] = {}

    def current(self, issuer: Issuer, now_s: int, wanted: Iterable[PreferredAlgorithm] = ()) -> Signer | None:
        """Return the signer for the first of *wanted* there is one for, else of the default algorithm.

        Of several it is the newest that is valid now and not dropped; None if there is none at all.
        Source: RFC 6960 §4.4.7.2.
        """
        choice = self._choice(issuer)
        for algorithm in wanted:
            for signer in choice.every_way:
                if signer.fits(algorithm) and signer.is_valid(now_s):
                    return signer
        for signer in choice.signers:
            if signer.is_valid(now_s):
                return signer
        return None

    def of_algorithm(self, issuer: Issuer, key_algorithm: str, now_s: int) -> Signer | None:
        """Return the newest valid signer of the issuer that has a key of this algorithm, or None."""
        for signer in self._choice(issuer).signers:
            if signer.key_algorithm == key_algorithm and signer.is_valid(now_s):
                return signer
        return None

    def adopted(self, issuer: Issuer, now_s: int) -> Signer | None:
        """Return the newest valid signer of the issuer that was made elsewhere, or None."""
        found = [item for item in self._choice(issuer).signers if item.is_adopted and item.is_valid(now_s)]
        return max(found, key=lambda signer: signer.not_before_s, default=None)

    def prepare(self, issuers: Iterable[Issuer]) -> None:
        """Find out who may sign for *issuers*: 0.2 ms for each certificate that is new, else 10 µs.

        To be called by whoever loaded the set, before anybody else has it.
        """
        for issuer in issuers:
            self._choice(issuer)

    def _choice(self, issuer: Issuer) -> _Choice:
        """Return who may sign for *issuer* as it is now, found out once."""
        choice = self._of.get(issuer.issuer_id)
        if choice is None or choice.issuer is not issuer:
            choice = self._of[issuer.issuer_id] = self._choose(issuer)
        return choice

    def _choose(self, issuer: Issuer) -> _Choice:
        mine = []
        for signer in sorted(self.signers, key=lambda signer: signer.key_algorithm != self._default):
            if signer.issuer_id != issuer.issuer_id or signer.serial in issuer.dropped:
                continue
            # Whoever brought the certificate here may have mistaken the issuer's number.
            if _may_answer(
                signer.certificate_der, issuer.spki_der, issuer.names_der, issuer.certificates_der
            ):
                mine.append(signer)
        every_way = [
            signer if at == 0 else signer.with_hash_of(name)
            for signer in mine
            for at, name in enumerate(_signature_algorithms(signer.key))
        ]
        return _Choice(issuer, tuple(mine), tuple(every_way))


class _Choice(NamedTuple):
    """Who may sign for an issuer, the default algorithm's first, newest first; and each by every hash."""

    issuer: Issuer
    signers: tuple[Signer, ...]
    every_way: tuple[Signer, ...]


@dataclass(frozen=True, slots=True)
class PendingRequest:
    """A request that waits for its answer; ``digest`` names it."""

    text: bytes
    digest: str
    made_s: int


class HostKeys:
    """The keys of the host whose folder is ``STATE/host``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.keys_folder = folder / "keys"

    @property
    def host(self) -> str:
        """The host's name as it is enrolled.

        Raises: KeyFileError — ``host.toml`` is absent or says none.
        """
        path = self.folder / "host.toml"
        try:
            name = tomllib.loads(path.read_text(encoding="utf-8")).get("name")
        except OSError as exc:
            raise KeyFileError(f"{path}: {exc.strerror}; this is no responder host yet") from exc
        except ValueError as exc:
            raise KeyFileError(f"{path}: {exc}") from exc
        if not isinstance(name, str) or not name:
            raise KeyFileError(f'{path}: expected name = "..."')
        return name

    # --- asking ------------------------------------------------------------------------------------

    def request(self, issuer_id: int, algorithm: str, now_s: int, key_uri: str = "") -> PendingRequest:
        """Return the request that waits, or make a new key and a request for it.

        *algorithm*: one of ``config.KEY_ALGORITHMS``.  *key_uri*: the PKCS#11 token to make it in, if any.
        Raises: KeyFileError — no host key, or files that others can read.
        """
        waiting = self.pending(issuer_id, algorithm)
        if waiting is not None:
            return waiting
        self.keys_folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        key_path = self._pending_path(issuer_id, algorithm, ".key")
        # A key without a request is what a kill between the two leaves; it is as good as a new one.
        key = load_signer_key(key_path) if key_path.exists() else self._new_key(key_path, algorithm, key_uri)
        return self._write_request(issuer_id, algorithm, key, now_s)

    def renew_request(self, issuer_id: int, algorithm: str, now_s: int) -> PendingRequest:
        """Sign the waiting request anew over the same key, because the old one is too old to be taken."""
        key = load_signer_key(self._pending_path(issuer_id, algorithm, ".key"))
        return self._write_request(issuer_id, algorithm, key, now_s)

    def pending(self, issuer_id: int, algorithm: str) -> PendingRequest | None:
        """Return the request for a key of this algorithm that waits for its answer, if any."""
        path = self._pending_path(issuer_id, algorithm, ".req")
        try:
            text = path.read_bytes()
            request, _ = read_request(text)
        except FileNotFoundError:
            return None
        except MalformedRequest as exc:
            raise KeyFileError(f"{path}: {exc}") from exc
        return PendingRequest(text, request_digest(text), request.time_ms // 1000)

    def forget(self, issuer_id: int, algorithm: str) -> None:
        """Give the waiting request and its key up."""
        for suffix in (".req", ".key"):
            self._pending_path(issuer_id, algorithm, suffix).unlink(missing_ok=True)

    def _write_request(self, issuer_id: int, algorithm: str, key: SignerKey, now_s: int) -> PendingRequest:
        host = self.host
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"OCSP responder {host}"[:64])])
        csr = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, signature_hash(key))
        pem = csr.public_bytes(serialization.Encoding.PEM).decode()
        request = CertificateRequest(host, issuer_id, pem, now_s * 1000)
        text = request.sign(load_ed25519_private(self.folder / "host.key"))
        write_durable(self._pending_path(issuer_id, algorithm, ".req"), text)
        return PendingRequest(text, request_digest(text), now_s)

    def _new_key(self, path: Path, algorithm: str, key_uri: str) -> SignerKey:
        if key_uri:
            label = f"ocsp-{self.host}-{secrets.token_hex(8)}"
            key: SignerKey = make_key(parse_uri(key_uri).named(label), algorithm)
        else:
            key = generate_key(algorithm)
        _write_key(path, key)
        return key

    # --- installing --------------------------------------------------------------------------------

    def install(self, issuer: Issuer, certificate_der: bytes, now_s: int) -> Signer:
        """Take a certificate for the waiting key into use; doing it twice does no harm.

        Raises: KeyFileError — not issued by this issuer's key, not a responder's, expired, or over
                another key than the one that waits.
        """
        certificate = _parse_certificate(certificate_der)
        check_responder_certificate(certificate, issuer, now_s)
        stem = _stem(issuer.issuer_id, certificate)
        key_path = self.keys_folder / f"{stem}.key"
        algorithm = key_algorithm(certificate.public_key())
        if not key_path.exists():
            waiting = self._pending_path(issuer.issuer_id, algorithm, ".key")
            key = load_signer_key(waiting)
            if key.public_key() != certificate.public_key():
                raise KeyFileError(
                    f"certificate {_serial(certificate)} is not over the key that waits ({waiting})"
                )
            # The pending key is removed last: whenever this is interrupted, it can be done again.
            _write_key(key_path, key)
        pem = certificate.public_bytes(serialization.Encoding.PEM)
        write_durable(self.keys_folder / f"{stem}.crt", pem)
        self.forget(issuer.issuer_id, algorithm)
        return _signer(issuer.issuer_id, certificate, load_signer_key(key_path))

    def adopt(self, issuer: Issuer, certificate_der: bytes, key: SignerKey, now_s: int) -> Signer:
        """Take a key into use that was made elsewhere, with its certificate: a responder's, or the CA's own.

        Raises: KeyFileError — as ``install``, or the key is not the certificate's.
        Source: RFC 6960 §4.2.2.2 (the CA itself, or its delegate).
        """
        certificate = _parse_certificate(certificate_der)
        check_responder_certificate(certificate, issuer, now_s)
        if key.public_key() != certificate.public_key():
            raise KeyFileError(f"certificate {_serial(certificate)} is not over this key")
        stem = _stem(issuer.issuer_id, certificate, is_adopted=True)
        self.keys_folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        # The key first: a certificate without one is an error to whoever loads them.
        _write_key(self.keys_folder / f"{stem}.key", key)
        pem = certificate.public_bytes(serialization.Encoding.PEM)
        write_durable(self.keys_folder / f"{stem}.crt", pem)
        return _signer(issuer.issuer_id, certificate, key, is_adopted=True)

    # --- using -------------------------------------------------------------------------------------

    def look(self) -> tuple[tuple[str, int], ...]:
        """Return what shows, at little cost, whether certificates have come or gone since."""
        try:
            with os.scandir(self.keys_folder) as entries:
                return tuple(
                    sorted(
                        (entry.name, entry.stat().st_mtime_ns)
                        for entry in entries
                        if entry.name.endswith(".crt")
                    )
                )
        except OSError:
            return ()

    def load(self, default: str = "", before: SignerSet | None = None) -> SignerSet:
        """Return all installed signers, expired ones too; *default* as for ``SignerSet``.

        A pair that cannot be read, is exposed to others or does not belong together is among the set's
        ``unfit``, and keeps no other from being loaded.  If *before* has a signer of that name, it stays
        as it was read then: a token that is away for a moment ends no answers.
        """
        earlier = {} if before is None else {signer.pair: signer for signer in before.signers}
        signers, unfit = [], []
        for path in self._pairs():
            try:
                signer = _read_pair(path)
            except KeyFileError as exc:
                unfit.append(Unfit(path.stem, str(exc)))
                signer = earlier.get(path.stem)
            if signer is not None:
                signers.append(signer)
        return SignerSet(signers, default, unfit)

    def remove_expired(self, now_s: int) -> list[str]:
        """Remove pairs that expired a day ago; return their names."""
        removed = []
        for path in self._pairs():
            try:
                signer = _read_pair(path)
            except KeyFileError:
                # Whoever loads it says what is wrong.
                continue
            if signer is not None and signer.not_after_s + EXPIRED_KEPT_S < now_s:
                # The certificate first: a key without one is never loaded.
                for suffix in (".crt", ".key"):
                    path.with_suffix(suffix).unlink(missing_ok=True)
                removed.append(path.stem)
        if removed:
            sync_folder(self.keys_folder)
        return removed

    def _pairs(self) -> list[Path]:
        """Return the certificates' files of all pairs."""
        return [path for path in sorted(self.keys_folder.glob("*.crt")) if _PAIR.fullmatch(path.stem)]

    def _pending_path(self, issuer_id: int, algorithm: str, suffix: str) -> Path:
        return self.keys_folder / f"{issuer_id}-pending-{algorithm}{suffix}"


def check_responder_certificate(certificate: x509.Certificate, issuer: Issuer, now_s: int) -> None:
    """Check that *certificate* lets its key answer for *issuer*: a delegate's, or the CA's own.

    Raises: KeyFileError — see ``HostKeys.install``.
    Source: RFC 6960 §4.2.2.2: the CA itself, or issued directly by it with id-kp-OCSPSigning.
    """
    name = f"certificate {_serial(certificate)}"
    key_algorithm(certificate.public_key())
    if certificate.not_valid_after_utc.timestamp() < now_s:
        raise KeyFileError(f"{name} expired at {certificate.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}")
    if _is_ca_of(certificate, issuer.spki_der, issuer.names_der):
        return
    if not _is_issued_by(certificate, issuer.certificates_der):
        raise KeyFileError(f"{name} is not issued by {issuer.path}")
    if not _is_for_answers(certificate):
        raise KeyFileError(f"{name} is not for signing OCSP answers")


@lru_cache(maxsize=_JUDGED_MAX)
def _may_answer(
    certificate_der: bytes, spki_der: bytes, names_der: tuple[bytes, ...], certificates_der: tuple[bytes, ...]
) -> bool:
    """Say whether the certificate is a responder's of the issuer that has these, or the issuer's own.

    Remembered, because it takes a verification, and each new issuer table asks it of all again.
    """
    certificate = load_certificate(certificate_der)
    is_delegate = _is_issued_by(certificate, certificates_der) and _is_for_answers(certificate)
    return is_delegate or _is_ca_of(certificate, spki_der, names_der)


def _is_for_answers(certificate: x509.Certificate) -> bool:
    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return False
    return ExtendedKeyUsageOID.OCSP_SIGNING in usage


def _is_ca_of(certificate: x509.Certificate, spki_der: bytes, names_der: tuple[bytes, ...]) -> bool:
    """Say whether *certificate* is a CA certificate of an issuer itself: its key under its name."""
    try:
        is_ca = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        is_ca = False
    own_spki_der = certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return is_ca and own_spki_der == spki_der and certificate.subject.public_bytes() in names_der


def key_algorithm(key: object) -> str:
    """Return a public or private key's algorithm as the configuration calls it, e.g. ``p256``.

    Raises: KeyFileError — no key that answers may be signed with.
    Source: RFC 6960 §5.1.2 (no weak algorithm).
    """
    if isinstance(key, (rsa.RSAPublicKey, rsa.RSAPrivateKey)):
        if key.key_size < RSA_BITS_MIN:
            raise KeyFileError(f"an RSA key of {key.key_size} bits, at least {RSA_BITS_MIN} are needed")
        return f"rsa{key.key_size}"
    if isinstance(key, (ec.EllipticCurvePublicKey, ec.EllipticCurvePrivateKey)):
        name = CURVE_NAMES.get(key.curve.name)
        if name is not None:
            return name
    raise KeyFileError("expected an RSA key, or an EC key on P-256, P-384 or P-521")


def _is_issued_by(certificate: x509.Certificate, certificates_der: tuple[bytes, ...]) -> bool:
    for ca_certificate_der in certificates_der:
        try:
            certificate.verify_directly_issued_by(load_certificate(ca_certificate_der))
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
            continue
        return True
    return False


def _parse_certificate(certificate_der: bytes) -> x509.Certificate:
    """Return the certificate; its key and extensions can be read, too."""
    try:
        certificate = load_certificate(certificate_der)
    except ValueError as exc:
        raise KeyFileError("a responder certificate: not DER") from exc
    try:
        _read_through(certificate)
    except _UNREADABLE as exc:
        raise KeyFileError(f"a responder certificate cannot be read: {exc}") from exc
    return certificate


def _read_through(certificate: x509.Certificate) -> None:
    """Read what `cryptography` puts off, so that nobody is surprised by it.  Raises: any of _UNREADABLE."""
    certificate.public_key()
    list(certificate.extensions)


def _serial(certificate: x509.Certificate) -> str:
    return integer_content(certificate.serial_number).hex()


def _stem(issuer_id: int, certificate: x509.Certificate, *, is_adopted: bool = False) -> str:
    # The whole number: those of a CA that counts begin alike.
    return f"{issuer_id}-{_serial(certificate)}{_ADOPTED if is_adopted else ''}"


def _read_pair(path: Path) -> Signer | None:
    """Return the signer whose certificate is in *path*, its key beside it; None if it has gone meanwhile.

    Raises: KeyFileError — unreadable, exposed to others, of no use, or another certificate's key.
    """
    name = _PAIR.fullmatch(path.stem)
    assert name is not None
    key_path = path.with_suffix(".key")
    try:
        certificate = load_certificate(path.read_bytes())
        _read_through(certificate)
        key = load_signer_key(key_path, check_primes=False)
        if key.public_key() != certificate.public_key() or not _signs(key):
            raise KeyFileError(f"{key_path}: not the key of {path.name}")
        signer = _signer(int(name[1]), certificate, key, is_adopted=name[2] is not None)
        return replace(signer, pair=path.stem)
    except _UNREADABLE as exc:
        raise KeyFileError(f"{path}: not a certificate of a key known here") from exc
    except (OSError, KeyFileError) as exc:
        # The agent removes expired pairs, certificate first, while workers look.
        if not path.exists():
            return None
        if isinstance(exc, OSError):
            raise KeyFileError(f"{path}: {exc.strerror}") from exc
        if str(path.parent) not in str(exc):
            # A key of no use, or a token's trouble, says nothing of where it was met.
            raise KeyFileError(f"{key_path}: {exc}") from exc
        raise


def _signer(
    issuer_id: int, certificate: x509.Certificate, key: SignerKey, *, is_adopted: bool = False
) -> Signer:
    spki = certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    algorithm = _signature_algorithms(key)[0]
    algorithm_der, sign = _signing(key, algorithm)
    return Signer(
        issuer_id=issuer_id,
        serial=_serial(certificate),
        certificate_der=certificate.public_bytes(serialization.Encoding.DER),
        key=key,
        key_algorithm=key_algorithm(key),
        signature_algorithm=algorithm,
        signature_algorithm_der=algorithm_der,
        responder_key_hash=responder_key_hash(spki),
        not_before_s=int(certificate.not_valid_before_utc.timestamp()),
        not_after_s=int(certificate.not_valid_after_utc.timestamp()),
        sign=sign,
        is_adopted=is_adopted,
    )


def _signature_algorithms(key: SignerKey) -> tuple[str, ...]:
    """Return the algorithms *key* can sign by, the one that goes with its strength first."""
    if isinstance(key, rsa.RSAPrivateKey):
        return (oid.SHA256_WITH_RSA, oid.SHA384_WITH_RSA, oid.SHA512_WITH_RSA)
    every = (oid.ECDSA_WITH_SHA256, oid.ECDSA_WITH_SHA384, oid.ECDSA_WITH_SHA512)
    own = {"p256": 0, "p384": 1, "p521": 2}[key_algorithm(key)]
    return (every[own], *[name for name in every if name != every[own]])


def _signing(key: SignerKey, algorithm: str) -> tuple[bytes, Callable[[bytes], bytes]]:
    """Return the AlgorithmIdentifier (DER) of *algorithm*, and the function that signs so with *key*."""
    algorithm_der, digest, hash_of = _ALGORITHMS[algorithm]
    # hashlib's digest passed as Prehashed: a P-256 signature takes 25 µs so, and 31 the plain way.
    prehashed = Prehashed(hash_of)
    if isinstance(key, rsa.RSAPrivateKey):
        pkcs1 = padding.PKCS1v15()
        return algorithm_der, lambda tbs: key.sign(digest(tbs).digest(), pkcs1, prehashed)
    ecdsa = ec.ECDSA(prehashed)
    return algorithm_der, lambda tbs: key.sign(digest(tbs).digest(), ecdsa)


def _curve(key: SignerKey) -> str:
    return "" if isinstance(key, rsa.RSAPrivateKey) else _CURVES[key_algorithm(key)]


def _write_key(path: Path, key: SignerKey) -> None:
    """Write *key* into its file; of one in a token, where it is."""
    if isinstance(key, (TokenECKey, TokenRSAKey)):
        content = f"{key.uri}\n".encode()
    else:
        content = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    write_durable(path, content, SECRET_MODE)


def _signs(key: SignerKey) -> bool:
    """Say whether an RSA key whose primes nobody has checked makes signatures that hold (0.4 ms)."""
    if not isinstance(key, rsa.RSAPrivateKey) or isinstance(key, TokenRSAKey):
        return True
    try:
        signature = key.sign(b"", padding.PKCS1v15(), hashes.SHA256())
        key.public_key().verify(signature, b"", padding.PKCS1v15(), hashes.SHA256())
    except (InvalidSignature, ValueError, InternalError):
        return False
    return True


def load_signer_key(path: Path, passphrase: bytes | None = None, *, check_primes: bool = True) -> SignerKey:
    """Return the private key in the PEM file *path*, or the one that the PKCS#11 URI in it names.

    Only its owner may be able to read the file.  To check the primes of an RSA key takes 40 to 120 ms, for
    which nothing else of the process runs; whoever leaves it out is to see whether the key signs.
    Raises: KeyFileError — exposed, another passphrase (or none) needed, or another kind of key.
    """
    content = read_secret(path)
    if content.startswith(SCHEME.encode()):
        return open_key(parse_uri(content.decode(errors="replace")))
    try:
        key = serialization.load_pem_private_key(
            content, passphrase, unsafe_skip_rsa_key_validation=not check_primes
        )
    except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
        how = "not an unencrypted PEM key" if passphrase is None else "not a PEM key under this passphrase"
        raise KeyFileError(f"{path}: {how}") from exc
    if not isinstance(key, (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey)):
        raise KeyFileError(f"{path}: expected an EC or RSA key")
    return key

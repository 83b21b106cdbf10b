"""What the responder's tests share: a CA, a publisher small enough to read, and requests on the wire.

``FeedWriter`` keeps the stream's rules by itself (it uses the formats, not the publisher), so that
it can also break them.
"""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import redis
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from certstatus.beat import NOTHING, Beat, Pointer, sign_beat
from certstatus.cert_id import encode_cert_id, issuer_hashes
from certstatus.changes import ChangeKind, fingerprint, first_chain, next_chain, pack_change, unpack_change
from certstatus.crl_catalogue import (
    CatalogueEntry,
    CatalogueRoot,
    CatalogueScope,
    cut_pages,
    encode_page,
    root_content,
    scopes_of_entries,
)
from certstatus.der import explicit, octet_string, sequence
from certstatus.der import oid as encode_oid
from certstatus.documents import document_pointer, encode_document
from certstatus.entitlements import KINDS, Verifier, entitlements_content, parse_network
from certstatus.feed_keys import APPEND, RAISE, FeedKeys
from certstatus.issuer_table import Issuer, issuer_table_content
from certstatus.leases import encode_seen, read_ack
from certstatus.oid import OCSP_NONCE
from certstatus.snapshot import CHUNK_BYTES, fold_changes, make_manifest, write_snapshot

SHA1, SHA256 = 1, 2
NAMESPACE = "t"
INDEX_KEY = bytes(range(32))
FAR_DAY = 40_000

_Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


class Clock:
    """A clock that stands still until told otherwise."""

    def __init__(self, now_ms: int) -> None:
        self.ms = now_ms
        self.steady_s = 1000.0

    def now_ms(self) -> int:
        return self.ms

    def monotonic_s(self) -> float:
        return self.steady_s

    def pass_s(self, seconds: float) -> None:
        """Let time pass on both."""
        self.ms += round(seconds * 1000)
        self.steady_s += seconds


class CA:
    """A certificate authority of one test, and the responder certificates it gives out."""

    def __init__(self, issuer_id: int, service: str, now_s: int) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"TEST CA {service} {issuer_id}")])
        self.not_before_s = now_s - 365 * 86_400
        certificate = (
            self._builder(self.name, self.key.public_key(), self.not_before_s, now_s + 10 * 365 * 86_400)
            .add_extension(x509.BasicConstraints(True, 0), True)
            .sign(self.key, hashes.SHA256())
        )
        self.certificate = certificate
        self.name_der = self.name.public_bytes()
        self.spki_der = self.key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self.hashes = issuer_hashes(self.name_der, self.spki_der)
        self.issuer = Issuer(
            issuer_id=issuer_id,
            service=service,
            generation=1,
            names_der=(self.name_der,),
            spki_der=self.spki_der,
            key_id=hashlib.sha1(self.spki_der).digest(),
            certificates_der=(certificate.public_bytes(serialization.Encoding.DER),),
        )

    def _builder(
        self,
        subject: x509.Name,
        public_key: CertificatePublicKeyTypes,
        not_before_s: int,
        not_after_s: int,
        serial: int | None = None,
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(public_key)
            .serial_number(x509.random_serial_number() if serial is None else serial)
            .not_valid_before(datetime.fromtimestamp(not_before_s, UTC))
            .not_valid_after(datetime.fromtimestamp(not_after_s, UTC))
        )

    def install_responder(
        self, keys_folder: Path, now_s: int, life_s: int = 7 * 86_400, algorithm: str = "p256"
    ) -> str:
        """Put a responder key and certificate where a host keeps them; return its serial in hex."""
        key: _Key
        if algorithm.startswith("rsa"):
            key = rsa.generate_private_key(65537, int(algorithm.removeprefix("rsa")))
        else:
            key = ec.generate_private_key(ec.SECP384R1() if algorithm == "p384" else ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "OCSP responder")])
        certificate = (
            self._builder(subject, key.public_key(), now_s - 60, now_s + life_s)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING]), False)
            .add_extension(x509.OCSPNoCheck(), False)
            .sign(self.key, hashes.SHA256())
        )
        number = certificate.serial_number
        serial = number.to_bytes(number.bit_length() // 8 + 1, "big").hex()
        keys_folder.mkdir(parents=True, exist_ok=True)
        path = keys_folder / f"{self.issuer.issuer_id}-{serial[:16]}.key"
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        path.chmod(0o600)
        path.with_suffix(".crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return serial

    # --- requests ------------------------------------------------------------------------------------

    def cert_id_der(self, n: int, alg: int = SHA1) -> bytes:
        """The CertID of test certificate *n*."""
        both = self.hashes[alg]
        half = len(both) // 2
        return encode_cert_id(alg, both[:half], both[half:], serial_of(n))

    def request(self, *numbers: int, alg: int = SHA1, nonce: bytes | None = None) -> bytes:
        """An OCSPRequest for the test certificates *numbers*."""
        return request_der([self.cert_id_der(n, alg) for n in numbers], nonce)


def request_der(cert_ids: list[bytes], nonce: bytes | None = None) -> bytes:
    """An OCSPRequest for these CertIDs."""
    parts = [sequence(*[sequence(cert_id) for cert_id in cert_ids])]
    if nonce is not None:
        extension = sequence(encode_oid(OCSP_NONCE), octet_string(octet_string(nonce)))
        parts.append(explicit(2, sequence(extension)))
    return sequence(sequence(*parts))


def serial_of(n: int) -> bytes:
    """The content octets of test certificate *n*'s serial number."""
    return b"\x01" + n.to_bytes(7, "big")


def get_request(der: bytes, version: str = "1.1", headers: str = "Host: localhost\r\n") -> bytes:
    """The GET that asks *der*."""
    path = quote(base64.b64encode(der).decode(), safe="")
    return f"GET /ocsp/{path} HTTP/{version}\r\n{headers}\r\n".encode()


def post_request(der: bytes, version: str = "1.1", headers: str = "Host: localhost\r\n") -> bytes:
    """The POST that asks *der*."""
    return (
        f"POST /ocsp HTTP/{version}\r\n{headers}Content-Type: application/ocsp-request\r\n"
        f"Content-Length: {len(der)}\r\n\r\n"
    ).encode() + der


class FeedWriter:
    """A publisher of one epoch: changes, documents, snapshots, beats."""

    def __init__(
        self,
        client: redis.Redis,
        publisher_key: Ed25519PrivateKey,
        now_ms: int,
        epoch: bytes | None = None,
    ) -> None:
        # redis-py types every answer as "this, or an awaitable of this".
        self.client: Any = client
        self.publisher_key = publisher_key
        self.epoch = epoch or now_ms.to_bytes(8, "big") + bytes(8)
        self.keys = FeedKeys(NAMESPACE, self.epoch)
        self.now_ms = now_ms
        self.packed: list[bytes] = []
        self.waiting: list[bytes] = []
        self.chain = first_chain(self.epoch)
        self.pointers: dict[str, Pointer] = {}
        self.snapshot = NOTHING
        self.last_id = ""
        client.eval(RAISE, 1, self.keys.epoch_key, self.epoch.hex())

    @property
    def seq(self) -> int:
        """The number of the last change."""
        return len(self.packed)

    # --- changes -------------------------------------------------------------------------------------

    def change(
        self,
        kind: ChangeKind,
        n: int = 0,
        issuer_id: int = 1,
        reason: int | None = None,
        day: int = FAR_DAY,
        recorded_ms: int | None = None,
    ) -> int:
        """Record one change; it goes out with the next beat.  Returns its number."""
        print_of = fingerprint(serial_of(n), INDEX_KEY) if n else bytes(12)
        at_ms = self.now_ms if recorded_ms is None else recorded_ms
        packed = pack_change(kind, issuer_id, print_of, day, reason, at_ms, self.seq + 1)
        self.packed.append(packed)
        self.waiting.append(packed)
        self.chain = next_chain(self.chain, packed)
        return self.seq

    def issue(self, *numbers: int, issuer_id: int = 1, day: int = FAR_DAY) -> None:
        """Record test certificates as issued."""
        for n in numbers:
            self.change(ChangeKind.ISSUED, n, issuer_id, day=day)

    def revoke(self, n: int, issuer_id: int = 1, reason: int | None = 1, day: int = FAR_DAY) -> int:
        """Record a revocation."""
        return self.change(ChangeKind.REVOKED, n, issuer_id, reason, day)

    # --- documents -----------------------------------------------------------------------------------

    def publish(self, kind: str, content: dict[str, Any]) -> Pointer:
        """Put a document where the next beat will name it."""
        text = encode_document(content)
        self.pointers[kind] = pointer = document_pointer(text)
        self.client.set(self.keys.document(kind, pointer.generation), text)
        return pointer

    def _generation(self, kind: str) -> int:
        return self.pointers.get(kind, NOTHING).generation + 1

    def issuers(self, *issuers: Issuer) -> None:
        """Publish the issuer table."""
        self.publish("issuers", issuer_table_content(self._generation("issuers"), list(issuers)))

    def verifiers(self, *verifiers: Verifier) -> None:
        """Publish the entitlements."""
        self.publish("entitlements", entitlements_content(self._generation("entitlements"), list(verifiers)))

    def crls(self, *entries: CatalogueEntry) -> None:
        """Publish the CRL catalogue."""
        generation = self._generation("crls")
        self.crl_scopes(scopes_of_entries(entries, {}, generation), generation)

    def crl_scopes(self, scopes: list[CatalogueScope], generation: int) -> list[str]:
        """Publish a CRL catalogue of these scopes; returns its pages."""
        pages = {hashlib.sha256(page).hexdigest(): page for page in map(encode_page, cut_pages(scopes))}
        if pages:
            self.client.hset(self.keys.catalogue_pages(), mapping=pages)
        self.publish("crls", root_content(CatalogueRoot(generation, tuple(pages), None)))
        return list(pages)

    def make_snapshot(self, folder: Path) -> Path:
        """Make the snapshot of everything so far and put it into Valkey; the next beat names it."""
        path = folder / f"published-{self.seq}.idx"
        folded = fold_changes([unpack_change(packed) for packed in self.packed], None)
        write_snapshot(path, self.epoch, self.seq, self.now_ms, self.chain, folded)
        content = path.read_bytes()
        for number, at in enumerate(range(0, len(content), CHUNK_BYTES)):
            self.client.set(self.keys.chunk(self.seq, number), content[at : at + CHUNK_BYTES])
        text = make_manifest(path).encode()
        self.client.set(self.keys.manifest(self.seq), text)
        self.snapshot = Pointer(self.seq, hashlib.sha256(text).digest())
        return path

    # --- beats ---------------------------------------------------------------------------------------

    def make_beat(self) -> Beat:
        """The beat that would go out now."""
        kinds = [self.pointers.get(kind, NOTHING) for kind in ("entitlements", "issuers", "crls")]
        return Beat(self.epoch, self.seq, self.now_ms, self.chain, self.snapshot, *kinds)

    def beat(self, now_ms: int | None = None, confirm: bool = True, signed: bytes | None = None) -> Beat:
        """Append what waits and a beat, in one call as the publisher does; returns the beat."""
        self.now_ms = max(self.now_ms + 1, self.now_ms if now_ms is None else now_ms)
        beat = self.make_beat()
        if confirm:
            self.confirm()
        self.append(self.waiting, beat, signed or sign_beat(beat, self.publisher_key))
        self.waiting = []
        return beat

    def append(self, changes: list[bytes], beat: Beat, signed: bytes) -> None:
        """Append to the stream by the script, whatever it is."""
        arguments: list[Any] = ["append", self.last_id, len(changes)]
        for packed in changes:
            arguments += (f"{unpack_change(packed).seq}-0", packed)
        last = self.client.eval(APPEND, 1, self.keys.stream, *arguments, beat.entry_id, signed)
        assert last == beat.entry_id.encode(), last
        self.last_id = beat.entry_id

    def confirm(self) -> None:
        """Let the workers that have said so be seen."""
        for key in self.client.smembers(self.keys.acks()):
            ack = read_ack(self.client.get(key))
            self.client.set(self.keys.seen(ack.host, ack.slot), encode_seen(ack.incarnation, 0))

    def acked(self, host: str = "h", slot: int = 0) -> tuple[int, str]:
        """What a worker has acknowledged, and its incarnation; (-1, "") before it has."""
        text = self.client.get(self.keys.ack(host, slot))
        if text is None:
            return -1, ""
        ack = read_ack(text)
        return ack.applied_seq, ack.incarnation


def everybody(
    verifier_id: int = 7,
    network: str = "127.0.0.0/8",
    services: tuple[str, ...] = ("SIGN", "AUTH"),
    from_day: int | None = None,
    until_day: int | None = None,
) -> Verifier:
    """A verifier that may ask everything from *network*."""
    grants: dict[str, tuple[str, ...]] = dict.fromkeys(services, KINDS)
    networks = (parse_network(network),)
    return Verifier(verifier_id, f"verifier {verifier_id}", networks, grants, from_day, until_day)

"""What an OCSP answer says, told by four readers in one form, so that they can be compared field by field.

Knows: our reader, cryptography, asn1crypto and the text that ``openssl ocsp`` prints.
Does not know: which of them is right.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from asn1crypto import core
from asn1crypto import ocsp as asn1_ocsp
from crl_facts import REASONS, TEXT_ALGORITHMS, openssl_time_s
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from certstatus import cert_id, oid
from certstatus.ocsp_response import parse_response

_STATUS_WORDS = ("good", "revoked", "unknown")
_BY_WORD = {word: number for number, words in REASONS.items() for word in words}
_HASHES = {
    cert_id.SHA1: "sha1",
    cert_id.SHA256: "sha256",
    cert_id.SHA384: "sha384",
    cert_id.SHA512: "sha512",
}


class SingleFacts(NamedTuple):
    """What is said of one certificate; times in POSIX seconds."""

    hash_alg: str
    name_hash: bytes
    key_hash: bytes
    serial: int
    status: str
    revoked_at_s: int | None
    reason: int | None
    this_update_s: int
    next_update_s: int | None


class OCSPFacts(NamedTuple):
    """An answer; extensions as (dotted identifier, critical, value), None where a reader cannot tell.

    single_extensions   for each certificate
    """

    key_hash: bytes | None
    produced_at_s: int
    singles: tuple[SingleFacts, ...]
    nonce: bytes | None
    algorithm: str
    signature: bytes
    certificates: tuple[bytes, ...] | None
    extensions: tuple[tuple[str, bool, bytes], ...] | None
    single_extensions: tuple[tuple[tuple[str, bool, bytes], ...], ...] | None


def by_us(response_der: bytes) -> OCSPFacts:
    """As certstatus reads it."""
    basic = parse_response(response_der).basic
    assert basic is not None
    return OCSPFacts(
        basic.responder_key_hash,
        basic.produced_at_s,
        tuple(
            SingleFacts(
                _HASHES[single.cert_id.hash_alg],
                single.cert_id.issuer_name_hash,
                single.cert_id.issuer_key_hash,
                int.from_bytes(single.cert_id.serial, "big", signed=True),
                _STATUS_WORDS[single.status],
                single.revocation_time_s,
                single.reason,
                single.this_update_s,
                single.next_update_s,
            )
            for single in basic.singles
        ),
        basic.nonce,
        basic.signature_algorithm,
        basic.signature,
        basic.certs_der,
        tuple((item.oid, item.critical, item.value) for item in basic.extensions),
        tuple(tuple((one.oid, one.critical, one.value) for one in item.extensions) for item in basic.singles),
    )


def by_cryptography(response_der: bytes) -> OCSPFacts:
    """As ``cryptography`` reads it, which shows the single extensions of a lone certificate only."""
    response = ocsp.load_der_ocsp_response(response_der)
    singles = list(response.responses)
    extensions = {item.oid.dotted_string: item for item in response.extensions}
    nonce = extensions.get(oid.OCSP_NONCE)
    return OCSPFacts(
        response.responder_key_hash,
        int(response.produced_at_utc.timestamp()),
        tuple(map(_cryptography_single, singles)),
        None if nonce is None else nonce.value.nonce,
        response.signature_algorithm_oid.dotted_string,
        response.signature,
        tuple(item.public_bytes(Encoding.DER) for item in response.certificates),
        tuple((name, item.critical, item.value.public_bytes()) for name, item in extensions.items()),
        None
        if len(singles) > 1
        else (
            tuple(
                (item.oid.dotted_string, item.critical, item.value.public_bytes())
                for item in response.single_extensions
            ),
        ),
    )


def _cryptography_single(item: ocsp.OCSPSingleResponse) -> SingleFacts:
    return SingleFacts(
        item.hash_algorithm.name,
        item.issuer_name_hash,
        item.issuer_key_hash,
        item.serial_number,
        item.certificate_status.name.lower(),
        _second(item.revocation_time_utc),
        None if item.revocation_reason is None else _BY_WORD[item.revocation_reason.value],
        int(item.this_update_utc.timestamp()),
        _second(item.next_update_utc),
    )


def by_asn1crypto(response_der: bytes) -> OCSPFacts:
    """As asn1crypto reads it."""
    response: Any = asn1_ocsp.OCSPResponse.load(response_der, strict=True)
    basic = response["response_bytes"]["response"].parsed
    data = basic["tbs_response_data"]
    extensions = _asn1_extensions(data["response_extensions"])
    nonce = next((value for name, _, value in extensions if name == oid.OCSP_NONCE), None)
    return OCSPFacts(
        data["responder_id"].chosen.native,
        int(data["produced_at"].native.timestamp()),
        tuple(map(_asn1_single, data["responses"])),
        None if nonce is None else core.OctetString.load(nonce, strict=True).native,
        basic["signature_algorithm"]["algorithm"].dotted,
        basic["signature"].native,
        tuple(item.dump() for item in basic["certs"] or ()),
        extensions,
        tuple(_asn1_extensions(item["single_extensions"]) for item in data["responses"]),
    )


def _asn1_single(item: Any) -> SingleFacts:
    named, status = item["cert_id"], item["cert_status"]
    revoked = status.name == "revoked"
    # An absent reason is given as unspecified.
    reason = status.chosen["revocation_reason"].native if revoked else None
    return SingleFacts(
        named["hash_algorithm"]["algorithm"].native,
        named["issuer_name_hash"].native,
        named["issuer_key_hash"].native,
        named["serial_number"].native,
        status.name,
        _second(status.chosen["revocation_time"].native) if revoked else None,
        _BY_WORD.get(str(reason)),
        int(item["this_update"].native.timestamp()),
        _second(item["next_update"].native),
    )


def _asn1_extensions(items: Any) -> tuple[tuple[str, bool, bytes], ...]:
    return tuple(
        (item["extn_id"].dotted, bool(item["critical"].native), item["extn_value"].contents)
        for item in items or ()
    )


def _second(when: datetime | None) -> int | None:
    return None if when is None else int(when.timestamp())


def by_openssl(response_der: bytes) -> OCSPFacts:
    """As ``openssl ocsp -resp_text`` prints it."""
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(response_der)
        words = ["openssl", "ocsp", "-respin", file.name, "-resp_text", "-noverify"]
        done = subprocess.run(words, capture_output=True, check=True, timeout=60)
    # Long octet strings go on in the next line after a backslash.
    text = done.stdout.decode().replace("\\\n", "").partition("\nCertificate:\n")[0]
    assert "OCSP Response Status: successful (0x0)" in text
    data, _, signed = text.partition("    Signature Algorithm: ")
    head, *pieces = data.split("    Certificate ID:\n")
    algorithm, _, signature = signed.partition("\n")
    nonce = re.search(r"^        OCSP Nonce: *\n +([0-9A-F]+)$", data, re.MULTILINE)
    key_hash = _after(head, "Responder Id")
    produced = _after(head, "Produced At")
    assert key_hash is not None
    assert produced is not None
    return OCSPFacts(
        bytes.fromhex(key_hash),
        openssl_time_s(produced),
        tuple(map(_text_single, pieces)),
        # Printed with the OCTET STRING around it.
        None if nonce is None else core.OctetString.load(bytes.fromhex(nonce[1]), strict=True).native,
        TEXT_ALGORITHMS[algorithm.strip()],
        bytes.fromhex(re.sub(r"[\s:]", "", signature.partition("Signature Value:")[2].partition("W")[0])),
        None,
        None,
        None,
    )


def _text_single(text: str) -> SingleFacts:
    found = {
        name: _after(text, name)
        for name in (
            *("Hash Algorithm", "Issuer Name Hash", "Issuer Key Hash", "Serial Number", "Cert Status"),
            *("Revocation Time", "Revocation Reason", "This Update", "Next Update"),
        )
    }
    revoked_at, reason, next_update = (
        found["Revocation Time"],
        found["Revocation Reason"],
        found["Next Update"],
    )
    return SingleFacts(
        found["Hash Algorithm"] or "",
        bytes.fromhex(found["Issuer Name Hash"] or ""),
        bytes.fromhex(found["Issuer Key Hash"] or ""),
        int(found["Serial Number"] or "", 16),
        found["Cert Status"] or "",
        None if revoked_at is None else openssl_time_s(revoked_at),
        None if reason is None else int(reason.rpartition("(")[2].rstrip(")"), 16),
        openssl_time_s(found["This Update"] or ""),
        None if next_update is None else openssl_time_s(next_update),
    )


def _after(text: str, label: str) -> str | None:
    found = re.search(rf"^ *{label}: (.*)$", text, re.MULTILINE)
    return None if found is None else found[1].strip()


READERS = {"us": by_us, "cryptography": by_cryptography, "asn1crypto": by_asn1crypto, "openssl": by_openssl}


def agreed(response_der: bytes) -> OCSPFacts:
    """What all readers say; an AssertionError names the first field on which one of them differs."""
    mine = by_us(response_der)
    for name, reader in READERS.items():
        theirs = reader(response_der)
        for field, ours, other in zip(OCSPFacts._fields, mine, theirs, strict=True):
            is_told = other is not None or field == "nonce"
            assert not is_told or ours == other, f"{field}: we read {ours!r}, {name} {other!r}"
    return mine

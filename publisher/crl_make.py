"""Making one CRL file, and checking it from its bytes before anybody may see it.

::

    rows ─▶ lint ─▶ hidden file, signed ─▶ read back: signature, fields, rows, base + delta ─▶ named

Both ways go block by block, so neither holds the list.  Base and delta are joined by digests, sums to which
rows can be added and from which they can be taken: that of the base's bytes, without the rows that the
delta's bytes speak of, with what they say instead, must be that of the list.  So the base is not read.
Knows: which algorithm a CA key signs with, what of lint an issuer is held to, and what a finished file must
show.  What is compared comes from the file, never from what was meant to be written into it.
Does not know: numbers given out, schedules, the register of CRLs.
Source: RFC 5280 §5; RFC 3279, 4055, 5758 (algorithms).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from certstatus import oid
from certstatus.config import STATUTORY_SERVICES
from certstatus.crl import (
    CRLFields,
    ParsedHead,
    encode_certificate_list,
    encode_tbs_cert_list,
    parse_certificate_list,
)
from certstatus.crl_combine import combine_findings
from certstatus.crl_lint import WARNINGS, lint_facts, lint_head
from certstatus.crl_reason import CRLReason
from certstatus.crl_row_facts import RowFacts
from certstatus.crl_rows import DIGEST_END, Rows, digest_of, empty_rows, joined, keys
from certstatus.crl_rows_file import RowsFile
from certstatus.crl_rows_merge import same_rows
from certstatus.crl_stream_decode import CRLFile, is_signed_by
from certstatus.crl_stream_encode import blocks_of, write_crl
from certstatus.errors import CRLCheckFailed
from certstatus.key_kinds import signature_hash
from issuance.ca_keys import CAKey
from issuance.issuers import IssuerRecord
from publisher.crl_list_changes import rows_at
from publisher.crl_scopes import CRLScope

# Lint looks at a whole head; before signing, this stands where the signature will be.
_NO_SIGNATURE = bytes(64)
# What an old CA may have done and must be listed all the same: certificates under 0 or a negative number,
# dates out of order.
_OLD_CA = WARNINGS | {"pkix.crl_serial_not_positive", "certstatus.crl_entry_after_this_update"}


class CRLHead(NamedTuple):
    """What a CRL says of itself; ``base_number`` None for a complete one.  Times in POSIX s.

    ``expired_from_s``: since when it keeps the entries of certificates that have ended, None: it does not.
    """

    number: int
    base_number: int | None
    this_update_s: int
    next_update_s: int
    expired_from_s: int | None = None


class CheckedCRL(NamedTuple):
    """A file that is what it must be: SHA-256 of its bytes, how many entries it has, digest of its rows."""

    sha256: bytes
    entries: int
    digest: int


class Joining(NamedTuple):
    """What a delta is checked with: its base's file; the digest of the rows in the base's bytes; the rows
    that the base has of those certificates of which the delta says something (ascending; others do no
    harm); the digest of the list at the delta's cut."""

    base_path: Path
    base_digest: int
    before: Rows
    listed_digest: int


def make_crl(
    path: Path, scope: CRLScope, head: CRLHead, rows: RowsFile | Rows, ca_key: CAKey, *, synced: bool = True
) -> Path:
    """Write the signed CRL beside *path* under a name nobody serves; return that name.

    Takes:  *rows*: the list, or what a delta says of it; *synced*: durably, which else is left to the caller.
    Raises: CRLCheckFailed — lint found something; nothing was signed.  OSError.  No file is left then.
    """
    fields = _fields(scope, head, ca_key)
    path.parent.mkdir(parents=True, exist_ok=True)
    hidden = path.with_name(f".{path.name}.{os.getpid()}.new")
    unsigned = encode_certificate_list(
        encode_tbs_cert_list(**fields._asdict(), entries=()), fields.signature_algorithm_der, _NO_SIGNATURE
    )
    parsed = parse_certificate_list(unsigned)
    write_crl(
        hidden,
        fields,
        rows,
        sign=lambda digest: sign(ca_key, digest),
        hash_name=signature_hash(ca_key).name,
        lint=lambda facts: _findings(scope, parsed, facts),
        synced=synced,
    )
    return hidden


def _fields(scope: CRLScope, head: CRLHead, ca_key: CAKey) -> CRLFields:
    return CRLFields(
        issuer_name_der=scope.issuer.name_der,
        signature_algorithm_der=signature_algorithm_der(ca_key),
        this_update_s=head.this_update_s,
        next_update_s=head.next_update_s,
        crl_number=head.number,
        aki_key_id=scope.issuer.key_id,
        base_crl_number=head.base_number,
        issuing_distribution_point_der=scope.idp_der,
        freshest_crl_der=scope.freshest_der if head.base_number is None else None,
        expired_certs_from_s=head.expired_from_s,
    )


def _findings(scope: CRLScope, parsed: ParsedHead, facts: RowFacts) -> list[str]:
    """Return what lint finds in a CRL of this issuer, of what the issuer is held to."""
    issuer = scope.issuer
    findings = lint_head(parsed, freshest_der=scope.freshest_der)
    findings += lint_facts(
        facts,
        delta=parsed.base_number is not None,
        hold_allowed=issuer.policy.hold,
        this_update_s=parsed.this_update_s,
    )
    passed_over = _passed_over(issuer)
    return [code for code in findings if code not in passed_over]


def _passed_over(issuer: IssuerRecord) -> frozenset[str]:
    codes = _OLD_CA if issuer.imported is not None else frozenset()
    if issuer.service not in STATUTORY_SERVICES:
        # Its policy may have had hold before; what is held then stays on the list.
        codes |= {"certstatus.crl_hold_without_hold"}
    return codes


def signature_algorithm_der(ca_key: CAKey) -> bytes:
    """Return the AlgorithmIdentifier a CA key signs with."""
    if isinstance(ca_key, rsa.RSAPrivateKey):
        return oid.SHA256_WITH_RSA_DER
    strong = isinstance(signature_hash(ca_key), hashes.SHA384)
    return oid.ECDSA_WITH_SHA384_DER if strong else oid.ECDSA_WITH_SHA256_DER


def sign(ca_key: CAKey, digest: bytes) -> bytes:
    """Return the signature over what has *digest* by the key's hash."""
    hashed = Prehashed(signature_hash(ca_key))
    if isinstance(ca_key, rsa.RSAPrivateKey):
        return ca_key.sign(digest, padding.PKCS1v15(), hashed)
    return ca_key.sign(digest, ec.ECDSA(hashed))


def read_and_check(
    path: Path, scope: CRLScope, head: CRLHead, says: RowsFile | Rows | None, joins: Joining | None = None
) -> CheckedCRL:
    """Read the file at *path* and check all that it must be.

    Takes:   *says*: what it was to say, for a complete CRL the list as it stands at its cut; None: nobody
             knows, its signature must do; *joins*: for a delta, its base and the list that both make.
    Raises:  CRLCheckFailed — with every finding; DERError — not a CRL at all; IntegrityError — a file of rows
             is damaged.
    Memory:  a delta's entries, and a few blocks.
    """
    with CRLFile(path) as file:
        reading, facts = file.reading(), RowFacts()
        found = _Summed(reading.rows(facts))
        delta = empty_rows() if head.base_number is None else joined(found)
        if says is None:
            differs = False
        else:
            differs = not same_rows(found if head.base_number is None else [delta], _checked(says))
        for _ in found:
            # Where they differ, reading has stopped; the digests are of the whole file.
            pass
        digests = reading.digests()
        findings = _findings(scope, file.head, facts) + _head_findings(scope, head, file.head)
        if not is_signed_by(file.head, digests.signed, scope.issuer.spki_der):
            findings.append("certstatus.crl_signature_wrong")
        if differs:
            findings.append("certstatus.crl_entries_differ")
        if head.base_number is not None:
            findings += _delta_findings(file.head, delta, joins)
    if findings:
        raise CRLCheckFailed(list(dict.fromkeys(findings)))
    return CheckedCRL(digests.whole, facts.count, found.digest)


class _Summed:
    """Rows that are summed up as they are taken."""

    def __init__(self, blocks: Iterator[Rows]) -> None:
        self._blocks = blocks
        self.digest = 0

    def __iter__(self) -> Iterator[Rows]:
        return self

    def __next__(self) -> Rows:
        rows = next(self._blocks)
        self.digest = (self.digest + digest_of(rows)) % DIGEST_END
        return rows


def _checked(rows: RowsFile | Rows) -> Iterable[Rows]:
    return rows.checked_blocks() if isinstance(rows, RowsFile) else blocks_of(rows)


def _head_findings(scope: CRLScope, head: CRLHead, parsed: ParsedHead) -> list[str]:
    """Return in what the CRL's own words differ from those it was to have."""
    findings: list[str] = []
    found = CRLHead(
        parsed.number or 0,
        parsed.base_number,
        parsed.this_update_s,
        parsed.next_update_s or 0,
        parsed.expired_certs_from_s,
    )
    if found != head:
        findings.append("certstatus.crl_head_differs")
    if parsed.issuer_der != scope.issuer.name_der:
        findings.append("certstatus.crl_issuer_differs")
    if parsed.aki_key_id != scope.issuer.key_id:
        findings.append("certstatus.crl_aki_differs")
    if parsed.idp_der != scope.idp_der:
        findings.append("certstatus.crl_scope_differs")
    return findings


def _delta_findings(parsed: ParsedHead, delta: Rows, joins: Joining | None) -> list[str]:
    """Return what keeps a delta and its base from being the list."""
    if joins is None:
        return ["certstatus.crl_base_missing"]
    with CRLFile(joins.base_path) as base:
        if base.head.number != parsed.base_number:
            return ["certstatus.crl_base_missing"]
        findings = combine_findings(base.head, parsed)
    if not findings:
        before = digest_of(rows_at(joins.before, keys(delta)))
        says = digest_of(delta[delta["reason"] != CRLReason.REMOVE_FROM_CRL])
        if (joins.base_digest - before + says) % DIGEST_END != joins.listed_digest:
            findings.append("certstatus.crl_entries_differ")
    return findings

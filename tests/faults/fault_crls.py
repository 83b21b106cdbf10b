"""The oracle for CRLs: every one published during a run, complete or delta, against the store's log.

A complete CRL lists exactly what was revoked at its thisUpdate, of its partition if it is of one; a delta,
what changed since its base.
Times on CRLs are whole seconds, so within that second any state a certificate had is right.
Knows: the files and the change log.  Uses ``cryptography``, not our own reader.
"""

from __future__ import annotations

import re
from pathlib import Path

from cryptography import x509
from fault_oracle import GOOD, UNKNOWN, Histories, State, epochs_at

_ALL = "all"
_REMOVED = "removeFromCRL"


def check_crls(
    folder: Path, authorities: dict[int, x509.Certificate], epochs: list[tuple[int, Histories]]
) -> tuple[int, list[str]]:
    """Return how many CRLs are below *folder*, and what is wrong with them."""
    by_name = {certificate.subject: number for number, certificate in authorities.items()}
    found = {path: x509.load_der_x509_crl(path.read_bytes()) for path in sorted(folder.rglob("*.crl"))}
    completes = {
        (by_name[crl.issuer], _scope(path), _number(crl)): crl
        for path, crl in found.items()
        if _base_number(crl) is None
    }
    wrong = []
    for path, crl in found.items():
        issuer_id = by_name[crl.issuer]
        if not crl.is_signature_valid(authorities[issuer_id].public_key()):  # type: ignore[arg-type]
            wrong.append(f"{path.name}: its signature")
            continue
        entries = {entry.serial_number: _state(entry) for entry in crl}
        base_number = _base_number(crl)
        if base_number is not None:
            base = completes.get((issuer_id, _scope(path), base_number))
            if base is None:
                # Deleted since, as bases nobody needs any more are.
                continue
            entries = {entry.serial_number: _state(entry) for entry in base} | entries
        moment_s = int(crl.last_update_utc.timestamp())
        found_wrong = [
            _differences(histories, issuer_id, _scope(path), moment_s, entries)
            for histories in epochs_at(epochs, moment_s)
        ]
        wrong += [f"{path.name}: {text}" for text in min(found_wrong, key=len)]
    return len(found), wrong


def _scope(path: Path) -> str:
    """Return the scope of a CRL by its folder: ``m1/13104``, ``n8/b3``, ``all``."""
    parts = path.parent.parts[-2:]
    return "/".join(parts) if re.fullmatch("[mn][0-9]+", parts[0]) else _ALL


def _differences(
    histories: Histories, issuer_id: int, scope: str, moment_s: int, entries: dict[int, State]
) -> list[str]:
    known = {
        key[1]
        for key in histories.states
        if key[0] == issuer_id and scope in (_ALL, histories.partitions.get(key))
    }
    wrong = [f"{serial:x} is on it and was never issued into it" for serial in entries.keys() - known]
    for serial in known:
        allowed = histories.allowed(issuer_id, serial, moment_s)
        said = entries.get(serial, GOOD)
        if said not in allowed and not (said == GOOD and UNKNOWN in allowed):
            wrong.append(f"{serial:x}: says {said} at {moment_s}, was {allowed}")
    return wrong


def _state(entry: x509.RevokedCertificate) -> State:
    try:
        reason = entry.extensions.get_extension_for_class(x509.CRLReason).value.reason.value
    except x509.ExtensionNotFound:
        reason = None
    if reason == _REMOVED:
        return GOOD
    return ("REVOKED", int(entry.revocation_date_utc.timestamp()), reason)


def _number(crl: x509.CertificateRevocationList) -> int:
    return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


def _base_number(crl: x509.CertificateRevocationList) -> int | None:
    try:
        return crl.extensions.get_extension_for_class(x509.DeltaCRLIndicator).value.crl_number
    except x509.ExtensionNotFound:
        return None

"""A base CRL and a delta joined to the complete CRL they stand for.

Knows: when the two may be joined, and what comes out.
Does not know: whether either is signed, or still valid.  Of lists that are not in memory only
``combine_findings`` is asked.
Source: RFC 5280 §5.2.4; §6.3.3 (c).
"""

from __future__ import annotations

from certstatus.crl import ParsedCRL, ParsedHead
from certstatus.crl_entry import CRLEntry, serial_value
from certstatus.crl_reason import CRLReason
from certstatus.errors import CRLCheckFailed


def combine(base: ParsedCRL, delta: ParsedCRL) -> list[CRLEntry]:
    """Return the entries of the complete CRL that *base* and *delta* make, ascending by serial number.

    Its number, thisUpdate and nextUpdate are the delta's.
    Raises:  CRLCheckFailed — the two must not be combined; every condition not met is named.
    Source:  RFC 5280 §5.2.4, conditions (a) to (d); §6.3.3 (c)(3) for the key.
    """
    findings = combine_findings(base, delta)
    if findings:
        raise CRLCheckFailed(findings)
    combined = {entry.serial: entry for entry in base.entries}
    for entry in delta.entries:
        if entry.reason == CRLReason.REMOVE_FROM_CRL:
            combined.pop(entry.serial, None)
        else:
            combined[entry.serial] = entry
    return sorted(combined.values(), key=serial_value)


def combine_findings(base: ParsedHead, delta: ParsedHead) -> list[str]:
    """Return every condition for joining the two that is not met; sources as ``combine``."""
    findings: list[str] = []
    if base.base_number is not None:
        findings.append("pkix.combine_base_is_delta")
    if delta.base_number is None:
        findings.append("pkix.combine_delta_is_complete")
    if base.issuer_der != delta.issuer_der:
        findings.append("pkix.combine_issuer_differs")
    if base.aki_key_id is None or base.aki_key_id != delta.aki_key_id:
        findings.append("pkix.combine_key_differs")
    if base.idp_der != delta.idp_der or base.expired_certs_from_s != delta.expired_certs_from_s:
        # X.509 §9.5.2.8: what the list keeps beyond the certificates' end is a part of its scope.
        findings.append("pkix.combine_scope_differs")
    if base.number is None or delta.number is None:
        findings.append("pkix.crl_number_missing")
    else:
        if delta.base_number is not None and base.number < delta.base_number:
            findings.append("pkix.combine_base_too_old")
        if base.number >= delta.number:
            findings.append("pkix.combine_base_not_older")
    return findings

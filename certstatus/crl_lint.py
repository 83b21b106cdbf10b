"""What may be wrong with a CRL: the list of findings that must be empty before anything is signed.

Knows: the rules a CRL can be held to by itself, each with a code of its own: those for all that is no entry,
and those for what was noted of its entries, which are never needed as a whole.
Does not know: whether its entries, number and dates are those it should have (the publisher compares).
Source: RFC 5280 §5.1, §5.2, §5.3.
"""

from __future__ import annotations

from certstatus import oid
from certstatus.crl import ParsedCRL, ParsedHead, number_findings
from certstatus.crl_reason import CRLReason
from certstatus.crl_row_facts import RowFacts, facts_of
from certstatus.der import SEQUENCE, expect, expect_last, read_oid
from certstatus.distribution_point import are_names_only, parse_issuing_distribution_point
from certstatus.errors import DERError
from certstatus.expired_certs import expired_certs_of

# RFC 5280 §4.1.2.2.
SERIAL_OCTETS_MAX = 20

_REASONS = frozenset(CRLReason)
_EMPTY_SEQUENCE = b"\x30\x00"

_KNOWN_EXTENSIONS = frozenset(
    {
        oid.AUTHORITY_KEY_IDENTIFIER,
        oid.ISSUER_ALT_NAME,
        oid.CRL_NUMBER,
        oid.DELTA_CRL_INDICATOR,
        oid.ISSUING_DISTRIBUTION_POINT,
        oid.FRESHEST_CRL,
        oid.EXPIRED_CERTS_ON_CRL,
        oid.AUTHORITY_INFO_ACCESS,
    }
)


# Unusual, and not against any rule: an old CA may have recorded its revocations so.
WARNINGS = frozenset({"certstatus.crl_invalidity_after_revocation"})


def lint(parsed: ParsedCRL, *, hold_allowed: bool) -> list[str]:
    """Return what is wrong with *parsed*, each code once; empty for a CRL that may be published.

    Takes:   hold_allowed — whether the issuer's policy has certificateHold, and so removeFromCRL.
    Cost:    about 0.5 µs an entry.
    Source:  RFC 5280 §5.1, §5.2, §5.3.
    """
    facts = facts_of(parsed.entries, critical=parsed.entries_critical)
    return lint_head(parsed) + lint_facts(
        facts,
        delta=parsed.base_number is not None,
        hold_allowed=hold_allowed,
        this_update_s=parsed.this_update_s,
    )


def lint_head(parsed: ParsedHead, *, freshest_der: bytes | None = None) -> list[str]:
    """Return what is wrong with all of a CRL but its entries.

    Takes:   freshest_der — the freshestCRL of the CRL's scope, if that is known.
    Source:  RFC 5280 §5.1, §5.2.
    """
    findings: list[str] = []
    if parsed.version != 2:
        findings.append("pkix.crl_version_not_2")
    if parsed.issuer_der == _EMPTY_SEQUENCE:
        findings.append("pkix.crl_issuer_empty")
    if parsed.signature_algorithm_der != parsed.outer_algorithm_der:
        findings.append("pkix.crl_algorithms_differ")
    if parsed.next_update_s is None:
        findings.append("pkix.crl_next_update_missing")
    elif parsed.next_update_s <= parsed.this_update_s:
        findings.append("pkix.crl_next_update_not_after_this_update")
    if parsed.aki_key_id is None:
        findings.append("pkix.crl_aki_missing")
    if parsed.number is None:
        findings.append("pkix.crl_number_missing")
    findings += number_findings(parsed.number, parsed.base_number)
    findings += _criticality_findings(parsed)
    if parsed.idp_der is not None:
        findings += _scope_findings(parsed.idp_der)
    if parsed.base_number is not None and parsed.freshest_der is not None:
        findings.append("pkix.crl_freshest_in_delta")
    if parsed.freshest_der is not None and not are_names_only(parsed.freshest_der):
        findings.append("pkix.crl_freshest_not_only_names")
    access = parsed.extension(oid.AUTHORITY_INFO_ACCESS)
    if access is not None and _access_methods(access.value) != {oid.CA_ISSUERS}:
        findings.append("pkix.crl_aia_not_only_ca_issuers")
    if freshest_der is not None and parsed.freshest_der not in (None, freshest_der):
        findings.append("certstatus.crl_freshest_of_other_scope")
    if parsed.extension(oid.EXPIRED_CERTS_ON_CRL) and expired_certs_of(parsed.extensions) is None:
        findings.append("pkix.crl_expired_certs_malformed")
    if parsed.entries_empty:
        findings.append("pkix.crl_entries_empty")
    return findings


def _criticality_findings(parsed: ParsedHead) -> list[str]:
    findings: list[str] = []
    must_be = {oid.DELTA_CRL_INDICATOR: "delta_indicator", oid.ISSUING_DISTRIBUTION_POINT: "idp"}
    must_not_be = {
        oid.AUTHORITY_KEY_IDENTIFIER: "aki",
        oid.CRL_NUMBER: "number",
        oid.FRESHEST_CRL: "freshest",
        oid.ISSUER_ALT_NAME: "issuer_alt_name",
        oid.EXPIRED_CERTS_ON_CRL: "expired_certs",
        oid.AUTHORITY_INFO_ACCESS: "aia",
    }
    for name, critical, _ in parsed.extensions:
        if name in must_be and not critical:
            findings.append(f"pkix.crl_{must_be[name]}_not_critical")
        elif name in must_not_be and critical:
            findings.append(f"pkix.crl_{must_not_be[name]}_critical")
        elif critical and name not in _KNOWN_EXTENSIONS:
            findings.append("pkix.crl_extension_critical_unknown")
    return list(dict.fromkeys(findings))


def _scope_findings(idp_der: bytes) -> list[str]:
    if idp_der == _EMPTY_SEQUENCE:
        return ["pkix.crl_idp_empty"]
    scope = parse_issuing_distribution_point(idp_der)
    findings: list[str] = []
    if scope.only_user_certs + scope.only_ca_certs + scope.only_attribute_certs > 1:
        findings.append("pkix.crl_idp_scopes_conflict")
    if scope.only_some_reasons:
        # It would have to name the reasons, and others the rest: our CRLs are for all of them.
        findings.append("pkix.crl_idp_some_reasons")
    if scope.only_attribute_certs:
        findings.append("pkix.crl_idp_attribute_certs")
    if scope.indirect_crl:
        # An entry of another issuer is refused on reading, so an indirect CRL has nothing to show.
        findings.append("pkix.crl_idp_indirect")
    return findings


def _access_methods(value_der: bytes) -> set[str]:
    """Return the access methods of an AuthorityInfoAccess value; none if it is not readable."""
    methods: set[str] = set()
    try:
        pos, end = expect_last(value_der, 0, len(value_der), SEQUENCE)
        while pos < end:
            start, pos = expect(value_der, pos, end, SEQUENCE)
            methods.add(read_oid(value_der, start, pos)[0])
    except DERError:
        return set()
    return methods


def lint_facts(facts: RowFacts, *, delta: bool, hold_allowed: bool, this_update_s: int) -> list[str]:
    """Return what is wrong with the entries of a CRL.

    Takes:   hold_allowed — as ``lint``.
    Source:  RFC 5280 §5.1.2.6, §5.3; §4.1.2.2 for serial numbers.
    """
    findings: list[str] = []
    if facts.critical:
        findings.append("pkix.crl_entry_extension_critical")
    if facts.duplicate:
        findings.append("pkix.crl_serial_duplicate")
    if facts.unsorted:
        findings.append("pkix.crl_entries_unsorted")
    if facts.not_positive:
        findings.append("pkix.crl_serial_not_positive")
    if facts.serial_octets > SERIAL_OCTETS_MAX:
        findings.append("pkix.crl_serial_too_long")
    if CRLReason.UNSPECIFIED in facts.reasons:
        findings.append("pkix.crl_reason_unspecified")
    if CRLReason.REMOVE_FROM_CRL in facts.reasons and not delta:
        findings.append("pkix.crl_remove_in_complete")
    if CRLReason.REMOVE_FROM_CRL in facts.reasons and not hold_allowed:
        findings.append("pkix.crl_remove_without_hold")
    if CRLReason.CERTIFICATE_HOLD in facts.reasons and not hold_allowed:
        findings.append("certstatus.crl_hold_without_hold")
    if not facts.reasons <= _REASONS:
        findings.append("pkix.crl_reason_unknown")
    if facts.latest_revoked_at_s is not None and facts.latest_revoked_at_s > this_update_s:
        findings.append("certstatus.crl_entry_after_this_update")
    if facts.invalid_after_revoked:
        findings.append("certstatus.crl_invalidity_after_revocation")
    return findings

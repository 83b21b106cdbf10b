"""Object identifiers and AlgorithmIdentifiers by name.

Knows: the names of RFC 5280, RFC 6960 and the algorithms we sign and hash with, dotted;
signature AlgorithmIdentifiers also as DER, because every answer and CRL carries one.
Does not know: which algorithms are allowed; that is an issuer's policy.
Source: RFC 5280 §4.2, §5.2, §5.3; RFC 6960 appendix B; RFC 3279, 4055, 5480, 5754, 5758, 8410 for algorithms.
"""

from __future__ import annotations

from certstatus import der

# Hash functions of a CertID.
SHA1 = "1.3.14.3.2.26"
SHA256 = "2.16.840.1.101.3.4.2.1"
SHA384 = "2.16.840.1.101.3.4.2.2"
SHA512 = "2.16.840.1.101.3.4.2.3"

# Signatures.
SHA1_WITH_RSA = "1.2.840.113549.1.1.5"
SHA256_WITH_RSA = "1.2.840.113549.1.1.11"
SHA384_WITH_RSA = "1.2.840.113549.1.1.12"
SHA512_WITH_RSA = "1.2.840.113549.1.1.13"
ECDSA_WITH_SHA256 = "1.2.840.10045.4.3.2"
ECDSA_WITH_SHA384 = "1.2.840.10045.4.3.3"
ECDSA_WITH_SHA512 = "1.2.840.10045.4.3.4"
ED25519 = "1.3.101.112"

# Public keys and the curves of EC keys.
RSA_ENCRYPTION = "1.2.840.113549.1.1.1"
EC_PUBLIC_KEY = "1.2.840.10045.2.1"
SECP256R1 = "1.2.840.10045.3.1.7"
SECP384R1 = "1.3.132.0.34"
SECP521R1 = "1.3.132.0.35"

# RSA carries NULL parameters (RFC 4055 §5), ECDSA (RFC 5758 §3.2) and Ed25519 (RFC 8410 §3) none.
SHA256_WITH_RSA_DER = der.sequence(der.oid(SHA256_WITH_RSA), der.NULL_DER)
SHA384_WITH_RSA_DER = der.sequence(der.oid(SHA384_WITH_RSA), der.NULL_DER)
SHA512_WITH_RSA_DER = der.sequence(der.oid(SHA512_WITH_RSA), der.NULL_DER)
ECDSA_WITH_SHA256_DER = der.sequence(der.oid(ECDSA_WITH_SHA256))
ECDSA_WITH_SHA384_DER = der.sequence(der.oid(ECDSA_WITH_SHA384))
ECDSA_WITH_SHA512_DER = der.sequence(der.oid(ECDSA_WITH_SHA512))
ED25519_DER = der.sequence(der.oid(ED25519))

# OCSP (RFC 6960 appendix B).
OCSP_BASIC = "1.3.6.1.5.5.7.48.1.1"
OCSP_NONCE = "1.3.6.1.5.5.7.48.1.2"
OCSP_CRL = "1.3.6.1.5.5.7.48.1.3"
OCSP_RESPONSE = "1.3.6.1.5.5.7.48.1.4"
OCSP_ARCHIVE_CUTOFF = "1.3.6.1.5.5.7.48.1.6"
OCSP_SERVICE_LOCATOR = "1.3.6.1.5.5.7.48.1.7"
OCSP_PREF_SIG_ALGS = "1.3.6.1.5.5.7.48.1.8"
OCSP_EXTENDED_REVOKE = "1.3.6.1.5.5.7.48.1.9"
OCSP_SIGNING = "1.3.6.1.5.5.7.3.9"
# CertHash of Common PKI (ISIS-MTT), a single extension.
CERT_HASH = "1.3.36.8.3.13"

# CRL extensions (RFC 5280 §5.2) and CRL entry extensions (§5.3).
AUTHORITY_KEY_IDENTIFIER = "2.5.29.35"
ISSUER_ALT_NAME = "2.5.29.18"
CRL_NUMBER = "2.5.29.20"
DELTA_CRL_INDICATOR = "2.5.29.27"
ISSUING_DISTRIBUTION_POINT = "2.5.29.28"
CRL_DISTRIBUTION_POINTS = "2.5.29.31"
FRESHEST_CRL = "2.5.29.46"
EXPIRED_CERTS_ON_CRL = "2.5.29.60"
AUTHORITY_INFO_ACCESS = "1.3.6.1.5.5.7.1.1"
CA_ISSUERS = "1.3.6.1.5.5.7.48.2"
REASON_CODE = "2.5.29.21"
INVALIDITY_DATE = "2.5.29.24"
CERTIFICATE_ISSUER = "2.5.29.29"

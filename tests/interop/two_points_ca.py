"""A CA by hand whose certificates name two distribution points: their partition's and the whole list's.

Knows: two generations of one name, two partitions each, a good and a revoked certificate in the first, and
complete and delta CRLs of every scope, each with a critical IssuingDistributionPoint of its own name.
Does not know: a register, a publisher or any client.
Source: RFC 5280 §4.2.1.13, §5.2.5, §6.3.3 (b)(2)(i).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID, ObjectIdentifier
from interop_clients import run

from certstatus import clock, oid
from certstatus.crl import encode_certificate_list, encode_tbs_cert_list
from certstatus.crl_entry import CRLEntry
from certstatus.der import integer_content
from certstatus.distribution_point import (
    PointName,
    encode_distribution_points,
    encode_issuing_distribution_point,
)
from certstatus.key_kinds import generate_key, signature_hash
from issuance import profiles
from publisher.crl_make import sign, signature_algorithm_der

ALL = "all"
OWN, OTHER = "m1/13104", "m1/13113"
_URL = "http://127.0.0.1:9"


@dataclass(frozen=True, slots=True)
class Points:
    """What a certificate names, and which name a scope's CRLs carry."""

    partition: PointName
    whole: PointName

    @property
    def der(self) -> bytes:
        """The value of cRLDistributionPoints."""
        return encode_distribution_points([self.partition, self.whole])


class TwoPointsCA:
    """One generation of the name, with everything its clients are given, below *folder*."""

    def __init__(self, folder: Path, generation: int) -> None:
        folder.mkdir()
        self._folder = folder
        self._generation = generation
        self._key = generate_key("p256")
        self._name = profiles.ca_name("SIGN", "certstatus TEST", "")
        self._ca = profiles.sign_ca_certificate(self._key, self._name, clock.now_s() - clock.DAY_S)
        self.certificate = self._write("ca", self._ca)
        self._revoked: list[bytes] = []
        self.good = self._issue("good")
        self.revoked = self._issue("revoked")
        self.revoked_later = self._issue("later")
        self._revoked.append(_serial(self.revoked))

    def points(self, scope: str) -> Points:
        """Return the names of a scope, as production makes them."""
        names = profiles.crl_names(self._name, "SIGN", self._generation, _URL, scope)
        whole = profiles.crl_names(self._name, "SIGN", self._generation, _URL)
        return Points(names.complete, (whole.complete[0], ()))

    def crl(self, scope: str) -> Path:
        """Make the complete CRL of a scope, in which the revoked certificate is listed unless it is OTHER."""
        return self._crl(scope, 1, None, [] if scope == OTHER else self._revoked)

    def delta(self, scope: str) -> Path:
        """Make a delta that revokes ``revoked_later`` too, over the complete CRL."""
        listed = [] if scope == OTHER else [_serial(self.revoked_later)]
        return self._crl(scope, 2, 1, listed)

    def _crl(self, scope: str, number: int, base_number: int | None, serials: list[bytes]) -> Path:
        points = self.points(scope)
        name = points.whole if scope == ALL else points.partition
        # The delta's thisUpdate comes after its base's, so that it is the newer one to every client.
        this_update_s = clock.now_s() - 60 + number
        algorithm_der = signature_algorithm_der(self._key)
        tbs_der = encode_tbs_cert_list(
            issuer_name_der=self._name.public_bytes(),
            signature_algorithm_der=algorithm_der,
            this_update_s=this_update_s,
            next_update_s=this_update_s + clock.DAY_S,
            entries=[CRLEntry(serial, this_update_s - 10, 1) for serial in serials],
            crl_number=number,
            aki_key_id=profiles.authority_key_id(self._ca).key_identifier or b"",
            base_crl_number=base_number,
            issuing_distribution_point_der=encode_issuing_distribution_point(name, only_user_certs=True),
            freshest_crl_der=None
            if base_number is not None
            else encode_distribution_points([(name[0], (f"{_URL}/delta.crl",))]),
        )
        digest = hashlib.new(signature_hash(self._key).name, tbs_der).digest()
        der = encode_certificate_list(tbs_der, algorithm_der, sign(self._key, digest))
        kind = "complete" if base_number is None else "delta"
        path = self._folder / f"{scope.replace('/', '-')}-{kind}.crl"
        path.write_bytes(der)
        said = run("openssl", "crl", "-inform", "DER", "-in", path, "-out", path.with_suffix(".pem"))
        assert "exit 0" in said, said
        return path.with_suffix(".pem")

    def _issue(self, case: str) -> Path:
        points = self.points(OWN)
        public_key = ec.generate_private_key(ec.SECP256R1()).public_key()
        now_s = clock.now_s() - 3600
        certificate = (
            x509.CertificateBuilder()
            .serial_number(profiles.new_serial())
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, case)]))
            .issuer_name(self._name)
            .public_key(public_key)
            .not_valid_before(clock.utc(now_s))
            .not_valid_after(clock.utc(now_s + 30 * clock.DAY_S))
            .add_extension(profiles.authority_key_id(self._ca), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(
                x509.UnrecognizedExtension(ObjectIdentifier(oid.CRL_DISTRIBUTION_POINTS), points.der),
                critical=False,
            )
            .sign(self._key, signature_hash(self._key))
        )
        return self._write(case, certificate)

    def _write(self, name: str, certificate: x509.Certificate) -> Path:
        path = self._folder / f"{name}.pem"
        path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return path


def _serial(path: Path) -> bytes:
    return integer_content(x509.load_pem_x509_certificate(path.read_bytes()).serial_number)

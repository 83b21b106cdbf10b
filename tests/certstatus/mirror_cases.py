"""What a client of CRLs meets: a CA that signs whatever it is told to, and a server that can be made to fail.

The server is a real one on a real socket; it keeps the tags and ranges of RFC 9110 unless a test says
otherwise, and notes what it was asked for.
"""

from __future__ import annotations

import hashlib
import json
import re
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from certstatus import clock, oid
from certstatus.crl import encode_certificate_list, encode_tbs_cert_list
from certstatus.crl_entry import CRLEntry
from certstatus.crl_listing import scopes_sha256
from certstatus.der import header, integer_content, sequence
from certstatus.distribution_point import encode_distribution_points, encode_issuing_distribution_point

NOW_S = 1_800_000_000
DAY_S = 86_400


def directory_name(generation: int, scope: str) -> bytes:
    """The name of a distribution point."""
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, f"g{generation}"),
            x509.NameAttribute(NameOID.COMMON_NAME, scope),
        ]
    ).public_bytes()


class MirrorCA:
    """A CA key; generations share the name, as they do in a service."""

    def __init__(self, generation: int = 1, name: str = "Test CA") -> None:
        self.generation = generation
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = (
            x509.CertificateBuilder()
            .subject_name(self.name)
            .issuer_name(self.name)
            .public_key(self.key.public_key())
            .serial_number(generation)
            .not_valid_before(clock.utc(NOW_S - 400 * DAY_S))
            .not_valid_after(clock.utc(NOW_S + 4000 * DAY_S))
            .add_extension(x509.BasicConstraints(True, None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        self.key_id = x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()).digest

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    def crl(
        self,
        number: int,
        *entries: CRLEntry,
        base: int | None = None,
        this_s: int = NOW_S - 100,
        next_s: int = NOW_S + DAY_S,
        point: bytes | None = b"",
        key_id: bytes | None = None,
        only_ca_certs: bool = False,
        expired_from_s: int | None = None,
    ) -> bytes:
        """A signed CRL; *point*: its directory name, by default that of scope ``all``; None: no point."""
        name = directory_name(self.generation, "all") if point == b"" else point
        tbs_der = encode_tbs_cert_list(
            issuer_name_der=self.name.public_bytes(),
            signature_algorithm_der=oid.ECDSA_WITH_SHA256_DER,
            this_update_s=this_s,
            next_update_s=next_s,
            entries=entries,
            crl_number=number,
            aki_key_id=key_id or self.key_id,
            base_crl_number=base,
            issuing_distribution_point_der=None
            if name is None
            else encode_issuing_distribution_point(
                (name, ()), only_user_certs=not only_ca_certs, only_ca_certs=only_ca_certs
            ),
            expired_certs_from_s=expired_from_s,
        )
        signature = self.key.sign(tbs_der, ec.ECDSA(hashes.SHA256()))
        return encode_certificate_list(tbs_der, oid.ECDSA_WITH_SHA256_DER, signature)

    def crl_of(self, entries_der: bytes, number: int = 1) -> bytes:
        """A signed CRL with these octets in the place of its entries."""
        octets = self.crl(number)
        with_entries = sequence(entries_der) if entries_der else b""
        tbs = x509.load_der_x509_crl(octets).tbs_certlist_bytes
        # The list stands before the extensions, [0].
        at = tbs.index(b"\xa0", len(self.name.public_bytes()))
        start = 4 if tbs[1] == 0x82 else 3 if tbs[1] == 0x81 else 2
        inner = tbs[start:at] + with_entries + tbs[at:]
        tbs_der = header(0x30, len(inner)) + inner
        signature = self.key.sign(tbs_der, ec.ECDSA(hashes.SHA256()))
        return encode_certificate_list(tbs_der, oid.ECDSA_WITH_SHA256_DER, signature)

    def member(
        self, serial: int, *scopes: str, until_s: int = NOW_S + 1000 * DAY_S, with_aki: bool = True
    ) -> bytes:
        """A certificate whose distribution points are those of *scopes*, ``all`` if none is given; PEM."""
        points = [(directory_name(self.generation, scope), ()) for scope in scopes or ("all",)]
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "member")]))
            .issuer_name(self.name)
            .public_key(ec.generate_private_key(ec.SECP256R1()).public_key())
            .serial_number(serial)
            .not_valid_before(clock.utc(NOW_S - 300 * DAY_S))
            .not_valid_after(clock.utc(until_s))
            .add_extension(
                x509.UnrecognizedExtension(
                    x509.ObjectIdentifier(oid.CRL_DISTRIBUTION_POINTS), encode_distribution_points(points)
                ),
                critical=False,
            )
        )
        if with_aki:
            builder = builder.add_extension(
                x509.AuthorityKeyIdentifier(self.key_id, None, None), critical=False
            )
        return builder.sign(self.key, hashes.SHA256()).public_bytes(Encoding.PEM)


def listed_entry(
    serial: int, reason: int | None = None, *, at_s: int = NOW_S - 500, invalid_s: int | None = None
) -> CRLEntry:
    """An entry of a CRL."""
    return CRLEntry(integer_content(serial), at_s, reason, invalid_s)


class Asked(NamedTuple):
    """A request that was made."""

    path: str
    range: str | None
    condition: str | None


class CRLSite:
    """A list of CRLs and the files in it, over HTTP.

    ``cut_after``: octets of a body that are sent before the connection is ended, by path.
    ``status``: what is answered instead of the file, by path.  ``has_ranges``: whether Range is obeyed.
    ``says_since``: whether its list has differences; its generation is the number of publications.
    ``ended``: scopes that have ended, and when.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.files: dict[str, bytes] = {}
        self.scopes: dict[str, dict[str, Any]] = {}
        self.cut_after: dict[str, int] = {}
        self.status: dict[str, int] = {}
        self.has_ranges = True
        self.says_since = False
        self.ended: dict[str, str] = {}
        self.generation = 0
        self.asked: list[Asked] = []
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # Head and body are written apart: the second would wait 40 ms for a delayed acknowledgement.
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                site.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if tls is not None:
            # The handshake is the handler's thread's, so that one that fails ends nothing else.
            self._server.socket = tls.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
            self._server.handle_error = lambda *_: None  # type: ignore[method-assign]
        scheme = "http" if tls is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self._server.server_port}/crl/"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def publish(
        self,
        ca: MirrorCA,
        complete: bytes | None,
        delta: bytes | None = None,
        *,
        scope: str = "test/g1/all",
        change: Callable[[dict[str, Any]], None] = lambda _line: None,
    ) -> None:
        """Put CRLs of a scope in the place of those before; *change* the line in the list."""
        line: dict[str, Any] = {
            "scope": scope,
            "key_id": ca.key_id.hex(),
            "complete": self._add(scope, complete),
            "delta": self._add(scope, delta),
        }
        change(line)
        self.generation += 1
        self.scopes[scope] = line | ({"changed": self.generation} if self.says_since else {})

    def _add(self, scope: str, crl: bytes | None) -> dict[str, Any] | None:
        if crl is None:
            return None
        read = x509.load_der_x509_crl(crl).extensions
        number = read.get_extension_for_class(x509.CRLNumber).value.crl_number
        said: dict[str, Any] = {"number": number, "size": len(crl), "sha256": hashlib.sha256(crl).hexdigest()}
        ending = "crl"
        try:
            said["base_number"] = read.get_extension_for_class(x509.DeltaCRLIndicator).value.crl_number
            ending = "delta.crl"
        except x509.ExtensionNotFound:
            pass
        said["by_number"] = f"/crl/{scope}/{number}.{ending}"
        self.files[said["by_number"]] = crl
        return said

    def paths(self) -> list[str]:
        """The paths asked for since the last call."""
        found = [item.path for item in self.asked]
        self.asked.clear()
        return found

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer a GET."""
        headers = handler.headers
        self.asked.append(
            Asked(handler.path, headers.get("Range"), headers.get("If-Range") or headers.get("If-None-Match"))
        )
        body = self.files.get(handler.path)
        place, _, query = handler.path.partition("?")
        if place == "/crl/":
            since = int(query.removeprefix("since=") or 0)
            scopes = [line for _, line in sorted(self.scopes.items()) if line.get("changed", 1) > since]
            said: dict[str, object] = {"format": 1, "scopes": scopes}
            if self.ended and not since:
                said["ended"] = [{"scope": scope, "ended": time} for scope, time in self.ended.items()]
            if self.says_since:
                said |= {"since": since, "next": self.generation}
                said["scopes_sha256"] = scopes_sha256(sorted(self.scopes))
            body = json.dumps(said).encode()
        status = self.status.get(handler.path, 404 if body is None else 200)
        if body is None or status >= 300:
            body = b"no\n"
        tag = f'"{hashlib.sha256(body).hexdigest()}"'
        part = body
        wanted = re.fullmatch(r"bytes=(\d+)-", headers.get("Range", ""))
        if status == 200 and headers.get("If-None-Match") == tag:
            status, part = 304, b""
        elif status == 200 and wanted and self.has_ranges and headers.get("If-Range") == tag:
            status, part = 206, body[int(wanted[1]) :]
        handler.send_response(status)
        handler.send_header("ETag", tag)
        if status == 206:
            assert wanted is not None
            handler.send_header("Content-Range", f"bytes {wanted[1]}-{len(body) - 1}/{len(body)}")
        if status != 304:
            handler.send_header("Content-Length", str(len(part)))
        handler.end_headers()
        cut = self.cut_after.get(handler.path)
        handler.wfile.write(part if cut is None else part[:cut])
        if cut is not None and cut < len(part):
            handler.close_connection = True

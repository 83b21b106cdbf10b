"""Running the load test as an operator does, and a responder that lies about chosen certificates.

Knows: locust's command line, answers made by `cryptography`.  Does not know: what is proved.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import urllib.parse
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import ocsp
from cryptography.x509.oid import NameOID

ROOT = Path(__file__).parents[2]
_NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a liar's CA")])


class Loaded(NamedTuple):
    """What a run left: exit code, everything printed, the summary (empty where none was written)."""

    code: int
    output: str
    summary: dict[str, Any]

    def named(self, start: str) -> int:
        """How many requests have names that begin so."""
        return sum(item["requests"] for item in self.summary["by_name"] if item["name"].startswith(start))

    def causes(self) -> Counter[str]:
        """The failures by cause."""
        counts: Counter[str] = Counter()
        for item in self.summary["causes"]:
            counts[item["cause"]] += item["count"]
        return counts


class Loading:
    """Locust without its page, running."""

    def __init__(self, command: list[str], summary: Path) -> None:
        self._summary = summary
        # A group of its own, as a terminal gives it one.
        self._process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
            start_new_session=True,
        )

    def interrupt(self) -> Loaded:
        """Press Ctrl-C."""
        os.killpg(self._process.pid, signal.SIGINT)
        return self.result()

    def result(self) -> Loaded:
        """Wait for the end."""
        try:
            output, _ = self._process.communicate(timeout=60)
        except BaseException:
            os.killpg(self._process.pid, signal.SIGKILL)
            raise
        content = json.loads(self._summary.read_text()) if self._summary.exists() else {}
        return Loaded(self._process.returncode, output, content)


def load(folder: Path, host: str, population: Path, *words: str) -> Loaded:
    """Run the load test to its end."""
    return begin(folder, host, population, *words).result()


def begin(folder: Path, host: str, population: Path, *words: str) -> Loading:
    """Start a load test of a second; *words* come last and so decide."""
    summary = folder / "summary.json"
    summary.unlink(missing_ok=True)
    command = [sys.executable, "-m", "locust", "-f", "bench/locustfile.py", "--headless", "--only-summary"]
    command += ["--host", host, "--population", str(population), "--summary", str(summary)]
    command += ["--users", "16", "--spawn-rate", "100", "--run-time", "1s", "--p99-ms", "5000", *words]
    if "--processes" in words:
        # Not the usual port, which somebody else's load test may have.
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = str(free.getsockname()[1])
        command += ["--master-bind-host", "127.0.0.1", "--master-bind-port", port, "--master-port", port]
    return Loading(command, summary)


# --- a responder that lies -----------------------------------------------------------------------------


def make_ca(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    """A CA of the one name over *key*."""
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(_NAME).issuer_name(_NAME).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now - timedelta(days=1))
    san = x509.SubjectAlternativeName([x509.DNSName("localhost")])
    builder = builder.not_valid_after(now + timedelta(days=1)).add_extension(san, critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return builder.sign(key, hashes.SHA256())


class Liar:
    """Answers for its own CA: the truth, or what *lies* names for a serial number."""

    def __init__(self, lies: dict[int, str], tls: bool = False) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.ca = make_ca(self.key)
        self._other_key = ec.generate_private_key(ec.SECP256R1())
        self._other_ca = make_ca(self._other_key)
        self.lies = lies
        self.asked: Counter[int] = Counter()
        self._lock = threading.Lock()
        liar = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # Head and body leave together, or the second waits for the client's kernel.
            wbufsize = -1

            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                liar.answer(self, self.rfile.read(length))

            def do_GET(self) -> None:
                encoded = urllib.parse.unquote(self.path.removeprefix("/ocsp/"))
                liar.answer(self, base64.b64decode(encoded))

            def log_message(self, *_: Any) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.tls = tls

    def write(self, folder: Path) -> Path:
        """Write the population, in which everybody is good, and the CA's key and certificate."""
        folder.mkdir(exist_ok=True)
        pem = self.ca.public_bytes(serialization.Encoding.PEM)
        key = self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (folder / "ca.pem").write_bytes(pem)
        (folder / "both.pem").write_bytes(pem + key)
        lines = "".join(f"{octets(serial).hex()},good\n" for serial in self.lies)
        (folder / "population.csv").write_text(f"serial,status\n{lines}")
        return folder

    @contextmanager
    def running(self, folder: Path) -> Iterator[str]:
        """Answer until the end; gives the URL."""
        if self.tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(folder / "both.pem")
            context.load_verify_locations(folder / "ca.pem")
            context.verify_mode = ssl.CERT_REQUIRED
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"https://localhost:{self.port}" if self.tls else f"http://127.0.0.1:{self.port}"
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()

    def answer(self, handler: BaseHTTPRequestHandler, request_der: bytes) -> None:
        """Write the answer that the certificate asked about gets."""
        request = ocsp.load_der_ocsp_request(request_der)
        with self._lock:
            self.asked[request.serial_number] += 1
        lie = self.lies[request.serial_number]
        if lie == "ends the connection":
            handler.close_connection = True
            return
        body = b"\x30\x03\x0a\x01\x03" if lie == "tryLater" else self._response(request, lie)
        kind = "text/html" if lie == "type" else "application/ocsp-response"
        handler.send_response_only(500 if lie == "500" else 200)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    def _response(self, request: ocsp.OCSPRequest, lie: str) -> bytes:
        now = datetime.now(UTC)
        revoked = lie == "revoked"
        shift = {"stale": timedelta(days=-1), "future": timedelta(days=1)}.get(lie, timedelta(seconds=-1))
        builder = ocsp.OCSPResponseBuilder().add_response_by_hash(
            request.issuer_name_hash,
            request.issuer_key_hash,
            request.serial_number + (lie == "about another"),
            request.hash_algorithm,
            ocsp.OCSPCertStatus.REVOKED if revoked else ocsp.OCSPCertStatus.GOOD,
            now + shift,
            now + shift + timedelta(hours=1),
            now if revoked else None,
            None,
        )
        key, ca = (self._other_key, self._other_ca) if lie == "other key" else (self.key, self.ca)
        builder = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, ca)
        for extension in request.extensions:
            if isinstance(extension.value, x509.OCSPNonce) and lie != "no nonce":
                nonce = extension.value.nonce[::-1] if lie == "other nonce" else extension.value.nonce
                builder = builder.add_extension(x509.OCSPNonce(nonce), critical=False)
        return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def octets(serial: int) -> bytes:
    """A serial number's content octets."""
    return serial.to_bytes(serial.bit_length() // 8 + 1, "big")

"""A verifier that never stops asking: one process of the fault harness.

Asks for the status of certificates that the writer has issued (the newest most often), by GET
and POST, with every CertID hash, some with a nonce, over one connection that it renews whenever
the server lets go; writes down what came back and exactly when the question left.

    python fault_asker.py PORT FOLDER NUMBER SEED [PAUSE_MS]

PAUSE_MS: between two questions, 0 unless given.  FOLDER holds ``issued.log`` (grown by the writer),
``issuers.json`` and ``stop`` (ends the run).
Writes ``answers-NUMBER.log``: sent_ns received_ns issuer_id serial digest nonce, or LOST/TRY/... in
place of the digest, and ``bodies-NUMBER.log``: digest body, each body once.  Times are monotonic.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import random
import secrets
import socket
import sys
import time
from pathlib import Path
from typing import TextIO

from certstatus import der
from certstatus.cert_id import encode_cert_id

NONCE_EXTENSION = der.oid("1.3.6.1.5.5.7.48.1.2")
TIMEOUT_S = 5.0


def request_der(cert_id_der: bytes, nonce: bytes | None) -> bytes:
    """Return an OCSPRequest for one CertID."""
    parts = [der.sequence(der.sequence(cert_id_der))]
    if nonce is not None:
        extension = der.sequence(NONCE_EXTENSION, der.octet_string(der.octet_string(nonce)))
        parts.append(der.explicit(2, der.sequence(extension)))
    return der.sequence(der.sequence(*parts) if nonce is not None else der.sequence(parts[0]))


class Asker:
    """One connection's worth of questions."""

    def __init__(self, port: int, folder: Path, number: int, seed: int) -> None:
        self._address = ("127.0.0.1", port)
        self._random = random.Random(f"{seed}-{number}")
        self._issuers = {
            int(key): {int(alg): bytes.fromhex(text) for alg, text in hashes.items()}
            for key, hashes in json.loads((folder / "issuers.json").read_text()).items()
        }
        self._issued_log = (folder / "issued.log").open()
        self._unfinished = ""
        self._issued: list[tuple[int, str]] = []
        self._answers: TextIO = (folder / f"answers-{number}.log").open("w")
        self._bodies: TextIO = (folder / f"bodies-{number}.log").open("w")
        self._known: set[bytes] = set()
        self._socket: socket.socket | None = None
        self._buffer = b""

    def step(self) -> None:
        """Ask one question and write down the answer."""
        self._learn()
        if not self._issued:
            time.sleep(0.05)
            return
        issuer_id, serial = self._choose()
        nonce = secrets.token_bytes(16) if self._random.random() < 0.1 else None
        alg = self._random.choice([1, 1, 1, 2, 3, 4])
        hashes = self._issuers[issuer_id][alg]
        half = len(hashes) // 2
        cert_id = encode_cert_id(alg, hashes[:half], hashes[half:], bytes.fromhex(serial))
        message = self._http(request_der(cert_id, nonce))
        sent_ns = time.monotonic_ns()
        try:
            body = self._exchange(message)
        except OSError:
            self._drop()
            self._write(sent_ns, issuer_id, serial, "LOST", nonce)
            time.sleep(0.01)
            return
        if len(body) < 10:
            self._write(sent_ns, issuer_id, serial, f"STATUS{body[4] if len(body) == 5 else 'X'}", nonce)
            # Told to come back later: a client that hammers on would hide what others see.
            time.sleep(0.005)
            return
        digest = hashlib.sha256(body).digest()[:16]
        if digest not in self._known:
            self._known.add(digest)
            self._bodies.write(f"{digest.hex()} {body.hex()}\n")
        self._write(sent_ns, issuer_id, serial, digest.hex(), nonce)

    def flush(self) -> None:
        """Let the harness read what was written; a body is there before the answer that names it."""
        self._bodies.flush()
        self._answers.flush()

    def close(self) -> None:
        """Write everything out."""
        self._drop()
        self._answers.close()
        self._bodies.close()

    def _learn(self) -> None:
        # A line may be seen before its end is written; it is taken when it is whole.
        *lines, self._unfinished = (self._unfinished + self._issued_log.read()).split("\n")
        for line in lines:
            issuer_id, serial = line.split()
            self._issued.append((int(issuer_id), serial))

    def _choose(self) -> tuple[int, str]:
        if self._random.random() < 0.02:
            issuer_id = self._random.choice(sorted(self._issuers))
            return issuer_id, "55" + self._random.randbytes(15).hex()
        if self._random.random() < 0.6:
            return self._random.choice(self._issued[-60:])
        return self._random.choice(self._issued)

    def _http(self, request: bytes) -> bytes:
        if self._random.random() < 0.4:
            path = base64.b64encode(request).decode().replace("+", "%2B").replace("/", "%2F")
            return f"GET /ocsp/{path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        head = "POST /ocsp HTTP/1.1\r\nHost: x\r\nContent-Type: application/ocsp-request\r\n"
        return f"{head}Content-Length: {len(request)}\r\n\r\n".encode() + request

    def _exchange(self, message: bytes) -> bytes:
        if self._socket is None:
            self._socket = socket.create_connection(self._address, TIMEOUT_S)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._buffer = b""
        self._socket.sendall(message)
        while b"\r\n\r\n" not in self._buffer:
            self._receive()
        head, _, rest = self._buffer.partition(b"\r\n\r\n")
        fields = dict(line.split(b": ", 1) for line in head.lower().split(b"\r\n")[1:] if b": " in line)
        length = int(fields[b"content-length"])
        self._buffer = rest
        while len(self._buffer) < length:
            self._receive()
        body, self._buffer = self._buffer[:length], self._buffer[length:]
        if fields.get(b"connection") == b"close":
            self._drop()
        elif self._random.random() < 0.002:
            self._drop()  # another worker gets the next connection
        if not head.startswith(b"HTTP/1.1 200"):
            return head[9:12] + b"HTTP"
        return body

    def _receive(self) -> None:
        assert self._socket is not None
        more = self._socket.recv(65_536)
        if not more:
            raise ConnectionResetError("closed")
        self._buffer += more

    def _drop(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _write(self, sent_ns: int, issuer_id: int, serial: str, outcome: str, nonce: bytes | None) -> None:
        told = nonce.hex() if nonce else "-"
        self._answers.write(f"{sent_ns} {time.monotonic_ns()} {issuer_id} {serial} {outcome} {told}\n")


def main() -> None:
    """Ask until the stop file appears."""
    port, folder, number, seed = int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    asker = Asker(port, folder, number, seed)
    pause_s = float(sys.argv[5]) / 1000 if len(sys.argv) > 5 else 0.0
    stop = folder / "stop"
    harness = os.getppid()
    # A harness that died left nobody to write the stop file.
    while not stop.exists() and os.getppid() == harness:
        for _ in range(50):
            asker.step()
            if pause_s:
                time.sleep(pause_s)
        asker.flush()
    asker.close()


if __name__ == "__main__":
    main()

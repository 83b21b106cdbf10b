"""What a status check costs: CPU time of one worker per request, against nginx in the same run.

Starts a whole installation (issuance, publisher, Valkey, one worker) in a temporary folder
with registered access and counting on, and nginx with the same response bytes; then lets wrk
ask both in turn, round by round, each at saturation: server on one processor, wrk on another.
The figure is CPU time per request (the scheduler's account of all the worker's threads, the
feed follower's included) and its ratio to nginx within the round; the median of the rounds
counts.  Wall time is never used.

    python -m bench.status_check [--rounds 5] [--seconds 4] [--connections 64] [--out FILE]
"""

from __future__ import annotations

import argparse
import base64
import json
import platform
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from importlib import metadata
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509 import ocsp

from bench.cpu_time import cpu_ns, find_processes, pin
from bench.generator import Request, run
from bench.yardstick import Nginx

SERVER_PROCESSOR = 0
GENERATOR_PROCESSOR = 1


def free_port() -> int:
    """Return a TCP port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Installation:
    """A demo installation with one worker, started for the benchmark and removed after it."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.port = free_port()
        command = [sys.executable, "-m", "certstatus.cli", "--config", str(state / "certstatus.toml")]
        subprocess.run([*command, "init", "--port", str(self.port)], check=True, stdout=subprocess.DEVNULL)
        subprocess.run([*command, "demo", "--population", "50"], check=True, stdout=subprocess.DEVNULL)
        self._process = subprocess.Popen(
            [*command, "serve", "--workers", "1"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._wait_ready()
        (self.worker_pid,) = find_processes("responder.worker", str(state / "run" / "serve.toml"))

    def _wait_ready(self) -> None:
        for _ in range(600):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=1):
                    return
            except OSError:
                time.sleep(0.1)
        raise RuntimeError("the installation was not ready after 60 s")

    def stop(self) -> None:
        """Stop the installation and wait for it."""
        self._process.send_signal(signal.SIGINT)
        self._process.wait(30)


def ocsp_request(state: Path) -> bytes:
    """Return the request that clients send for the demo's good SIGN certificate: SHA-1, no nonce."""
    folder = state / "demo" / "sign"
    issuer = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
    certificate = x509.load_pem_x509_certificate((folder / "good.pem").read_bytes())
    builder = ocsp.OCSPRequestBuilder().add_certificate(certificate, issuer, hashes.SHA1())
    return builder.build().public_bytes(serialization.Encoding.DER)


def paths(request_der: bytes) -> dict[str, Request]:
    """Return the measured request shapes by name."""
    get_path = "/ocsp/" + urllib.parse.quote(base64.b64encode(request_der).decode(), safe="")
    return {
        "GET, keep-alive": Request("GET", get_path, b"", close=False),
        "POST, keep-alive": Request("POST", "/ocsp", request_der, close=False),
        "GET, one connection per request": Request("GET", get_path, b"", close=True),
        "POST, one connection per request": Request("POST", "/ocsp", request_der, close=True),
    }


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run the whole comparison and return its record."""
    with tempfile.TemporaryDirectory(prefix="certstatus-bench-") as name:
        folder = Path(name)
        installation = Installation(folder / "state")
        try:
            request_der = ocsp_request(folder / "state")
            body = _ask(installation.port, request_der)
            nginx = Nginx(folder / "nginx", free_port(), body)
            try:
                pin(installation.worker_pid, SERVER_PROCESSOR)
                pin(nginx.worker_pid, SERVER_PROCESSOR)
                rows = _rounds(arguments, folder, installation, nginx, paths(request_der))
            finally:
                nginx.stop()
        finally:
            installation.stop()
    return {"what": _what(arguments, len(body)), "paths": rows}


def _ask(port: int, request_der: bytes) -> bytes:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/ocsp", request_der, {"Content-Type": "application/ocsp-request"}
    )
    with urllib.request.urlopen(request, timeout=5) as answer:
        body: bytes = answer.read()
    if ocsp.load_der_ocsp_response(body).certificate_status is not ocsp.OCSPCertStatus.GOOD:
        raise RuntimeError("the demo's good certificate is not good")
    return body


def _rounds(
    arguments: argparse.Namespace,
    folder: Path,
    installation: Installation,
    nginx: Nginx,
    shapes: dict[str, Request],
) -> dict[str, Any]:
    servers = {
        "nginx": (nginx.port, nginx.worker_pid),
        "certstatus": (installation.port, installation.worker_pid),
    }
    seen: dict[str, dict[str, list[float]]] = {
        shape: {"nginx": [], "certstatus": [], "ratio": []} for shape in shapes
    }
    for number in range(arguments.rounds + 1):  # the first round warms up and is not counted
        for shape, request in shapes.items():
            figures = {}
            for server, (port, pid) in servers.items():
                before = cpu_ns(pid)
                done = run(
                    folder, port, request, arguments.connections, arguments.seconds, GENERATOR_PROCESSOR
                )
                spent = cpu_ns(pid) - before
                if done.failures or not done.requests:
                    raise RuntimeError(
                        f"{server}, {shape}: {done.failures} failures, {done.requests} requests"
                    )
                figures[server] = spent / done.requests / 1000
            if number:
                for server, figure in figures.items():
                    seen[shape][server].append(figure)
                seen[shape]["ratio"].append(figures["certstatus"] / figures["nginx"])
                print(f"{number}/{arguments.rounds} {shape}: {figures}", file=sys.stderr, flush=True)
    return {
        shape: {name: _spread(values) for name, values in columns.items()} for shape, columns in seen.items()
    }


def _spread(values: list[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 3),
        "min": round(min(values), 3),
        "max": round(max(values), 3),
    }


def _what(arguments: argparse.Namespace, size: int) -> dict[str, Any]:
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    model = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.processor(),
    )
    return {
        "command": "python -m bench.status_check "
        f"--rounds {arguments.rounds} --seconds {arguments.seconds} --connections {arguments.connections}",
        "commit": commit.stdout.strip(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "machine": f"{model}, {platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "nginx": Nginx.version(),
        "packages": {name: metadata.version(name) for name in ("uvloop", "aiohttp", "cryptography")},
        "response_bytes": size,
        "unit": "CPU microseconds of the server process per request; ratio certstatus / nginx per round",
        "access": "registered, counting on",
    }


def table(record: dict[str, Any]) -> str:
    """Return the record as Markdown rows."""
    lines = ["| path | nginx, µs | certstatus, µs | ratio (min-max) |", "|---|---|---|---|"]
    for shape, row in record["paths"].items():
        ratio = row["ratio"]
        lines.append(
            f"| {shape} | {row['nginx']['median']:.1f} | {row['certstatus']['median']:.1f} "
            f"| {ratio['median']:.2f} ({ratio['min']:.2f}-{ratio['max']:.2f}) |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure, write the record, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()
    record = measure(arguments)
    out = arguments.out or Path("bench/results") / f"status-check-{record['what']['commit']}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(record, indent=2) + "\n")
    print(table(record))
    print(f"\nrecord: {out}")


if __name__ == "__main__":
    main()

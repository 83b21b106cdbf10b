"""The yardstick: nginx, one worker, serving a static file of the same bytes, plain and over TLS.

Knows: a configuration in which nginx does as little as it can (no log, the open file cached), answers
GET and POST alike, and keeps connections as long as the subject does; over TLS it takes version 1.3 only.
Does not know: the subject.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.cpu_time import children, pin
from bench.server import Place, free_port, wait_for_port
from bench.tls_files import TlsFiles

_CONFIGURATION = """
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  sendfile on;
  tcp_nopush off;
  tcp_nodelay on;
  keepalive_timeout 75;
  keepalive_requests 1000000000;
  open_file_cache max=100;
  default_type application/ocsp-response;
  client_body_temp_path {folder}/body;
  types {{ }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    {tls}
    root {folder}/www;
    location / {{
      error_page 405 =200 /answer;
      try_files /answer =404;
      add_header Cache-Control "private, max-age=300, no-transform, must-revalidate";
      add_header Expires "Thu, 01 Jan 2037 00:00:00 GMT";
    }}
  }}
}}
"""

_TLS = """
    listen 127.0.0.1:{port} ssl backlog=4096;
    ssl_certificate {files.server_certificate};
    ssl_certificate_key {files.server_key};
    ssl_protocols TLSv1.3;
"""
_CLIENTS = """
    ssl_client_certificate {files.ca};
    ssl_verify_client on;
"""


class Nginx:
    """A running nginx that answers every request with *body*; it has *processor* for its own.

    With *tls* it listens at ``tls_port`` too; *ask_clients*: for clients with a certificate only.
    """

    def __init__(
        self,
        folder: Path,
        body: bytes,
        processor: int,
        tls: TlsFiles | None = None,
        ask_clients: bool = False,
    ) -> None:
        binary = shutil.which("nginx") or "/usr/sbin/nginx"
        www = folder / "www"
        www.mkdir(parents=True)
        folder.chmod(0o755)
        (www / "answer").write_bytes(body)
        configuration = folder / "nginx.conf"
        self.name = "nginx"
        self.port = free_port()
        self.tls_port = free_port()
        self.body = body
        more = ""
        if tls is not None:
            more = (_TLS + (_CLIENTS if ask_clients else "")).format(port=self.tls_port, files=tls)
        configuration.write_text(_CONFIGURATION.format(folder=folder, port=self.port, tls=more))
        self._process = subprocess.Popen(
            [binary, "-c", str(configuration), "-p", str(folder), "-g", f"user {_user()};"],
            stderr=subprocess.DEVNULL,
        )
        try:
            wait_for_port(self.port)
            self.pids: Sequence[int] = children(self._process.pid)
            for pid in self.pids:
                pin(pid, processor)
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def tls(self) -> Place:
        """The same server by its TLS port."""
        return Place("nginx, TLS", self.tls_port, self.pids)

    def stop(self) -> None:
        """Stop nginx and wait for it."""
        self._process.terminate()
        self._process.wait(10)

    @staticmethod
    def version() -> str:
        """Return nginx's own word on its version."""
        binary = shutil.which("nginx") or "/usr/sbin/nginx"
        return subprocess.run([binary, "-v"], capture_output=True, text=True, check=True).stderr.strip()


def _user() -> str:
    return "root" if os.geteuid() == 0 else os.environ.get("USER", "nobody")

"""The yardstick: nginx, one worker, serving a static file of the same bytes.

Knows: a configuration in which nginx does as little as it can (no log, the open
file cached), answers GET and POST alike, and keeps
connections as long as the subject does.  Does not know: the subject.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

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


class Nginx:
    """A running nginx that answers every request with *body*."""

    def __init__(self, folder: Path, port: int, body: bytes) -> None:
        binary = shutil.which("nginx") or "/usr/sbin/nginx"
        www = folder / "www"
        www.mkdir(parents=True)
        folder.chmod(0o755)
        (www / "answer").write_bytes(body)
        configuration = folder / "nginx.conf"
        configuration.write_text(_CONFIGURATION.format(folder=folder, port=port))
        self.port = port
        self._process = subprocess.Popen(
            [binary, "-c", str(configuration), "-p", str(folder), "-g", f"user {_user()};"],
            stderr=subprocess.DEVNULL,
        )
        self.worker_pid = self._find_worker()

    def _find_worker(self) -> int:
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        for _ in range(100):
            pids = children.read_text().split()
            if pids:
                return int(pids[0])
            time.sleep(0.05)
        raise RuntimeError("nginx has no worker after 5 s")

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

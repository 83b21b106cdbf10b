"""What must not happen to a running installation, whatever a test sends it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Protocol

from served_installation import Served
from wire_client import Wire


class OpenWire(Protocol):
    """Makes a counting client of an installation; *same_workers*: whether the test lets them live."""

    def __call__(self, installation: Served, *, same_workers: bool = True) -> Wire: ...


class Watch:
    """What must not have happened to an installation since the last look."""

    def __init__(self, installation: Served) -> None:
        self.installation = installation
        self._read: dict[Path, int] = {}
        self.pids = self._worker_pids()
        self.news()

    def _worker_pids(self) -> dict[str, int]:
        run = self.installation.state / "run"
        return {path.name: json.loads(path.read_text())["pid"] for path in run.glob("worker-*.json")}

    def news(self) -> str:
        """What the logs say since the last look."""
        said = []
        for path in sorted((self.installation.state / "log").glob("*.log")):
            with path.open() as file:
                file.seek(self._read.get(path, 0))
                said.append(file.read())
                self._read[path] = file.tell()
        return "".join(said)

    def check(self, *, same_workers: bool) -> None:
        """Nothing broke, nobody died, and whoever comes next is served."""
        log = self.news()
        assert "Traceback" not in log, log
        pids, self.pids = self.pids, self._worker_pids()
        assert not same_workers or self.pids == pids
        after = Wire(self.installation.url)
        assert after.get("/healthz").status == 200

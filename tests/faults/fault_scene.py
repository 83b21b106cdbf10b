"""The two installations that are mistreated, each with everything that can be done to it.

::

    ALONE   SQLite and a private Valkey; state folder, its index, host and CRL parts on small disks
    APART   PostgreSQL and a Valkey with a replica, all real, behind proxies, found by host names

Knows: setting them up (from a copy of one made before, because that is quick), and taking down every
process and mount.  Does not know: which fault comes when.
"""

from __future__ import annotations

import fcntl
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fault_installation import FaultInstallation
from fault_mounts import SmallDisk, enter_private_mounts
from fault_names import STORE_NAME, VALKEY_NAME, Names
from fault_servers import PostgresServer, ValkeyPair
from fault_slow_disk import SlowDisk

ALONE, APART = "alone", "apart"
KINDS = (ALONE, APART)
# Room for a run, and soon full.
_DISKS_MB = {"store": 48, "index": 8, "host": 16, "crl": 8}
_FOLDERS = {"store": ".", "index": "index", "host": "host", "crl": "crl"}


@contextmanager
def new_folder() -> Iterator[Path]:
    """Give a folder that PostgreSQL's own user may enter, unlike pytest's; it is removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="certstatus-faults-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Prepared:
    """Fresh installations kept in *folder* to be copied; made when first asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def state(self, kind: str) -> Path:
        """Return the state folder of a fresh installation of *kind*."""
        return self._made(kind) / "state"

    def postgres(self) -> Path:
        """Return the data folder of a stopped PostgreSQL that holds the store of a fresh APART."""
        return self._made(APART) / "postgres"

    def _made(self, kind: str) -> Path:
        folder = self._folder / kind
        self._folder.mkdir(parents=True, exist_ok=True)
        # Runs side by side want the same at the same time.
        with (self._folder / f"{kind}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (folder / "complete").exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                folder.chmod(0o755)
                self._make(kind, folder)
                (folder / "complete").touch()
        return folder

    @staticmethod
    def _make(kind: str, folder: Path) -> None:
        if kind == ALONE:
            installation = FaultInstallation(folder)
            installation.init()
            installation.end()
            return
        postgres = PostgresServer(folder / "postgres")
        try:
            installation = FaultInstallation(folder, store_url=postgres.url("127.0.0.1"))
            installation.init()
            installation.end()
            postgres.stop()
        finally:
            postgres.end()


class Scene:
    """One running installation of *kind* below *folder*, and what it stands on."""

    def __init__(self, kind: str, folder: Path, prepared: Prepared) -> None:
        self.kind = kind
        self.folder = folder
        self.disks: dict[str, SmallDisk] = {}
        self.names: Names | None = None
        self.valkeys: ValkeyPair | None = None
        self.postgres: PostgresServer | None = None
        self._ends: list[Callable[[], object]] = []
        enter_private_mounts()
        folder.mkdir(parents=True, exist_ok=True)
        # PostgreSQL runs as a user of its own and must get at its folder.
        folder.chmod(0o755)
        try:
            self.slow_disk = SlowDisk(folder)
            self.installation = self._alone(prepared) if kind == ALONE else self._apart(prepared)
            self._ends.append(self.installation.end)
            self.installation.serve()
            self.installation.wait_ready()
        except BaseException:
            self.end()
            raise

    def _alone(self, prepared: Prepared) -> FaultInstallation:
        state = self.folder / "state"
        for name, folder in _FOLDERS.items():
            disk = SmallDisk(state / folder, _DISKS_MB[name])
            self._ends.append(disk.end)
            self.disks[name] = disk
        installation = FaultInstallation(self.folder, environment=self.slow_disk.environment)
        installation.adopt(prepared.state(ALONE))
        return installation

    def _apart(self, prepared: Prepared) -> FaultInstallation:
        self.names = Names(self.folder)
        self._ends.append(self.names.end)
        self.postgres = PostgresServer(self.folder / "postgres", prepared.postgres())
        self._ends.append(self.postgres.end)
        self.valkeys = ValkeyPair(self.folder)
        self._ends.append(self.valkeys.end)
        installation = FaultInstallation(
            self.folder,
            store_url=self.postgres.url(STORE_NAME),
            valkey_url=f"redis://{VALKEY_NAME}:{self.valkeys.front.port}",
            environment=self.slow_disk.environment,
        )
        installation.adopt(prepared.state(APART))
        return installation

    def mend(self) -> None:
        """End every fault there may be, so that the installation can be judged or taken down."""
        self.slow_disk.take(0)
        for disk in self.disks.values():
            disk.free()
        if self.names is not None:
            self.names.come_back()
        if self.valkeys is not None:
            self.valkeys.front.heal()
            self.valkeys.link.heal()
        if self.postgres is not None:
            self.postgres.front.heal()

    def end(self) -> None:
        """Take everything down: processes, servers, mounts."""
        for end in reversed(self._ends):
            end()
        self._ends.clear()

"""Host names of our own that can vanish: the resolver's files, put over the machine's in our mounts.

Knows: ``/etc/hosts`` with our names in it or not, and a ``resolv.conf`` whose only server never
answers, so that a name that is gone costs its asker a time-out, as an outage of the DNS does.
Does not know: who uses the names.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from fault_mounts import bind_file, enter_private_mounts, unmount

VALKEY_NAME = "valkey.faults.invalid"
STORE_NAME = "store.faults.invalid"
_HOSTS, _RESOLVER = Path("/etc/hosts"), Path("/etc/resolv.conf")
# Reserved for documentation (RFC 5737): nobody answers there.
_NOBODY = "192.0.2.1"


class Names:
    """Our names, all at 127.0.0.1, while they are there."""

    def __init__(self, folder: Path) -> None:
        enter_private_mounts()
        self._hosts = folder / "hosts"
        resolver = folder / "resolv.conf"
        self._others = "127.0.0.1 localhost\n::1 localhost\n"
        self.come_back()
        resolver.write_text(f"nameserver {_NOBODY}\noptions timeout:1 attempts:1\n")
        bind_file(self._hosts, _HOSTS)
        bind_file(resolver, _RESOLVER)

    def vanish(self) -> None:
        """Let nobody find our names any more."""
        # Written over in place: it is this very file that is bound.
        self._hosts.write_text(self._others)

    def come_back(self) -> None:
        """Let our names be found."""
        self._hosts.write_text(self._others + f"127.0.0.1 {VALKEY_NAME} {STORE_NAME}\n")

    def end(self) -> None:
        """Give the machine's files back."""
        for path in (_HOSTS, _RESOLVER):
            with suppress(OSError):
                unmount(path)

"""The folder of a responder host, ``STATE/host``, and what it gets from the issuance side.

Knows: making the host's own key, and the two things that both sides share: the publisher's public
key (whose beats to believe) and the index key (how fingerprints are made).
Does not know: OCSP keys (``responder.keys``) and who is enrolled (``issuance.responder_certs``).
"""

from __future__ import annotations

import json
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from certstatus.durable import write_durable
from certstatus.publisher_key import (
    SECRET_MODE,
    load_ed25519_private,
    load_ed25519_public,
    load_index_key,
    make_ed25519,
    read_secret,
)


def make_host(folder: Path, name: str) -> Ed25519PublicKey:
    """Make a host's folder and key, or name an existing one anew; return its public key to be enrolled.

    Raises: KeyFileError — there is a key and it cannot be read.
    """
    for part in (folder, folder / "keys", folder / "index", folder / "counters"):
        part.mkdir(mode=0o700, parents=True, exist_ok=True)
    key_path = folder / "host.key"
    known = load_ed25519_private(key_path) if key_path.exists() else None
    key = known or make_ed25519(key_path, folder / "host.pub")
    # JSON's strings are TOML's.
    write_durable(folder / "host.toml", f"name = {json.dumps(name)}\n".encode())
    return key.public_key()


def copy_shared_keys(source: Path, folder: Path) -> None:
    """Copy ``publisher.pub`` and ``index.key`` from the folder *source* into the host's.

    Raises: KeyFileError — one of them is absent or of no use.
    """
    load_ed25519_public(source / "publisher.pub")
    load_index_key(source / "index.key")
    write_durable(folder / "publisher.pub", (source / "publisher.pub").read_bytes())
    write_durable(folder / "index.key", read_secret(source / "index.key"), SECRET_MODE)

"""Where a responder host has its CRL files: in the folder it shares with the publisher, or in one of its own.

Knows: the two folders.  Does not know: how files come into either (``publisher``, ``fetch_crls``).
"""

from __future__ import annotations

from pathlib import Path

from certstatus.config import Config


def crl_folder(config: Config) -> Path:
    """Return the folder that CRLs are served from.

    A host's own is another one than the publisher's, even where both are on one machine: what is fetched is
    tidied by what the catalogue names, and the publisher has files that it does not name yet.
    """
    return config.state / "host" / "crl" if fetches_crls(config) else config.state / "crl"


def fetches_crls(config: Config) -> bool:
    """Say whether this host fetches its CRL files through Valkey."""
    return config.responder.crl_files == "fetched"

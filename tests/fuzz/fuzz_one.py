"""Runs one target under atheris: the process that ``run_fuzz`` starts.

python tests/fuzz/fuzz_one.py TARGET [options of libFuzzer] [corpus folders]
"""

from __future__ import annotations

import importlib
import logging
import shlex
import sys

import atheris

# Only what is to be covered steers the mutations; the oracles are not.
_OURS = ["certstatus", "responder", "issuance"]


def main() -> None:
    """Import the target with our code instrumented, and never return."""
    # A target may provoke thousands of log lines a second, all of them right.
    logging.disable(logging.CRITICAL)
    with atheris.instrument_imports(include=_OURS):
        target = importlib.import_module(f"fuzz_{sys.argv[1]}")
    # What libFuzzer runs through a shell when it needs another process of its kind.
    again = shlex.join([sys.executable, *sys.argv[:2]])
    atheris.Setup([again, *sys.argv[2:]], target.one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()

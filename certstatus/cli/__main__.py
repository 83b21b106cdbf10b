"""``python -m certstatus.cli``: the command line without its installed script."""

from certstatus.cli import main

main()

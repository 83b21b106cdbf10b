"""What holds for every test: an example of hypothesis may take long where the machine is busy."""

from __future__ import annotations

from hypothesis import settings

# Its default limit, 200 ms by the clock on the wall, fails right code when processes crowd.
settings.register_profile("busy", deadline=None)
settings.load_profile("busy")

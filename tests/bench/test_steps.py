"""The steps of the answer path can be taken one by one, and are those of its table."""

from __future__ import annotations

import gc
import re
import time

from bench.steps import Stopwatch, measure
from responder import answer


def test_every_step_of_the_table_is_measured() -> None:
    """By its name there; the whole costs more than any of its parts; collecting goes on afterwards."""
    steps = measure(certificates=500, algorithm="p256", repeats=3, repeat_s=0.002)["steps"]
    table = re.findall(r"^    (\S[^.\n]*?)  +\S.*? +[0-9.]+  +\S.*$", answer.__doc__ or "", re.MULTILINE)
    assert len(table) == 14
    assert set(table) <= steps.keys()
    assert steps["a signed answer"] > steps["sign"] > steps["look up"] > 0
    assert gc.isenabled()


def test_a_call_that_does_nothing_costs_nothing() -> None:
    """What a call costs by itself is not the step's."""
    watch = Stopwatch(repeats=5, repeat_s=0.002)
    assert watch.us(lambda: None) < 0.1
    end_s = time.process_time
    busy_us = watch.us(lambda: [end_s() for _ in range(100)])
    assert busy_us > 1.0

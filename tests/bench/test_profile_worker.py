"""What perf, py-spy, strace and the kernel print is read as it is meant."""

from __future__ import annotations

import pytest

from bench.profile_worker import group_of, read_perf, read_spy, read_stat, read_strace, sums

PERF = """
# Overhead|Shared Object|Symbol
    40.50%|[kernel.kallsyms]|[k] tcp_sendmsg_locked
    30.25%|libpython3.11.so.1.0|[.] _PyEval_EvalFrameDefault
     9.25%|_rust.abi3.so|[.] ecp_nistz256_point_double
    20.00%|[kernel.kallsyms]|[k] tcp_poll
"""
STRACE = """
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 60.00    0.052541           8      6541           write
 40.00    0.012541           8      6500       121 read
------ ----------- ----------- --------- --------- ----------------
100.00    0.065082           8     13041       121 total
"""


def test_shares_of_machine_code_add_up_by_group() -> None:
    """Two functions of the kernel are one share; cryptography's own file is OpenSSL."""
    shares = read_perf(PERF.splitlines())
    assert shares["[kernel.kallsyms]", "tcp_poll"] == 0.2
    assert sums(shares, group_of) == {"kernel": 0.605, "interpreter": 0.3025, "OpenSSL": 0.0925}


@pytest.mark.parametrize(
    ("file", "group"),
    [
        ("loop.cpython-311-x86_64-linux-gnu.so", "uvloop and libuv"),
        ("_hashlib.cpython-311-x86_64-linux-gnu.so", "OpenSSL"),
        ("_bisect.cpython-311-x86_64-linux-gnu.so", "interpreter"),
        ("[vdso]", "kernel"),
        ("_multidict.cpython-311-x86_64-linux-gnu.so", "interpreter"),
        ("hiredis.cpython-311-x86_64-linux-gnu.so", "other"),
    ],
)
def test_a_file_of_machine_code_has_its_group(file: str, group: str) -> None:
    """By how its name begins, the more special name first."""
    assert group_of(file) == group


def test_only_the_loop_and_only_the_innermost_function_count() -> None:
    """A thread that waits is left out; a function that calls another has no share in it."""
    stacks = [
        "thread (12);Lane.data_received (responder/lane.py);repeat (responder/answer.py) 3",
        "thread (12);run (uvloop/loop.py);Lane.data_received (responder/lane.py:12) 1",
        'thread (123): "follower";run (responder/follow.py) 96',
    ]
    assert read_spy(stacks, 12) == {
        ("responder/answer.py", "repeat"): 0.75,
        ("responder/lane.py", "Lane.data_received"): 0.25,
    }


def test_calls_are_counted_whether_they_failed_or_not() -> None:
    """The column of errors is empty where there were none; the sum is no system call."""
    assert read_strace(STRACE.splitlines()) == {"write": 6541, "read": 6500}


def test_the_name_of_a_process_may_hold_anything() -> None:
    """Spaces and parentheses in it move no column."""
    line = "7 (a ) b) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 4 0 1 2 3"
    assert read_stat(line) == (2.5, 0.5)

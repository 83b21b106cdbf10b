"""Starts and ends of an installation: nothing is left of one, and nothing of it is in the way of the next.

All processes here are the real ones, started by the real command line.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time

from served_installation import Served

from certstatus import processes
from certstatus.private_valkey import socket_folder


def test_a_first_start_answers_and_ctrl_c_leaves_nothing(served: Served) -> None:
    """Ready means ready; after an interrupt nothing runs, nothing lies about, and every answer is counted."""
    served.serve()
    served.wait_for_one_of_each()
    for _ in range(5):
        assert served.ask("good") == "good"
        assert served.ask("revoked", "sign") == "revoked"
    # One full collection would stop a worker for tens of milliseconds, so none is ever made by itself.
    collector = json.loads((served.state / "run" / "worker-0.json").read_text())["collector"]
    assert collector["automatic"] is False
    assert collector["frozen"] > 10_000
    assert served.stop(signal.SIGINT) == 0
    assert set(served.counts().values()) == {0}
    assert not socket_folder(served.state).exists()
    assert not list((served.state / "host" / "counters").glob("*.counters"))
    counted = {(item["service"], item["kind"]): item["count"] for item in served.json("provisions")}
    assert counted == {("AUTH", "good"): 5, ("SIGN", "revoked"): 5}


def test_nothing_outlives_a_killed_supervisor_and_the_next_finds_one_of_each(served: Served) -> None:
    """kill -9 of the supervisor ends all; a new start goes on with one of everything, on the same port."""
    served.serve()
    port = served.url.rpartition(":")[2]
    assert served.supervisor is not None
    left = [who for pids in served.running().values() for pid in pids if (who := processes.identity_of(pid))]
    served.supervisor.kill()
    served.supervisor.wait()
    for who in left:
        assert processes.wait_until_gone(who, 5), processes.command_line(who.pid)
    served.serve("--port", port)
    served.wait_for_one_of_each()
    assert served.url.endswith(f":{port}")
    assert served.ask("good") == "good"


def test_what_an_earlier_run_left_is_ended_first(served: Served) -> None:
    """A process that is written down and still runs is ended before anything is started."""
    left = subprocess.Popen(["/bin/sleep", "600"])
    who = processes.identity_of(left.pid)
    assert who is not None
    run_folder = served.state / "run"
    run_folder.mkdir()
    (run_folder / "processes.json").write_text(json.dumps([["worker-0", *who]]))
    served.serve(workers=1)
    assert left.wait(5) == -signal.SIGTERM
    assert "ended 1 processes of an earlier run" in served.output


def test_a_worker_that_does_not_stop_is_killed_in_time(served: Served) -> None:
    """A stopped (SIGSTOP) worker cannot keep the others from ending."""
    served.config.write_text(served.config.read_text().replace("[responder]", "[responder]\nshutdown_s = 1"))
    served.serve()
    os.kill(served.running()["worker"][0], signal.SIGSTOP)
    began = time.monotonic()
    assert served.stop(signal.SIGTERM) == 0
    assert time.monotonic() - began < 8
    assert "does not stop; killed" in served.output
    assert set(served.counts().values()) == {0}


def test_a_second_interrupt_ends_the_waiting(served: Served) -> None:
    """Whoever presses Ctrl-C twice does not want to wait for anybody."""
    served.serve()
    worker = served.running()["worker"][0]
    os.kill(worker, signal.SIGSTOP)
    assert served.supervisor is not None
    served.supervisor.send_signal(signal.SIGINT)
    time.sleep(0.5)
    began = time.monotonic()
    # One for the workers that hang; the ranks after them are again given their time.
    assert served.stop(signal.SIGINT) == 0
    assert time.monotonic() - began < 9


def test_a_process_that_cannot_start_stops_the_start_with_its_reason(served: Served) -> None:
    """A publisher without its key: serve ends, and says which process, why, and where its log is."""
    (served.state / "secrets" / "publisher.key").unlink()
    done = served.run("serve", "--port", "0", "--workers", "1", expect=69)
    line = done.stderr.strip().splitlines()[-1]
    assert re.search(r"feed does not stay up: ended with exit code 66; .*publisher\.key: No such file", line)
    assert str(served.state / "log" / "feed.log") in line
    assert set(served.counts().values()) == {0}

"""Faults one after another, some on top of others, and what the answers show of each.

Knows: beginning, holding and ending faults by seeded chance; being ready again; a restore of an older
backup; how long nobody got an answer.
Does not know: which answer is right (``fault_oracle``).
"""

from __future__ import annotations

import random
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

from fault_kinds import EXPECTED, faults
from fault_load import Run, first_cut_s, histories
from fault_oracle import Histories
from fault_scene import Scene

RECOVERY_S_MAX = 60.0
RESTORE = "older backup restored"
_TWO_AT_ONCE = 0.3
_GAP_NS = 300_000_000


@dataclass(slots=True)
class Episode:
    """One or two faults: when they began, when the last was over, when the service was ready again."""

    names: list[str]
    began_ns: int
    over_ns: int = 0
    ready_ns: int = 0
    trouble: list[str] = field(default_factory=list)

    def recovery_s(self, answered_ns: list[int], until_ns: int) -> float:
        """Return the seconds from the end of the fault until all workers were ready and answers came
        without a gap again, as far as was looked (*until_ns*)."""
        back_ns = self.ready_ns
        first = bisect_left(answered_ns, self.over_ns)
        for before, after in pairwise(answered_ns[max(0, first - 1) : bisect_right(answered_ns, until_ns)]):
            if after - before > _GAP_NS:
                back_ns = max(back_ns, after)
        return (back_ns - self.over_ns) / 1e9


class Story:
    """What is done to one running scene under load."""

    def __init__(self, scene: Scene, run: Run, dice: random.Random) -> None:
        self.scene = scene
        self.run = run
        self.episodes: list[Episode] = []
        # (first second of it, its histories); the last epoch's are read at the end.
        self.past: list[tuple[int, Histories]] = []
        self.first_s = 0
        self._dice = dice
        self._pool = faults(scene, dice)
        self._order: list[str] = []

    def act(self, *names: str) -> Episode:
        """Do the faults *names*, or one or two by chance; return when the service is ready again."""
        if not names:
            count = 2 if self._dice.random() < _TWO_AT_ONCE else 1
            names = tuple(self._next() for _ in range(count))
        chosen = [self._pool[name] for name in names]
        episode = Episode(list(names), time.monotonic_ns())
        self.episodes.append(episode)
        print(f"{episode.began_ns / 1e9:.1f} {' + '.join(names)}", flush=True)
        until = []
        for fault in chosen:
            self._try(episode, fault.begin)
            until.append((time.monotonic() + self._dice.uniform(*fault.lasts_s), fault))
        for end_s, fault in sorted(until, key=lambda item: item[0]):
            time.sleep(max(0.0, end_s - time.monotonic()))
            self._try(episode, fault.end)
        episode.over_ns = time.monotonic_ns()
        self.wait_ready(episode)
        return episode

    def wait_ready(self, episode: Episode) -> None:
        """Wait until the service is ready, and every worker of it says so."""
        self.scene.installation.wait_ready(RECOVERY_S_MAX)
        self.scene.installation.wait_all_ready(RECOVERY_S_MAX)
        episode.ready_ns = time.monotonic_ns()

    def back_up(self) -> None:
        """Make the backup that ``restore`` will take."""
        self.scene.installation.run("backup", str(self._backup))

    def restore(self) -> Episode:
        """Stop, restore the older backup, start: what was published as revoked stays so."""
        installation = self.scene.installation
        episode = Episode([RESTORE], time.monotonic_ns())
        self.episodes.append(episode)
        print(f"{episode.began_ns / 1e9:.1f} {RESTORE}", flush=True)
        self.run.pause_writing()
        installation.run("publish", "now", "--all")
        self.past.append((self.first_s, histories(installation)))
        assert installation.stop() == 0
        installation.run("restore", str(self._backup))
        self.first_s = first_cut_s(installation)
        installation.serve()
        episode.over_ns = time.monotonic_ns()
        self.wait_ready(episode)
        self.run.resume_writing()
        return episode

    @property
    def _backup(self) -> str:
        return str(self.scene.folder / "backup.tar")

    def _next(self) -> str:
        if not self._order:
            self._order = sorted(self._pool)
            self._dice.shuffle(self._order)
        return self._order.pop()

    @staticmethod
    def _try(episode: Episode, deed: Callable[[], object]) -> None:
        try:
            deed()
        except EXPECTED as exc:
            # The very thing it was to be done to is away: a fault on top of another.
            episode.trouble.append(repr(exc))


def longest_silence_s(answered_ns: list[int], from_ns: int, to_ns: int) -> float:
    """Return the longest time within the span in which nobody got an answer; *answered_ns* ascends."""
    inside = answered_ns[bisect_left(answered_ns, from_ns) : bisect_right(answered_ns, to_ns)]
    marks = [from_ns, *inside, to_ns]
    return max(after - before for before, after in pairwise(marks)) / 1e9


def answers_within(answered_ns: list[int], from_ns: int, to_ns: int) -> int:
    """Return how many answers came within the span."""
    return bisect_right(answered_ns, to_ns) - bisect_left(answered_ns, from_ns)

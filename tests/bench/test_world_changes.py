"""What is done to a worker's world on purpose comes to the worker, or it is said that it did not."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from bench.under_load import Demo
from bench.world_changes import Figures, NotExercised, World

# Loads and rates, which others beside them would spoil.
pytestmark = pytest.mark.alone


def test_what_happens_comes_to_the_worker(tmp_path: Path) -> None:
    """Revocations at the rate asked for, other CRLs, other keys; and no phase without its revocations."""
    with Demo(tmp_path, people=400) as demo, closing(World(demo)) as world:
        before = demo.status()
        figures = revoke_in_time(world)
        assert figures["revoked"] >= 40
        assert 38 <= figures["per_s"] <= 45
        assert world.publish(0.0) == {"times": 1}
        assert world.renew_keys(0.0) == {"times": 1}
        after = demo.status()
        assert after["applied_seq"] >= before["applied_seq"] + figures["revoked"]
        assert {issuer["issuer_id"] for issuer in before["issuers"]} == {1, 2}
        old = {issuer["signer_serial"] for issuer in before["issuers"]}
        assert not old & {issuer["signer_serial"] for issuer in after["issuers"]}
        with pytest.raises(NotExercised, match="nobody is left"):
            world.revoke(10.0, 1000)


def revoke_in_time(world: World) -> Figures:
    """Revoke 40 a second, for one second in which the disk keeps up.

    It may stand still for a third of a second on a shared machine, and then the second must be refused.
    """
    refused: list[str] = []
    while len(refused) < 5:
        try:
            return world.revoke(1.0, 40)
        except NotExercised as error:
            if "a second were recorded, not 40" not in str(error):
                raise
            refused.append(str(error))
    pytest.fail(f"never in time: {refused}")

"""A builder's CRL run as a process of its own, told what to do line by line, so that it can be killed.

Says ``ready``, reads JSON lines ``{"now_ms", "steady_s", "do": "due" | "issue", "path", "complete"}`` and
answers each with ``{"made", "word", "failed", "now_ms"}``.  The clock is what the last line said, and goes
on only where a publisher waits for another second.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from publisher_cases import Clock

from issuance.ca_keys import CAKeyFolder
from issuance.store import Store
from publisher.crl_lot import PublishedCRL
from publisher.crl_plan import Due
from publisher.crl_publish import CRLPublisher, crl_lease
from publisher.crl_run import CRLRun
from publisher.lease import held


def main(state: Path, url: str) -> None:
    """Serve standard input to its end."""
    clock = Clock()
    with Store.open(url) as store:
        publisher = CRLPublisher(
            store,
            CAKeyFolder(state / "ca", environment={}),
            state,
            now_ms=clock.now_ms,
            monotonic_s=clock.monotonic_s,
            pause=clock.pass_s,
        )
        lease = crl_lease(store, clock.now_ms)
        run = CRLRun(publisher, lease, now_ms=clock.now_ms, monotonic_s=clock.monotonic_s)
        print("ready", flush=True)
        for line in sys.stdin:
            order: dict[str, Any] = json.loads(line)
            clock.ms, clock.steady_s = order["now_ms"], order["steady_s"]
            made: list[PublishedCRL] = []
            word = ""
            if order["do"] == "due":
                word = run.step()
            else:
                (scope,) = [scope for scope in publisher.scopes() if scope.path == order["path"]]
                with held(lease, wait_s=5) as fence:
                    made = publisher.issue(scope, Due(order["complete"], True), fence)
            failed = {path: failure.error for path, failure in run.failures.items()}
            answer = {"made": len(made), "word": word, "failed": failed, "now_ms": clock.ms}
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])

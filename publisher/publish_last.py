"""``certstatus crl prepare-last`` and ``publish-last``: a CA key's last CRLs, also while a builder runs.

Knows: that both are done under the lease under which all CRLs are made, of which keys, and of all scopes of
a key: its whole list, and its partitions, lot by lot, for a nation has thousands.
Does not know: what a last CRL is (``crl_last``), how it gets out (``crl_publish``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from certstatus import clock
from certstatus.config import Config
from certstatus.errors import CertStatusError, PolicyViolation, StoreAway
from issuance.ca_keys import CAKeyFolder
from issuance.store import Store
from publisher.crl_last import PreparedCRL
from publisher.crl_lot import PublishedCRL
from publisher.crl_plan import Due
from publisher.crl_publish import CRLPublisher, crl_lease
from publisher.lease import held

# A last CRL is a complete one, so its lots are those of complete ones.
_LAST = Due(True, False)


@dataclass(slots=True)
class LastReport:
    """What was published; ``failed``: scope's path -> what kept its last CRL back."""

    published: list[PublishedCRL] = field(default_factory=list)
    failed: dict[str, Exception] = field(default_factory=dict)


def prepare_last_now(
    config: Config,
    *,
    service: str | None = None,
    generation: int | None = None,
    wait_s: float = 30.0,
    now_ms: Callable[[], int] = clock.now_ms,
) -> list[PreparedCRL]:
    """Prepare the last CRLs of every CA key (of *service*, of one generation), also while a builder runs.

    Raises: LeaseHeld; UnknownCertificate — no such issuer; PolicyViolation — all last CRLs are out;
            KeyFileError, CRLCheckFailed, OSError: the scopes before the failing one are done.
    """
    with Store.open(config.store_url) as store, held(crl_lease(store, now_ms), wait_s) as fence:
        publisher = CRLPublisher(store, CAKeyFolder(config.state / "ca"), config.state, now_ms=now_ms)
        scopes = publisher.not_over(publisher.scopes_of(service, generation))
        return [publisher.prepare_last(scope, fence) for scope in scopes]


def publish_last_now(
    config: Config,
    *,
    service: str,
    generation: int,
    sign_now: bool = False,
    although_older: bool = False,
    wait_s: float = 30.0,
    now_ms: Callable[[], int] = clock.now_ms,
) -> LastReport:
    """Publish the last CRLs of one CA key, whole list and partitions, also while a builder runs.

    Takes:  *sign_now*: prepare them first, with the lists as they are.
    Gives:  what was published; of a scope of which nothing fit is prepared, or whose list changed while
            others were published, what kept it back: where the key is lost, the others do not wait for it.
    Raises: PolicyViolation — a list has changed since, or all last CRLs are out: then nothing is published;
            UnknownCertificate — no such issuer; LeaseHeld; as ``LastCRLs.prepare``.
    """
    with Store.open(config.store_url) as store, held(crl_lease(store, now_ms), wait_s) as fence:
        publisher = CRLPublisher(store, CAKeyFolder(config.state / "ca"), config.state, now_ms=now_ms)
        scopes = publisher.not_over(publisher.scopes_of(service, generation))
        if sign_now:
            for scope in scopes:
                publisher.prepare_last(scope, fence)
        report = LastReport()
        for scope in scopes:
            try:
                publisher.ready_last(scope, although_older=although_older)
            except (PolicyViolation, StoreAway):
                raise
            except (CertStatusError, OSError) as exc:
                report.failed[scope.path] = exc
        ready = [(scope, _LAST) for scope in scopes if scope.path not in report.failed]
        for lot in publisher.lots(ready):
            lot_scopes = [scope for scope, _ in lot]
            outcomes = publisher.publish_last_lot(lot_scopes, fence, although_older=although_older)
            for path, outcome in outcomes.items():
                if isinstance(outcome, Exception):
                    report.failed[path] = outcome
                else:
                    report.published.append(outcome)
        return report

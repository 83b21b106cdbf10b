"""The host agent, one per responder host: ``python -m responder.host_agent CONFIG``.

Knows: its round (newest beat, certificates, counters, status file), that on leaving it drains the counters
that workers have just sealed, and that CRL files are fetched beside it where the folder is not shared.
Does not know: how to answer anybody; workers do, and go on without it for a long time.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import redis

from certstatus import clock, config
from certstatus.errors import CertStatusError
from certstatus.issuer_table import Issuer
from certstatus.private_valkey import valkey_url
from certstatus.publisher_key import load_ed25519_public
from certstatus.status_file import write_status
from certstatus.valkey import VALKEY_AWAY, connect
from responder.certificate_renewal import CertificateRenewal, IssuerStanding
from responder.counter_drain import CounterDrain, DrainStatus
from responder.crl_folder import crl_folder, fetches_crls
from responder.fetch_crls import CRLFetcher, FetchThread
from responder.keys import HostKeys
from responder.newest_beat import NewestBeat, read_issuers, read_newest_beat

log = logging.getLogger(__name__)

VALKEY_ANSWER_S = 2.0
# Certificates are looked after so often; counters have a period of their own.
CERTIFICATES_PERIOD_S = 1.0
# Without a certificate there are no answers, so an answer to the request for it is looked for more often.
MISSING_PERIOD_S = 0.1
EXPIRED_LOOKED_AT_S = 3600.0
# At the end counters are waited for so long; what is left then is told at the next start.
LAST_DRAIN_S = 6.0
_LAST_DRAIN_PERIOD_S = 0.1
_FILES_END_S = 1.0


class HostAgent:
    """One host's agent over an open connection to Valkey."""

    def __init__(self, settings: config.Config, client: redis.Redis) -> None:
        folder = settings.state / "host"
        self._settings = settings
        self._client = client
        self._keys = HostKeys(folder)
        self._host = self._keys.host
        self._publisher_key = load_ed25519_public(folder / "publisher.pub")
        (folder / "counters").mkdir(parents=True, exist_ok=True)
        self._renewal = CertificateRenewal(
            self._keys, (settings.responder.key, *settings.responder.more_keys), settings.responder.key_uri
        )
        self._drain = CounterDrain(folder / "counters")
        # Beside the rounds, for a CRL may be large; with a connection of its own.
        self.files: FetchThread | None = None
        if fetches_crls(settings):
            self.files = FetchThread(self._make_fetcher)
        self._status_path = settings.state / "run" / "agent.json"
        self._issuers: list[Issuer] = []
        self._issuers_sha256 = b""
        # Due times, monotonic seconds.
        self._certificates_at_s = 0.0
        self._expired_at_s = 0.0
        # As of the last round.
        self._newest: NewestBeat | None = None
        self._drained = DrainStatus(0, 0, 0, 0)
        self._problem = ""
        self._is_missing = False

    def _make_fetcher(self, wait: Callable[[float], object]) -> CRLFetcher:
        return CRLFetcher(
            crl_folder(self._settings),
            connect(valkey_url(self._settings), VALKEY_ANSWER_S),
            self._settings.valkey.namespace,
            self._publisher_key,
            self._host,
            wait=wait,
        )

    def reload(self) -> None:
        """Look at the key files again."""
        self._renewal.reload()

    @property
    def period_s(self) -> float:
        """How long to wait until the next round."""
        return MISSING_PERIOD_S if self._is_missing else self._settings.responder.drain_period_ms / 1000

    def round(self) -> None:
        """Do what is due once; trouble with Valkey or this host's files is noted and tried again."""
        now_s, monotonic_s = clock.now_s(), clock.monotonic_s()
        try:
            self._newest = read_newest_beat(
                self._client, self._settings.valkey.namespace, self._publisher_key
            )
            if self._newest is not None:
                self._drained = self._drain.step(self._client, self._newest.keys, self._host, monotonic_s)
                if self._is_missing or monotonic_s >= self._certificates_at_s:
                    self._certificates_at_s = monotonic_s + CERTIFICATES_PERIOD_S
                    self._refresh_issuers(self._newest)
                    standing = self._renewal.step(self._client, self._newest.keys, self._issuers, now_s)
                    self._is_missing = any(item.state == "missing" for item in standing)
            if monotonic_s >= self._expired_at_s:
                self._expired_at_s = monotonic_s + EXPIRED_LOOKED_AT_S
                for name in self._keys.remove_expired(now_s):
                    log.info("key %s removed: expired a day ago", name)
            self._note(self._with_unfit())
        except VALKEY_AWAY as exc:
            self._note(f"Valkey: {exc}")
        except CertStatusError as exc:
            # A key file that is unfit, say: counters are drained all the same.
            self._note(self._with_unfit(str(exc)))
        except OSError as exc:
            self._note(f"{exc.filename}: {exc.strerror}")
        self._note_status(now_s)

    def last_drain(self) -> None:
        """Go on until every counter is acknowledged, or for ``LAST_DRAIN_S``."""
        until_s = clock.monotonic_s() + LAST_DRAIN_S
        while True:
            self.round()
            if not self._problem and self._drained.waiting == 0:
                return
            if clock.monotonic_s() >= until_s:
                log.warning(
                    "%d counter files are not acknowledged yet; the next start goes on",
                    self._drained.waiting,
                )
                return
            time.sleep(_LAST_DRAIN_PERIOD_S)

    def _refresh_issuers(self, newest: NewestBeat) -> None:
        if newest.beat.issuers.sha256 != self._issuers_sha256:
            self._issuers = read_issuers(self._client, newest)
            if self._issuers:
                self._issuers_sha256 = newest.beat.issuers.sha256

    def _with_unfit(self, problem: str = "") -> str:
        """Return *problem* with what is wrong with key and CRL files: told for as long as it is so."""
        found = [*(item.problem for item in self._renewal.unfit), problem]
        if self.files is not None and (trouble := self.files.fetcher.status.trouble):
            found.append(f"CRL files: {trouble}")
        return "; ".join(item for item in found if item)

    def _note(self, problem: str) -> None:
        if problem != self._problem:
            if problem:
                log.warning("%s", problem)
            else:
                log.info("all is well again")
            self._problem = problem

    def _note_status(self, now_s: int) -> None:
        try:
            standing = self._renewal.standing(self._issuers, now_s)
        except CertStatusError as exc:
            standing = []
            self._note(str(exc))
        content: dict[str, Any] = {
            "pid": os.getpid(),
            "host": self._host,
            "time_ms": clock.now_ms(),
            "beat_ms": self._newest.beat.time_ms if self._newest else None,
            "problem": self._problem,
            "certificates": [_certificate_status(item) for item in standing],
            "counters": dataclasses.asdict(self._drained),
            "crl_files": None if self.files is None else self.files.fetcher.status._asdict(),
        }
        write_status(self._status_path, content)


def _certificate_status(item: IssuerStanding) -> dict[str, Any]:
    signer = item.signer
    return {
        "issuer_id": item.issuer.issuer_id,
        "service": item.issuer.service,
        "generation": item.issuer.generation,
        "state": item.state,
        "problem": item.problem,
        "serial": signer.serial if signer else None,
        "not_before_s": signer.not_before_s if signer else None,
        "not_after_s": signer.not_after_s if signer else None,
        "renew_at_s": signer.renew_at_s if signer else None,
    }


def _caught_signals(numbers: Iterable[signal.Signals]) -> int:
    """Return a descriptor from which the numbers of these signals can be read, once they have come.

    So no round is interrupted half-way.  Were they blocked and waited for, one that came amid a round would
    be taken by a thread that a numerical library has started on being imported, and end the process.
    """
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    # Before the handlers: between the two a signal would be neither heard nor end anything.
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in numbers:
        signal.signal(number, lambda _number, _frame: None)
    return reading


def main(config_path: Path) -> int:
    """Run until SIGTERM or SIGINT; SIGHUP reads the key files again."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s agent %(levelname)s %(message)s"
    )
    signals = _caught_signals((signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
    try:
        settings = config.load_config(config_path)
        client = connect(valkey_url(settings), VALKEY_ANSWER_S)
        agent = HostAgent(settings, client)
        if agent.files is not None:
            agent.files.start()
        while True:
            agent.round()
            if not select.select([signals], [], [], agent.period_s)[0]:
                continue
            # Each signal is the octet of its number.
            if set(os.read(signals, 4096)) - {signal.SIGHUP}:
                break
            agent.reload()
        if agent.files is not None:
            agent.files.stop(_FILES_END_S)
        agent.last_drain()
        client.close()
    except CertStatusError as exc:
        log.error("%s", exc)
        return exc.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

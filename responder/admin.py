"""The admin listener: ``python -m responder.admin CONFIG``.

    /                            the operators' page
    /metrics                     Prometheus, over all workers and processes of this machine
    /healthz                     200
    /ca/<service>/g<n>.pem|.cer  CA certificates

A process of its own, so that nothing asked here can slow an answer down.  For operators only: it
listens on loopback unless told otherwise and asks nobody who they are.
Knows: routes, and reading what it shows.  Does not know: how it is laid out (``start_page``,
``metrics``).
"""

from __future__ import annotations

import asyncio
import logging
import signal
import ssl
import sys
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from certstatus import clock, listeners
from certstatus.beat import Beat
from certstatus.config import Config, load_config
from certstatus.crl_catalogue import CatalogueEntry
from certstatus.errors import CertStatusError
from certstatus.issuer_table import Issuer
from certstatus.private_valkey import valkey_url
from certstatus.publisher_key import load_ed25519_public
from certstatus.valkey import VALKEY_AWAY, connect
from responder.catalogue_pages import CataloguePages
from responder.keys import HostKeys
from responder.metrics import RunCollector
from responder.newest_beat import read_issuers, read_newest_beat
from responder.run_status import read_run_status
from responder.start_page import PageContent, render

log = logging.getLogger(__name__)

# What comes from Valkey is read at most so often, however many pages are open.
PUBLISHED_AGE_S = 1.0
VALKEY_ANSWER_S = 2.0
_SECURITY = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True, slots=True)
class Published:
    """What the newest beat vouches for; ``problem`` says why that is less than it should be."""

    beat: Beat | None = None
    issuers: tuple[Issuer, ...] = ()
    crls: tuple[CatalogueEntry, ...] = ()
    problem: str = ""


class Admin:
    """The admin pages of one machine."""

    def __init__(self, config: Config) -> None:
        self._config = config
        folder = config.state / "host"
        self._host = HostKeys(folder).host
        self._publisher_key = load_ed25519_public(folder / "publisher.pub")
        self._client = connect(valkey_url(config), VALKEY_ANSWER_S)
        self._pages = CataloguePages()
        self._published = Published()
        self._published_s = -PUBLISHED_AGE_S
        self._reading = asyncio.Lock()

    def application(self) -> web.Application:
        """Return the application with its routes."""
        application = web.Application()
        application.router.add_get("/", self.start_page)
        application.router.add_get("/metrics", self.metrics)
        application.router.add_get("/healthz", self.healthz)
        application.router.add_get("/ca/{service}/{name}", self.ca_certificate)
        return application

    async def start_page(self, _request: web.Request) -> web.Response:
        """The operators' page."""
        published = await self._read_published()
        responder = self._config.responder
        address = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(responder.bind, responder.bind)
        content = PageContent(
            host=self._host,
            public_url=f"http://{address}:{responder.port}",
            workers_configured=self._config.worker_count,
            status=read_run_status(self._config.state / "run", clock.now_ms() / 1000),
            beat=published.beat,
            issuers=published.issuers,
            crls=published.crls,
            problem=published.problem,
            now_ms=clock.now_ms(),
        )
        return web.Response(text=render(content), content_type="text/html", headers=_SECURITY)

    async def metrics(self, request: web.Request) -> web.Response:
        """Prometheus' exposition."""
        registry = CollectorRegistry(auto_describe=False)
        status = read_run_status(self._config.state / "run", clock.now_ms() / 1000)
        registry.register(RunCollector(status, self._config.worker_count))
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(registry), headers={"Content-Type": content_type})

    async def healthz(self, _request: web.Request) -> web.Response:
        """This process answers."""
        return web.Response(text="OK\n")

    async def ca_certificate(self, request: web.Request) -> web.Response:
        """The newest certificate of a CA key, as PEM or DER."""
        name, _, form = request.match_info["name"].partition(".")
        for issuer in (await self._read_published()).issuers:
            if issuer.path == f"{request.match_info['service']}/{name}" and issuer.certificates_der:
                der = issuer.certificates_der[0]
                if form == "cer":
                    return web.Response(body=der, content_type="application/pkix-cert")
                if form == "pem":
                    pem = ssl.DER_cert_to_PEM_cert(der)
                    return web.Response(text=pem, content_type="application/x-pem-file")
        raise web.HTTPNotFound

    async def _read_published(self) -> Published:
        async with self._reading:
            if clock.monotonic_s() - self._published_s >= PUBLISHED_AGE_S:
                self._published = await asyncio.to_thread(self._ask_valkey)
                self._published_s = clock.monotonic_s()
        return self._published

    def _ask_valkey(self) -> Published:
        """Return what is published now; what was known before, with a problem, if that cannot be read."""
        before = self._published
        try:
            newest = read_newest_beat(self._client, self._config.valkey.namespace, self._publisher_key)
            if newest is None:
                return Published(problem="nothing is published yet")
            catalogue = self._pages.read(self._client, newest.keys, newest.beat.crls)
            return Published(
                newest.beat,
                tuple(read_issuers(self._client, newest)),
                tuple(entry for scope in catalogue.scopes for entry in scope.entries),
            )
        except VALKEY_AWAY as exc:
            return Published(before.beat, before.issuers, before.crls, f"Valkey: {exc}")
        except CertStatusError as exc:
            return Published(before.beat, before.issuers, before.crls, str(exc))


async def serve(config: Config) -> None:
    """Serve until SIGTERM or SIGINT."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    # A changed configuration changes nothing here; only the signal must not end us.
    loop.add_signal_handler(signal.SIGHUP, lambda: None)
    runner = web.AppRunner(Admin(config).application(), access_log=None)
    await runner.setup()
    responder = config.responder
    inherited = listeners.inherited(listeners.ADMIN)
    site: web.BaseSite = (
        web.SockSite(runner, inherited, backlog=listeners.BACKLOG)
        if inherited is not None
        else web.TCPSite(runner, responder.admin_bind, responder.admin_port)
    )
    await site.start()
    await stopped.wait()
    await runner.cleanup()


def main(config_path: Path) -> int:
    """Run; return the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        asyncio.run(serve(load_config(config_path)))
    except CertStatusError as exc:
        log.error("%s", exc)
        return exc.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

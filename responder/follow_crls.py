"""The CRL follower: a thread beside the follower that brings in the catalogue which the newest beat names.

::

    beat names another root ─▶ pages not held ─▶ which files are here ─▶ shown: served and listed from now on
                                   │ missing, wrong          │ not all: looked for again each second
                                   └─▶ the one before stays, tried again

Apart from the follower, because a page that is missing, or a network folder that hangs, is no reason to let
answers about certificates run out.
Knows: that a catalogue is shown whole or not at all, and never one of another epoch than the worker's.
Does not know: how a catalogue is looked up in; whether a file is what it must be (``checked_crls``).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import NamedTuple

import redis

from certstatus import clock
from certstatus.beat import Pointer
from certstatus.crl_catalogue import Catalogue
from certstatus.crl_pack import ArchiveMark
from certstatus.errors import CertStatusError
from certstatus.feed_keys import FeedKeys
from certstatus.issuer_table import Issuer
from certstatus.valkey import VALKEY_AWAY, connect
from responder.catalogue_pages import CataloguePages, ReadCatalogue
from responder.crl_fragments import NOTHING_LISTED, ListedScopes, list_scopes
from responder.held_crls import HasFile, HeldCRLs, HeldScope

# While something is awaited.
LOOK_S = 1.0
_AGAIN_FIRST_S = 0.1


class WantedCRLs(NamedTuple):
    """What the worker believes: where the catalogue is, and for whom is answered."""

    keys: FeedKeys
    epoch: bytes
    pointer: Pointer
    issuers: list[Issuer]


class ShownCRLs(NamedTuple):
    """What is served, and listed; ``awaited``: how many files of the catalogue are not here."""

    catalogue: Catalogue
    listed: ListedScopes
    archive: ArchiveMark | None
    awaited: int = 0


NOTHING_SHOWN = ShownCRLs(Catalogue(is_known=False), NOTHING_LISTED, None)


class CRLFollower(threading.Thread):
    """Shows, by *show*, what is newest; ``trouble`` says why that is not what was wanted last."""

    def __init__(
        self,
        url: str,
        has_file: HasFile,
        show: Callable[[bytes, ShownCRLs], None],
        now_ms: Callable[[], int] = clock.now_ms,
    ) -> None:
        super().__init__(name="crls", daemon=True)
        self.trouble = ""
        self._url = url
        self._show = show
        self._now_ms = now_ms
        self._held = HeldCRLs(has_file)
        self._pages = CataloguePages()
        self._turn = threading.Condition()
        self._is_stopping = False
        self._wanted: WantedCRLs | None = None
        # Of the newest that could be read.
        self._read: tuple[bytes, Pointer, ReadCatalogue] | None = None
        self._listed = NOTHING_LISTED
        # What was shown last, and for whom.
        self._last: tuple[bytes, int, list[Issuer], list[HeldScope]] | None = None

    # --- for other threads ---------------------------------------------------------------------------

    def want(self, wanted: WantedCRLs) -> None:
        """Have this shown as soon as it can be; does not wait."""
        with self._turn:
            self._wanted = wanted
            self._turn.notify()

    def stop(self) -> None:
        """Tell the thread to end; it may be reading from a folder that hangs, so it is not waited for."""
        with self._turn:
            self._is_stopping = True
            self._turn.notify()

    # --- the thread ------------------------------------------------------------------------------------

    def run(self) -> None:
        """Show what is wanted until stopped; nothing that is wrong with it ends this thread."""
        client: redis.Redis | None = None
        done: WantedCRLs | None = None
        again_s: float | None = None
        pause_s = _AGAIN_FIRST_S
        try:
            while (wanted := self._next(done, again_s)) is not None:
                if wanted is not done:
                    pause_s = _AGAIN_FIRST_S
                done = wanted
                try:
                    # In here, because a cluster is asked at once, and may be away.
                    client = client or connect(self._url)
                    awaited = self._bring(client, wanted)
                    self.trouble = ""
                    again_s = LOOK_S if awaited else None
                    continue
                except (*VALKEY_AWAY, CertStatusError, OSError) as exc:
                    self.trouble = f"CRL catalogue: {exc}"
                except Exception as exc:
                    # A bug here must not be the last catalogue.
                    self.trouble = f"CRL catalogue: {exc!r}"
                again_s = pause_s
                pause_s = min(pause_s * 2, LOOK_S)
        finally:
            if client is not None:
                client.close()

    def _next(self, done: WantedCRLs | None, again_s: float | None) -> WantedCRLs | None:
        """Wait for something to do: what is wanted now, None for the end."""
        with self._turn:
            self._turn.wait_for(lambda: self._is_stopping or self._wanted is not done, again_s)
            return None if self._is_stopping else self._wanted

    def _bring(self, client: redis.Redis, wanted: WantedCRLs) -> bool:
        """Show what is wanted; say whether files of it are awaited.

        Raises: FeedError, redis.RedisError — it is not there whole.  If one of this epoch was, that one is
                looked after meanwhile.
        """
        trouble: Exception | None = None
        if self._read is None or self._read[:2] != (wanted.epoch, wanted.pointer):
            try:
                read = self._pages.read(client, wanted.keys, wanted.pointer)
                self._read = wanted.epoch, wanted.pointer, read
            except (*VALKEY_AWAY, CertStatusError) as exc:
                trouble = exc
        awaited = False
        if self._read is not None and self._read[0] == wanted.epoch:
            awaited = self._show_read(wanted, self._read[2])
        if trouble is not None:
            raise trouble
        return awaited

    def _show_read(self, wanted: WantedCRLs, read: ReadCatalogue) -> bool:
        found = self._held.look(read.scopes, self._now_ms() // 1000)
        awaited = [entry for item in found for entry in item.awaited]
        if self._last is None or self._last != (wanted.epoch, read.generation, wanted.issuers, found):
            scopes = [item.scope for item in found if item.scope is not None]
            # What comes here later is listed then, to those who ask for what is newer than this.
            late = [scope.changed - 1 for scope, item in zip(read.scopes, found, strict=True) if item.awaited]
            next_since = min([read.generation, *late])
            self._listed = list_scopes(
                read.generation, scopes, wanted.issuers, self._listed, next_since, read.ended
            )
            catalogue = Catalogue([entry for scope in scopes for entry in scope.entries], awaited)
            self._show(wanted.epoch, ShownCRLs(catalogue, self._listed, read.archive, len(awaited)))
            self._last = wanted.epoch, read.generation, wanted.issuers, found
        return bool(awaited)

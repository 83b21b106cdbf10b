"""The CRL catalogue as a beat names it, read page by page: what is held already is not fetched again.

Knows: root and pages in Valkey, each believed only by its hash; a page that the newest root does not name
is forgotten.
Does not know: when to read, or which of its files are on this host.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import redis

from certstatus.beat import Pointer
from certstatus.crl_catalogue import CatalogueScope, EndedScope, read_page, read_root
from certstatus.crl_pack import ArchiveMark
from certstatus.errors import FeedError
from certstatus.feed_keys import FeedKeys
from responder.newest_beat import read_document

# In one request: a page has some 50 kB.
_PAGES_AT_ONCE = 8
# What is longer is none: it is not brought at all.
_PAGE_BYTES_MAX = 16 << 20


class ReadCatalogue(NamedTuple):
    """A catalogue, whole.  ``scopes``: by issuer, then path; on pages that stayed, the same objects."""

    generation: int
    scopes: tuple[CatalogueScope, ...]
    archive: ArchiveMark | None
    ended: tuple[EndedScope, ...] = ()


NO_CATALOGUE = ReadCatalogue(0, (), None)


class CataloguePages:
    """One reader's pages."""

    def __init__(self) -> None:
        self._pages: dict[str, tuple[CatalogueScope, ...]] = {}

    def read(self, client: redis.Redis, keys: FeedKeys, pointer: Pointer) -> ReadCatalogue:
        """Return the catalogue whose root *pointer* names; none is named: the one without CRLs.

        Raises: FeedError — root or a page is not there, or not what it is called; redis.RedisError.  What
                came by then is held, so that the next call goes on from there.
        """
        if pointer.generation == 0:
            return NO_CATALOGUE
        content = read_document(client, keys, "crls", pointer)
        if content is None:
            raise FeedError(f"crls generation {pointer.generation}: not in Valkey")
        root = read_root(content)
        # At first, so that roots that never become whole leave no more behind than one of them.
        self._pages = {page: self._pages[page] for page in root.pages if page in self._pages}
        missing = [page for page in root.pages if page not in self._pages]
        any_client: Any = client
        for at in range(0, len(missing), _PAGES_AT_ONCE):
            some = missing[at : at + _PAGES_AT_ONCE]
            pipeline: Any = client.pipeline(transaction=False)
            for page in some:
                pipeline.hstrlen(keys.catalogue_pages(), page)
            for page, octets in zip(some, pipeline.execute(), strict=True):
                if octets > _PAGE_BYTES_MAX:
                    raise FeedError(f"page {page:.16} of CRL catalogue {root.generation}: {octets} bytes")
            for page, body in zip(some, any_client.hmget(keys.catalogue_pages(), some), strict=True):
                if body is None:
                    raise FeedError(f"page {page:.16} of CRL catalogue {root.generation}: not in Valkey")
                self._pages[page] = read_page(body, page)
        scopes = tuple([scope for page in root.pages for scope in self._pages[page]])
        return ReadCatalogue(root.generation, scopes, root.archive, root.ended)

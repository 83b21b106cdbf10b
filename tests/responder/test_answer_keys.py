"""By what an answer is known again: never by octets that are no request, and after its issuer is known."""

from __future__ import annotations

import weakref
from dataclasses import replace

import pytest
from answer_cases import MALFORMED, UNAUTHORIZED, Scene, body
from responder_cases import post_request, request_der

from certstatus import oid
from certstatus.der import explicit, integer, octet_string, sequence
from certstatus.der import oid as encode_oid
from certstatus.extension import encode_extension
from certstatus.index import View
from certstatus.ocsp_request import parse_request
from responder.answer import How


class _Mark:
    """Something whose end can be seen."""


_MD5 = "1.2.840.113549.2.5"


@pytest.mark.parametrize("nonce", [None, b"n" * 16])
@pytest.mark.parametrize("first", [True, False])
def test_a_hash_function_that_is_not_served_names_no_issuer(
    scene: Scene, nonce: bytes | None, first: bool
) -> None:
    """Whether the answer could be shared or not, the request is well-formed: unauthorized, not malformed."""
    algorithm = sequence(encode_oid(_MD5), b"\x05\x00")
    by_md5 = sequence(algorithm, octet_string(b"n" * 16), octet_string(b"k" * 16), integer(1))
    cert_ids = [by_md5] if first else [scene.sign.cert_id_der(1), by_md5]
    assert body(scene.ask(request_der(cert_ids, nonce))) == UNAUTHORIZED


def test_octets_behind_a_request_are_malformed_whatever_was_asked_before(scene: Scene) -> None:
    """What an answer to a preference is kept under cannot be sent in the place of a request."""
    wanted = sequence(sequence(sequence(encode_oid(oid.ECDSA_WITH_SHA384))))
    extension = explicit(2, sequence(encode_extension(oid.OCSP_PREF_SIG_ALGS, wanted)))
    preferring = sequence(sequence(sequence(sequence(scene.sign.cert_id_der(1))), extension))
    preferred = parse_request(preferring, 1).preferred
    assert preferred
    scene.ask(preferring)
    for behind in (repr(preferred).encode(), b"()", b"\x00"):
        assert body(scene.ask(scene.sign.request(1) + behind)) == MALFORMED


def test_what_is_made_once_a_second_keeps_no_index_that_is_gone(scene: Scene) -> None:
    """A second after another index came, nothing of a path that signs no more refers to the old one."""
    scene.ask(scene.sign.request(1))
    scene.ask(scene.auth.request(1))
    before = scene.ground.standing
    mark = _Mark()
    before.view.overlay[0, b""] = (mark, 0)  # type: ignore[assignment]
    kept = weakref.ref(mark)
    scene.ground.standing = replace(before, view=View(None), mark=before.mark + 1, era=before.era + 1)
    del before, mark
    assert kept() is not None
    scene.path.let_go()
    assert kept() is None


def test_fewer_certificates_a_request_hold_at_once(scene: Scene) -> None:
    """What was known under a higher limit is refused under a lower one, byte for byte or not."""
    der = scene.sign.request(1, 2, 3)
    message = post_request(der)
    scene.keep(der, How(True, message=message))
    assert scene.again(message) is not None
    scene.path.limit(scene.path.limits._replace(certificates_max=2))
    assert scene.again(message) is None
    assert body(scene.ask(der)) == UNAUTHORIZED
    assert scene.status(1) == "GOOD"

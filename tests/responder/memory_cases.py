"""Floods of what never repeats, against an answer path in a process of its own, whose memory stays small.

python memory_cases.py FOLDER     prints a JSON line for each flood: its name, what the caches say they
                                  hold, and by how much the resident memory has grown since before the first

The collector is off, as in a worker: what is left in cycles shows as growth.
"""

from __future__ import annotations

import gc
import itertools
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv6Address
from pathlib import Path

from answer_cases import Scene, Somebody
from responder_cases import everybody, get_request, post_request, request_der, serial_of

from certstatus import oid
from certstatus.cert_id import encode_cert_id, issuer_hashes
from certstatus.changes import ChangeKind
from certstatus.der import explicit, sequence, set_of, tlv
from certstatus.der import oid as encode_oid
from certstatus.extension import encode_extension
from responder.answer import How
from responder.keys import Signer, SignerSet

CACHE_BYTES = 1 << 24
PAGE_BYTES = 4096
BMP_STRING = 0x1E

Asked = tuple[bytes, bytes, Somebody]


def distinct_nonces(scene: Scene, peer: Somebody) -> Iterator[Asked]:
    """One certificate, a nonce of its own each time."""
    for n in range(100_000):
        der = scene.sign.request(1, nonce=n.to_bytes(16, "big"))
        yield der, post_request(der), peer


def distinct_headers(scene: Scene, peer: Somebody) -> Iterator[Asked]:
    """One question in ever other words: short ones, and such as are too long to be kept."""
    der = scene.sign.request(1)
    for n in range(100_000):
        padding = "x" * (5000 if n % 10 == 0 else n % 1500)
        yield der, get_request(der, headers=f"Host: h{n}\r\nX: {padding}\r\n"), peer


def distinct_serials(scene: Scene, peer: Somebody) -> Iterator[Asked]:
    """Numbers that nobody has issued, several at once from time to time."""
    for n in range(100_000):
        der = scene.sign.request(*range(1000 + n, 1000 + n + (20 if n % 500 == 0 else 1)))
        yield der, post_request(der), peer


def distinct_names(scene: Scene, peer: Somebody) -> Iterator[Asked]:
    """Each number by four hash functions and both encodings of the issuer's name."""
    both = [issuer_hashes(name_der, scene.sign.spki_der) for name_der in scene.ground.issuers[0].names_der]
    assert len(both) == 2
    for n in range(5000):
        for hashes, (alg, octets) in itertools.product(both, [(1, 20), (2, 32), (3, 48), (4, 64)]):
            of_alg = hashes[alg]
            der = request_der([encode_cert_id(alg, of_alg[:octets], of_alg[octets:], serial_of(500_000 + n))])
            yield der, post_request(der), peer


def distinct_preferences(scene: Scene, peer: Somebody) -> Iterator[Asked]:
    """Every algorithm there is, in an order of its own each time."""
    entries = [
        sequence(sequence(encode_oid(name)), sequence(encode_oid(oid.EC_PUBLIC_KEY), encode_oid(curve)))
        for name in (oid.ECDSA_WITH_SHA256, oid.ECDSA_WITH_SHA384, oid.ECDSA_WITH_SHA512)
        for curve in (oid.SECP256R1, oid.SECP384R1, oid.SECP521R1)
    ]
    cert_id = sequence(sequence(scene.sign.cert_id_der(1)))
    for order in itertools.islice(itertools.permutations(entries), 20_000):
        extension = encode_extension(oid.OCSP_PREF_SIG_ALGS, sequence(*order))
        der = sequence(sequence(cert_id, explicit(2, sequence(extension))))
        yield der, post_request(der), peer


def distinct_addresses(scene: Scene, _peer: Somebody) -> Iterator[Asked]:
    """One question from ever other addresses, every second of which is nobody's."""
    der = scene.sign.request(1)
    for n in range(150_000):
        yield der, get_request(der), Somebody(str(IPv6Address((0xFD00 + n % 2 << 112) + (n << 40) + 1)))


FLOODS = (
    distinct_nonces,
    distinct_headers,
    distinct_serials,
    distinct_names,
    distinct_preferences,
    distinct_addresses,
)


def resident_bytes() -> int:
    """What this process has in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES


def effortless(signer: Signer) -> Signer:
    """The same with one signature for everything: making them costs time and keeps nothing."""
    made = signer.sign(b"")
    return replace(signer, sign=lambda _tbs: made)


def main() -> None:
    """Let one flood follow the other, and say what they left."""
    scene = Scene(Path(sys.argv[1]), cache_bytes=CACHE_BYTES)
    common_name = sequence(encode_oid("2.5.4.3"), tlv(BMP_STRING, "TEST CA SIGN 1".encode("utf-16-be")))
    other_name_der = sequence(set_of(common_name))
    scene.ground.serve(
        replace(scene.sign.issuer, names_der=(scene.sign.name_der, other_name_der)), scene.auth.issuer
    )
    scene.ground.grant(everybody(), everybody(8, "fd00::/16"))
    scene.ground.change(ChangeKind.ISSUED, 1)
    scene.path.signers = SignerSet([effortless(signer) for signer in scene.path.signers.signers])
    gc.collect()
    gc.freeze()
    gc.disable()
    peer = Somebody()
    for der, message, who in itertools.islice(distinct_serials(scene, peer), 200):
        scene.keep(der, How(True, message=message), who)
    before = resident_bytes()
    for flood in FLOODS:
        for der, message, who in flood(scene, peer):
            if scene.again(message, who) is None:
                scene.keep(der, How(True, message=message), who)
        sizes = scene.path.sizes()
        said = sizes["memo_bytes"] + sizes["answer_bytes"]
        print(
            json.dumps({"flood": flood.__name__, "said": said, "grown": resident_bytes() - before}),
            flush=True,
        )
    scene.close()


if __name__ == "__main__":
    main()

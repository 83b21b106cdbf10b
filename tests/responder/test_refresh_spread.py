"""What was signed in one second is not signed anew, nor asked for anew, in one second."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from answer_cases import Scene, header

from responder.answer import How, Limits
from responder.keys import Signer, SignerSet


def _cheap(signer: Signer) -> Signer:
    """The same with a signature that costs nothing; no time of an answer depends on it."""
    signature = signer.sign(b"")
    return replace(signer, sign=lambda _tbs: signature)


def _max_age_s(answer: bytes) -> int:
    directive = (header(answer, "Cache-Control") or "").split(",")[0]
    assert directive.startswith("max-age="), directive
    return int(directive.removeprefix("max-age="))


def test_a_hundred_thousand_answers_do_not_come_back_together(scene: Scene) -> None:
    """Signed in one second, valid for 900: clients are sent back evenly over a tenth of that, and none of
    them before half of it is over."""
    issuer = replace(scene.sign.issuer, validity_unknown_s=900)
    scene.ground.serve(issuer)
    scene.path.signers = SignerSet([_cheap(signer) for signer in scene.path.signers.signers])
    ages: Counter[int] = Counter()
    for n in range(100_000):
        ages[_max_age_s(scene.ask(scene.sign.request(1_000_000 + n)))] += 1
    assert scene.desk.signatures == 100_000
    assert 450 <= min(ages) <= 452
    assert 538 <= max(ages) <= 540
    assert len(ages) >= 89
    # Evenly 1,111 a second; six deviations beside it.
    assert max(ages.values()) < 1111 + 6 * 1111**0.5


def test_cached_answers_are_signed_anew_one_after_the_other(scene: Scene) -> None:
    """Five hundred, asked for again every second as a busy day would: never more than a few of a hundred are
    signed in one second, from half of their life on, and by 60 % of it each has been, once."""
    scene.ground.serve(replace(scene.sign.issuer, validity_unknown_s=900))
    scene.limits = Limits(20, 1 << 24)
    scene.forget()
    scene.path.signers = SignerSet([_cheap(signer) for signer in scene.path.signers.signers])
    asked = [(scene.sign.request(1_000_000 + n), b"message %d" % n) for n in range(500)]
    for der, message in asked:
        scene.keep(der, How(True, message=message))
    begun = scene.desk.signatures
    assert begun == len(asked)
    signed: list[int] = []
    scene.clock.pass_s(449)
    for _ in range(92):
        scene.ground.beat()
        before = scene.desk.signatures
        for der, message in asked:
            if scene.again(message) is None:
                scene.keep(der, How(True, message=message))
        signed.append(scene.desk.signatures - before)
        scene.clock.pass_s(1)
    assert signed[0] == 0
    assert sum(signed) == len(asked)
    assert max(signed) < len(asked) * 0.05

"""CRLReason numbers and names, beside what `cryptography` calls them."""

from __future__ import annotations

import pytest
from cryptography import x509

from certstatus.crl_reason import CRLReason, reason_text


@pytest.mark.parametrize("flag", list(x509.ReasonFlags))
def test_every_reason_is_named_as_the_standard_spells_it(flag: x509.ReasonFlags) -> None:
    """`cryptography` knows the same reasons, and the same spellings."""
    assert CRLReason[flag.name.upper()].label == flag.value


def test_a_number_without_a_name_is_shown_as_a_number() -> None:
    """7 is not used by the standard; None is an absent reason, not "unspecified"."""
    assert [reason_text(number) for number in (1, 7, 0, None)] == [
        "keyCompromise",
        "reason 7",
        "unspecified",
        "no reason given",
    ]

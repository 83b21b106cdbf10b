"""One entry looked for among many, without reading the others.

What has the octets of its serial number is looked for, and is the entry's if it stands where an entry's
serial number does.  So another entry that cannot be read, or has no room in a row, keeps none from being
found.
Knows: where entries begin.  Does not know: what they say (``crl_entry``).
Source: RFC 5280 §5.1.2.6.
"""

from __future__ import annotations

import numpy as np

from certstatus.crl_row_decode import entry_starts
from certstatus.crl_row_encode import Octets
from certstatus.der import INTEGER, SEQUENCE, expect, tlv


def find_entry(octets: Octets, serial: bytes) -> tuple[bytes | None, int]:
    """Return the first entry of *serial* among those that are whole in *octets*, and the end of the last one.

    Takes:  *serial*: INTEGER content octets, minimal.
    Gives:  the entry's DER or None; 0 if not even the first entry is there as a whole, or it is none.
    Cost:   less than 1 ns an octet.
    """
    begins, end = entry_starts(octets)
    found = octets[:end].tobytes()
    wanted = tlv(INTEGER, serial)
    at = found.find(wanted)
    while at >= 0:
        begin = int(begins[np.searchsorted(begins, at, side="right") - 1])
        start, stop = expect(found, begin, end, SEQUENCE)
        if start == at:
            return found[begin:stop], end
        at = found.find(wanted, at + 1)
    return None, end

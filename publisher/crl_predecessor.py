"""A complete CRL against the one before it: its published bytes and the changes since give the new list.

Knows: which published complete CRL is the predecessor, and that comparison.  The new list comes from the
list kept in a file, or from the register's whole past where none is kept; the old one's bytes were checked,
signed and out.  So a file that went wrong shows here, and where the list was built anew, a change that
was lost from the register or altered in it, or was read otherwise now than then.
Does not know: files, numbers, signatures.
Source: RFC 5280 §5.2.4 (what a list at a later time must be); Act arts. 16, 35 (the files are kept).

A last CRL, cut at one time and published at another, is compared with the newest that is out, whichever of
the two is the later one.

Where they differ, one of the two is wrong, and no program can say which: the new list stays
unpublished, the old one stays up, and operators are told (``crl_compare`` says in what they differ).  Once
the old file is known to be the wrong one, it is moved away; a list without predecessor is then made, over
which deltas begin anew.
"""

from __future__ import annotations

from collections.abc import Iterable

from certstatus.crl_rows import Rows
from certstatus.crl_rows_merge import same_rows
from certstatus.errors import CRLCheckFailed
from issuance.crl_register import CRLRecord
from publisher.crl_change_rows import Changes
from publisher.crl_list_changes import brought_forward

FINDING = "certstatus.crl_predecessor_differs"


def predecessor(completes: Iterable[CRLRecord], epoch_base_seq: int) -> CRLRecord | None:
    """Return the newest of the published *completes*, or None if there is none to compare with.

    What was made before the epoch began may list what the register never knew (a restore), or lack
    what it has recorded again under later numbers.
    """
    known = [record for record in completes if record.seq >= epoch_base_seq]
    return max(known, key=lambda record: record.number, default=None)


def check_against(before: Iterable[Rows], changes: Changes, listed: Iterable[Rows]) -> None:
    """Check that *before* and the *changes* between the two cuts give exactly the rows *listed*.

    Takes:  the rows of the old file, block by block; the changes in order; those of the new one.
    Raises: CRLCheckFailed.
    """
    if not same_rows(brought_forward(before, changes), listed):
        raise CRLCheckFailed([FINDING])

"""CRLs of a million entries, and what it costs in memory to deal with one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from mirror_cases import DAY_S, NOW_S, MirrorCA, directory_name

from certstatus import oid
from certstatus.crl import CRLFields
from certstatus.crl_reason import CRLReason
from certstatus.crl_rows import Rows, der_lengths, empty_rows, serial_of
from certstatus.crl_rows_file import RowsFile, RowsHead, write_rows
from certstatus.crl_stream_encode import write_crl
from certstatus.distribution_point import encode_issuing_distribution_point

# Beyond what the same takes with a CRL of one entry; the large one has 38 MB.
MORE_MB_MAX = 12.0


def _million(count: int) -> Rows:
    """Ascending serial numbers of 8 octets, each three apart."""
    rows = empty_rows(count)
    octets = rows.view(np.uint8).reshape(count, 32)
    octets[:, 0] = 0x80
    serials = np.arange(count, dtype=np.uint64) * np.uint64(3) + np.uint64(0x4000_0000_0000_0000)
    octets[:, 12:20] = serials.astype(">u8").view(np.uint8).reshape(count, 8)
    rows["revoked_at"], rows["reason"] = NOW_S - 500, CRLReason.SUPERSEDED
    rows["serial_octets"] = 8
    rows["der_len"] = der_lengths(rows)
    return rows


def write_big(path: Path, ca: MirrorCA, count: int) -> int:
    """Write a CRL of so many entries; return the last one's serial number."""
    rows = _million(count)
    write_rows(path.with_suffix(".cse"), RowsHead(bytes(16), 1, 1, 1), [rows])
    point = encode_issuing_distribution_point((directory_name(1, "all"), ()), only_user_certs=True)
    fields = CRLFields(
        ca.name.public_bytes(),
        oid.ECDSA_WITH_SHA256_DER,
        NOW_S - 100,
        NOW_S + 4000 * DAY_S,
        1,
        ca.key_id,
        issuing_distribution_point_der=point,
    )
    with RowsFile(path.with_suffix(".cse")) as listed:
        write_crl(
            path,
            fields,
            listed,
            sign=lambda digest: ca.key.sign(digest, ec.ECDSA(Prehashed(hashes.SHA256()))),
            hash_name="sha256",
            lint=lambda _facts: [],
        )
    return int.from_bytes(serial_of(rows["key"][-1].tobytes(), 8), "big")


# At its end, so that nothing of the process which began it counts, as it would in ru_maxrss.
_PEAK = """
with open("/proc/self/status") as status:
    print(next(line for line in status if line.startswith("VmHWM:")).split()[1])
"""


def peak_mb(program: str, *words: str) -> tuple[str, float]:
    """Run a program; return what it printed, and the most memory it had (MB)."""
    done = subprocess.run(
        [sys.executable, "-c", program + _PEAK, *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    *said, peak_kb = done.stdout.splitlines()
    return "\n".join(said), int(peak_kb) * 1024 / 1e6

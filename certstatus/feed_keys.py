"""Where things are in Valkey, and the scripts that may change the feed.

Knows: every key name (all of one installation share a hash tag, so that a cluster keeps
them on one node and scripts may touch them together) and the two scripts.
Does not know: how to connect.

Ownership: the publisher writes everything but ``ack``, ``acks``, ``provisions`` and ``request``
keys, which belong to the responder hosts; an ACL can hold them apart by key pattern.
"""

from __future__ import annotations

CHANGE_FIELD = b"c"
BEAT_FIELD = b"b"

# Appends k changes and then, unless its id is empty, one beat; all or nothing.
# KEYS stream; ARGV mode, expected id, change count, (id, packed) * count, beat id, beat.
#   mode "append": only if the stream's last id is the expected one.
#   mode "restart": starts the stream anew, unless what is there has reached the expected id
#   already; so a publisher that was paused cannot take the feed back.
# Returns the stream's last id afterwards: the caller compares it with what it meant to add.
APPEND = """
local function parts(id)
  local seq, ms = string.match(id, '^(%d+)-(%d+)$')
  return tonumber(seq), tonumber(ms)
end
local last = ''
if redis.call('EXISTS', KEYS[1]) == 1 then
  local info = redis.call('XINFO', 'STREAM', KEYS[1])
  for at = 1, #info, 2 do
    if info[at] == 'last-generated-id' then last = info[at + 1] end
  end
end
if ARGV[1] == 'append' then
  if last ~= ARGV[2] then return last end
elseif last ~= '' then
  local seq, ms = parts(last)
  local new_seq, new_ms = parts(ARGV[2])
  if seq > new_seq or (seq == new_seq and ms >= new_ms) then return last end
  redis.call('DEL', KEYS[1])
end
local count = tonumber(ARGV[3])
for at = 1, count do
  last = redis.call('XADD', KEYS[1], ARGV[2 + at * 2], 'c', ARGV[3 + at * 2])
end
if ARGV[4 + count * 2] ~= '' then
  last = redis.call('XADD', KEYS[1], ARGV[4 + count * 2], 'b', ARGV[5 + count * 2])
end
return last
"""

# Raises a hexadecimal value of fixed width (the epoch), never lowers it.  Returns the value kept.
RAISE = """
local now = redis.call('GET', KEYS[1])
if now and now >= ARGV[1] then return now end
redis.call('SET', KEYS[1], ARGV[1])
return ARGV[1]
"""


class FeedKeys:
    """Key names of one installation and epoch."""

    __slots__ = ("_prefix", "epoch_key", "stream")

    def __init__(self, namespace: str, epoch: bytes) -> None:
        self.epoch_key = epoch_key(namespace)
        self._prefix = f"{{{namespace}}}:{epoch.hex()}"
        self.stream = f"{self._prefix}:stream"

    def document(self, kind: str, generation: int) -> str:
        """A document of ``documents.KINDS``."""
        return f"{self._prefix}:doc:{kind}:{generation}"

    def manifest(self, seq: int) -> str:
        """The manifest of the snapshot at *seq*."""
        return f"{self._prefix}:snap:{seq}:manifest"

    def chunk(self, seq: int, number: int) -> str:
        """Chunk *number* (from 0) of the snapshot at *seq*."""
        return f"{self._prefix}:snap:{seq}:{number}"

    def ack(self, host: str, slot: int) -> str:
        """What the worker in *slot* of *host* has applied: see ``leases``."""
        return f"{self._prefix}:ack:{host}:{slot}"

    def acks(self) -> str:
        """The set of all ack keys ever written in this epoch (members are key names)."""
        return f"{self._prefix}:acks"

    def seen(self, host: str, slot: int) -> str:
        """The incarnation of that worker which the store of record knows."""
        return f"{self._prefix}:seen:{host}:{slot}"

    def provisions(self) -> str:
        """The stream of counter cells on their way to the store of record."""
        return f"{self._prefix}:provisions"

    def provisions_done(self, host: str) -> str:
        """Hash: counter file UUID -> digest of the cells that the store has acknowledged."""
        return f"{self._prefix}:provisions-done:{host}"

    def certificate_requests(self) -> str:
        """Hash: ``<host>:<issuer_id>`` -> signed request for a responder certificate."""
        return f"{self._prefix}:request:certificates"

    def responder_certificates(self, host: str) -> str:
        """Hash: SHA-256 of a request -> the responder certificate issued for it (DER), or an error."""
        return f"{self._prefix}:certificates:{host}"


def epoch_key(namespace: str) -> str:
    """The key that holds the current epoch, hexadecimal."""
    return f"{{{namespace}}}:epoch"

"""Where things are in Valkey, and the scripts that may change the feed.

Knows: every key name (all of one installation share a hash tag, so that a cluster keeps
them on one node and scripts may touch them together) and the scripts.
Does not know: how to connect.

Ownership: the publisher writes everything but ``ack``, ``acks``, ``arrivals``, ``provisions`` and
``request`` keys, which the responder hosts write; an ACL can hold them apart by key pattern.
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

# Of keys that others write too, no more is read than can be right: names of wrong form are taken away, and of
# more than ARGV[1] names the whole key is.  Both return (how many went, what is left).

# The set of ack keys; ARGV[2]: how many octets a member has at most.  Who lives enters itself again.
MEMBERS = """
local count = redis.call('SCARD', KEYS[1])
if count > tonumber(ARGV[1]) then
  redis.call('UNLINK', KEYS[1])
  return {count, {}}
end
local found, gone = {}, 0
for _, member in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  if #member <= tonumber(ARGV[2]) then
    found[#found + 1] = member
  else
    gone = gone + redis.call('SREM', KEYS[1], member)
  end
end
return {gone, found}
"""

# The pages of the CRL catalogue by name, 64 hexadecimal digits.
PAGES = """
local count = redis.call('HLEN', KEYS[1])
if count > tonumber(ARGV[1]) then
  redis.call('UNLINK', KEYS[1])
  return {count, {}}
end
local found, gone = {}, 0
for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
  if #field == 64 and not string.find(field, '[^0-9a-f]') then
    found[#found + 1] = field
  else
    gone = gone + redis.call('HDEL', KEYS[1], field)
  end
end
return {gone, found}
"""

# Takes at most ARGV[1] items from the front of a list, and gives those of at most ARGV[2] octets.
# Returns (how many were longer, the others).
TAKE = """
local found, gone = {}, 0
for _ = 1, tonumber(ARGV[1]) do
  local item = redis.call('LPOP', KEYS[1])
  if not item then
    break
  end
  if #item <= tonumber(ARGV[2]) then
    found[#found + 1] = item
  else
    gone = gone + 1
  end
end
return {gone, found}
"""

# The values of KEYS, of each at most ARGV[1] octets and one; none of a key that is empty, of another type or
# not there.
VALUES = """
local found = {}
for at, key in ipairs(KEYS) do
  local value = redis.pcall('GETRANGE', key, 0, ARGV[1])
  found[at] = type(value) == 'string' and value ~= '' and value
end
return found
"""

# What Valkey's answer begins with where a key holds a value of another type than a command is for.
WRONG_TYPE = "WRONGTYPE"

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

    def catalogue_pages(self) -> str:
        """Hash: SHA-256 (hex) of a page of the CRL catalogue -> the page."""
        return f"{self._prefix}:crls:pages"

    def crl_chunk(self, sha256: str, number: int) -> str:
        """Chunk *number* (from 0) of the CRL file with that SHA-256 (hex); there on request, for a while."""
        return f"{self._prefix}:crls:file:{sha256}:{number}"

    def crl_requests(self) -> str:
        """List: what hosts ask for of CRL files, the newest last: see ``crl_chunks``."""
        return f"{self._prefix}:request:crls"

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
        """The set of the ack keys written in this epoch, as far as nobody has begun it anew (members are key
        names)."""
        return f"{self._prefix}:acks"

    def seen(self, host: str, slot: int) -> str:
        """The incarnation of that worker which the store of record knows."""
        return f"{self._prefix}:seen:{host}:{slot}"

    def arrivals(self) -> str:
        """Set while a worker waits to be seen, so that it need not wait for the next beat that is due."""
        return f"{self._prefix}:arrivals"

    def provisions(self) -> str:
        """The stream of counter cells on their way to the store of record."""
        return f"{self._prefix}:provisions"

    def provisions_done(self, host: str) -> str:
        """Hash: counter file UUID -> digest of the cells that the store has acknowledged."""
        return f"{self._prefix}:provisions-done:{host}"

    def certificate_requests(self) -> str:
        """Hash: ``<host>:<issuer_id>:<algorithm>`` -> signed request for a responder certificate."""
        return f"{self._prefix}:request:certificates"

    def responder_certificates(self, host: str) -> str:
        """Hash: SHA-256 of a request -> the responder certificate issued for it (DER), or an error."""
        return f"{self._prefix}:certificates:{host}"


def epoch_key(namespace: str) -> str:
    """The key that holds the current epoch, hexadecimal."""
    return f"{{{namespace}}}:epoch"

-- Gives wrk one prepared request after the other, and counts them where others can see it.
--
--   wrk -s generator.lua URL -- COUNTER REQUESTS BYTES
--
-- COUNTER: a file whose first 8 bytes are the count.  REQUESTS: BYTES long, each request behind its
-- 32-bit length (little-endian); after the last comes the first again.
local ffi = require("ffi")
ffi.cdef[[
int open(const char *path, int flags);
void *mmap(void *address, size_t length, int protection, int flags, int fd, int64_t offset);
]]
local READ, WRITE, SHARED, READ_WRITE = 1, 2, 1, 2

local cell, octets, size, only
local at = 0

local function map(path, length, protection)
   local fd = ffi.C.open(path, protection == READ and 0 or READ_WRITE)
   assert(fd >= 0, path)
   return ffi.C.mmap(nil, length, protection, SHARED, fd, 0)
end

local function take()
   local length = ffi.cast("uint32_t *", octets + at)[0]
   local found = ffi.string(octets + at + 4, length)
   at = at + 4 + length
   if at >= size then at = 0 end
   return found
end

-- Unless told otherwise wrk first makes a connection to see whether it can, and asks nothing on it.
function wrk.connect()
   return true
end

function init(args)
   cell = ffi.cast("uint64_t *", map(args[1], 4096, READ + WRITE))
   size = tonumber(args[3])
   octets = ffi.cast("uint8_t *", map(args[2], size, READ))
   local first = take()
   if at == 0 then only = first end
   at = 0
end

function request()
   cell[0] = cell[0] + 1
   return only or take()
end

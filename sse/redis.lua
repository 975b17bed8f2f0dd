-- The scripts of redis.py. Each is atomic, and touches the keys of one slot.
-- KEYS and ARGV in order -> what it returns. They are cut apart at the lines of dashes.

-- stream; number of the first event, of the oldest one held, events -> how many were written; -1: there is no such stream
local number = tonumber(ARGV[1])
for i = 3, #ARGV do
    local id = redis.pcall('XADD', KEYS[1], 'NOMKSTREAM', string.format('%.0f-0', number), '', ARGV[i])
    if not id then return -1 end
    if type(id) == 'table' and id.err then return id end
    number = number + 1
end
redis.call('XTRIM', KEYS[1], 'MINID', ARGV[2])
redis.call('PUBLISH', KEYS[1], '')
return #ARGV - 2

------

-- stream, opening; terminal event, how it ended, ms to keep it, ms if it was deleted
-- -> 1: it has ended, now or before; -1: there is no such stream
local id = redis.pcall('XADD', KEYS[1], 'NOMKSTREAM', '18446744073709551615-0', '', ARGV[1], 'end', ARGV[2])
if not id then return -1 end
if type(id) == 'table' and not string.find(id.err, 'equal or smaller', 1, true) then return id end
local kept = redis.call('PEXPIRE', KEYS[2], ARGV[3]) == 1
redis.call('PEXPIRE', KEYS[1], kept and ARGV[3] or ARGV[4])
redis.call('PUBLISH', KEYS[1], '')
return 1

------

-- stream -> the id of its newest entry, nil without any
local newest = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1) return newest[1] and newest[1][1]

------

-- claim; new value (empty: none), how the value begins that it may replace, options of SET -> nil: done; else who holds the key
local held = redis.call('GET', KEYS[1])
if held and string.sub(held, 1, #ARGV[2]) ~= ARGV[2] then return held end
if ARGV[1] == '' then redis.call('DEL', KEYS[1]) else redis.call('SET', KEYS[1], ARGV[1], unpack(ARGV, 3)) end

------

-- processes, streams, ended, epoch; process, a new epoch, its channel, ms of a lease
-- -> ms since it renewed before or -1, the epoch, the processes whose lease has lapsed
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local before = redis.call('ZSCORE', KEYS[1], ARGV[1])
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('SET', KEYS[4], ARGV[2], 'NX')
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now, 'LIMIT', 0, 1000)) do
    redis.call('ZREM', KEYS[3], id)
    redis.call('ZREM', KEYS[2], id)
end
redis.call('PUBLISH', ARGV[3], '')
local lapsed = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[4])
return {before and now - before or -1, redis.call('GET', KEYS[4]), lapsed}

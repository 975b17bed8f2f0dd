-- The scripts of sse/entries.py. Each is atomic, and touches the keys of one slot.
-- KEYS and ARGV in order -> what it returns. They are cut apart at the lines of dashes.

-- stream, opening; numbers of the first event and of the oldest one to keep, how it ended (empty: it runs), ms to keep it, ms if it
-- was deleted; events, at the end the terminal one. Those that are there already are left out.
-- -> the id of the newest entry; nil: there is no such stream
local ended, id = ARGV[3] ~= '', nil
for i = 6, #ARGV do
    if ended and i == #ARGV then
        id = redis.pcall('XADD', KEYS[1], 'NOMKSTREAM', '18446744073709551615-0', '', ARGV[i], 'end', ARGV[3])
    else
        id = redis.pcall('XADD', KEYS[1], 'NOMKSTREAM', string.format('%.0f-0', ARGV[1] + i - 6), '', ARGV[i])
    end
    if type(id) == 'table' and not string.find(id.err, 'equal or smaller', 1, true) then return id end
end
if type(id) ~= 'string' then -- nothing was added
    local entries = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
    return entries[1] and entries[1][1]
end
if ended then
    local kept = redis.call('PEXPIRE', KEYS[2], ARGV[4]) == 1
    redis.call('PEXPIRE', KEYS[1], kept and ARGV[4] or ARGV[5])
end
redis.call('XTRIM', KEYS[1], 'MINID', ARGV[2])
redis.call('PUBLISH', KEYS[1], '')
return id

------

-- claim; new value (empty: none), how the value begins that it may replace, options of SET -> nil: done; else who holds the key
local held = redis.call('GET', KEYS[1])
if held and string.sub(held, 1, #ARGV[2]) ~= ARGV[2] then return held end
if ARGV[1] == '' then redis.call('DEL', KEYS[1]) else redis.call('SET', KEYS[1], ARGV[1], unpack(ARGV, 3)) end

------

-- processes, streams, ended; process, its channel, ms of a lease
-- -> ms since it renewed before, -1: never, -2: its streams were ended since then; the processes whose lease has lapsed
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local before = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or now + 1)
redis.call('ZADD', KEYS[1], now, ARGV[1])
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now, 'LIMIT', 0, 1000)) do
    redis.call('ZREM', KEYS[3], id)
    redis.call('ZREM', KEYS[2], id)
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], 24 * 3600 * 1000 - now, 0)
redis.call('PUBLISH', ARGV[2], '')
return {before < 0 and -2 or now - before, redis.call('ZRANGEBYSCORE', KEYS[1], 0, now - ARGV[3])}

------

-- stream -> its oldest event, and its two newest ones, newest first, as XRANGE has them, but for the events themselves
local function without(entries)
    for _, entry in ipairs(entries) do entry[2][2] = '' end
    return entries
end
return {
    without(redis.call('XRANGE', KEYS[1], '1-0', '+', 'COUNT', 1)),
    without(redis.call('XREVRANGE', KEYS[1], '+', '1-0', 'COUNT', 2)),
}

/**
 * What Redis does in one step, as Lua.
 *
 * Keys: `meta`, a hash with the life of the log (`epoch`, `base`: the number of its mark, and its time) and the last number
 * (`n`, `ms`); `stream`; `writer`, what one node appended last; `ids`, numbers by the ids that publishers gave; `values` and
 * `order`, the latest value of each namespace that keeps it, and the number of each.
 *
 * @internal
 */
import type { Redis } from "ioredis"
import { createHash } from "node:crypto"

/** How many shards the log has: the same on all nodes. */
export const shardsKey = (prefix: string): string => `{${prefix}}:shards`

export interface Keys {
  readonly meta: string
  readonly stream: string
  readonly writer: string
  readonly ids: string
  readonly values: string
  readonly order: string
}

// The braces make all keys of one log, or of one shard, live on one node of a cluster.
export const keysOf = (prefix: string, writer: string): Keys => ({
  meta: `{${prefix}}:meta`,
  stream: `{${prefix}}:events`,
  writer: `{${prefix}}:writer:${writer}`,
  ids: `{${prefix}}:ids`,
  values: `{${prefix}}:values`,
  order: `{${prefix}}:values:order`
})

type Argument = string | number

export const script = (lua: string) => {
  const sha = createHash("sha1").update(lua).digest("hex")
  return (redis: Redis, keys: ReadonlyArray<string>, args: ReadonlyArray<Argument>): Promise<unknown> => {
    const rest = [keys.length, ...keys, ...args]
    return redis
      .call("evalsha", [sha, ...rest])
      .catch((error: unknown) =>
        error instanceof Error && error.message.startsWith("NOSCRIPT")
          ? redis.call("eval", [lua, ...rest])
          : Promise.reject(error)
      )
  }
}

export const common = `
local function text(number) return string.format('%.0f', number) end
local function split(id) local n, ms = string.match(id, '^(%d+)-(%d+)$') return tonumber(n), tonumber(ms) end
local function now() local t = redis.call('TIME') return tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000) end
local function at(stream, from)
  local found = redis.call('XRANGE', stream, from, '+', 'COUNT', 1)[1]
  if found then return split(found[1]) end
end
-- The number of the first entry that is not older, if any is.
local function since(stream, ms, last)
  local low = at(stream, '-')
  if not low then return end
  local high = last + 1
  while low < high do
    local middle = math.floor((low + high) / 2)
    local n, when = at(stream, text(middle))
    if not n or when >= ms then high = middle else low = n + 1 end
  end
  return low
end
local function trim(stream, maxLength, maxAge, last)
  if maxLength > 0 then redis.call('XTRIM', stream, 'MAXLEN', '~', text(maxLength)) end
  if maxAge == 0 then return end
  local n, ms = at(stream, '-')
  local oldest = now() - maxAge
  if not n or ms >= oldest then return end
  redis.call('XTRIM', stream, 'MINID', text(since(stream, oldest, last)))
end
`

/**
 * Tells where the log is. Begins a new life of it if there is none, or if it has lost what the caller knows to have been in
 * it. Arguments: an epoch for a new life; the epoch, number and time the caller knows last.
 *
 * @returns epoch, base, its time, last number, its time, number of the first entry that is kept
 */
export const open = script(
  common +
    `
local meta, stream, ids, values, order = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local life = redis.call('HMGET', meta, 'epoch', 'base', 'basems', 'n', 'ms')
local known = tonumber(ARGV[3])
local last, lastms = 0, 0
local whole = life[1] and life[4] and redis.call('EXISTS', stream) == 1
if redis.call('EXISTS', stream) == 1 then
  local info = redis.call('XINFO', 'STREAM', stream)
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then last, lastms = split(info[i + 1]) end
  end
  if whole and life[4] ~= text(last) then whole = false end
end
if whole and ARGV[2] == life[1] and known > 0 then
  if known > last then
    whole = false
  else
    local found = redis.call('XRANGE', stream, ARGV[3], ARGV[3], 'COUNT', 1)[1]
    if found then
      local _, ms = split(found[1])
      if ARGV[4] ~= '0' and text(ms) ~= ARGV[4] then whole = false end
    end
  end
end
if whole then
  return { life[1], life[2], life[3], text(last), text(lastms), text(at(stream, '-') or (last + 1)) }
end
local n = text(math.max(last, known, tonumber(life[4] or 0)) + 1)
local ms = text(now())
redis.call('XADD', stream, n .. '-' .. ms, 'm', ARGV[1])
redis.call('XTRIM', stream, 'MINID', n)
redis.call('DEL', ids, values, order)
redis.call('HSET', meta, 'epoch', ARGV[1], 'base', n, 'basems', ms, 'n', n, 'ms', ms)
return { ARGV[1], n, ms, n, ms, n }
`
)

/**
 * Appends once, however often it is sent. Arguments: epoch, number of this append of the writer, longest stream, greatest age
 * in ms or 0, most values, and for each entry its kind, namespace, text and own id or nothing.
 *
 * @returns `ok` with the number of the first entry and the time of all; `epoch` if the log is in another life; `stale` if a
 *   later append of the writer is there already
 */
export const append = script(
  common +
    `
local meta, stream, writer, ids, values, order = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local life = redis.call('HMGET', meta, 'epoch', 'n')
if life[1] ~= ARGV[1] then return { 'epoch' } end
local done = redis.call('GET', writer)
if done then
  local number, first, ms = string.match(done, '^(%d+) (%d+) (%d+)$')
  if number == ARGV[2] then return { 'ok', first, ms } end
  if tonumber(number) > tonumber(ARGV[2]) then return { 'stale' } end
end
if redis.call('EXISTS', stream) == 0 then return { 'epoch' } end
local n = tonumber(life[2])
local first = text(n + 1)
local ms = text(now())
local own = false
for i = 6, #ARGV, 4 do
  n = n + 1
  local id = text(n) .. '-' .. ms
  redis.call('XADD', stream, id, 'n', ARGV[i + 1], ARGV[i], ARGV[i + 2])
  if ARGV[i + 3] ~= '' then
    own = true
    -- Of an id that was published twice nobody knows which one is meant. No id has a space.
    if redis.call('ZSCORE', ids, ARGV[i + 3]) then redis.call('ZADD', ids, text(n), ARGV[i + 3] .. ' ') end
    redis.call('ZADD', ids, text(n), ARGV[i + 3])
  end
  if ARGV[i] == 'v' then
    redis.call('HSET', values, ARGV[i + 1], id .. ' ' .. ARGV[i + 2])
    redis.call('ZADD', order, text(n), ARGV[i + 1])
    if redis.call('ZCARD', order) > tonumber(ARGV[5]) then
      redis.call('HDEL', values, redis.call('ZPOPMIN', order)[1])
    end
  end
end
redis.call('HSET', meta, 'n', text(n), 'ms', ms)
redis.call('SET', writer, ARGV[2] .. ' ' .. first .. ' ' .. ms, 'PX', 86400000)
trim(stream, tonumber(ARGV[3]), tonumber(ARGV[4]), n)
if own then redis.call('ZREMRANGEBYSCORE', ids, '-inf', '(' .. text(at(stream, '-') or (n + 1))) end
return { 'ok', first, ms }
`
)

/**
 * Looks a start up. Arguments: a number or nothing; an own id or nothing; a time back in ms or nothing.
 *
 * @returns epoch, base, its time, last number, its time, number of the first event that is kept, its time, then the time of
 *   the entry with the number, the number of the own id, and of the first entry since the time; `0` for what is not there
 */
export const locate = script(
  common +
    `
local meta, stream, ids = KEYS[1], KEYS[2], KEYS[3]
local life = redis.call('HMGET', meta, 'epoch', 'base', 'basems', 'n', 'ms')
if not life[1] or not life[4] then return {} end
local last = tonumber(life[4])
local first, firstms = at(stream, text(tonumber(life[2]) + 1))
local entry, own, from = 0, 0, 0
if ARGV[1] ~= '' then
  local found = redis.call('XRANGE', stream, ARGV[1], ARGV[1], 'COUNT', 1)[1]
  if found then local _, ms = split(found[1]) entry = ms end
end
if ARGV[2] ~= '' then
  own = tonumber(redis.call('ZSCORE', ids, ARGV[2]) or 0)
  if redis.call('ZSCORE', ids, ARGV[2] .. ' ') then own = 0 end
  if own > 0 then
    local n, ms = at(stream, text(own))
    if n == own then entry = ms else own = 0 end
  end
end
if ARGV[3] ~= '' then from = since(stream, now() - tonumber(ARGV[3]), last) or (last + 1) end
return { life[1], life[2], life[3], life[4], life[5], text(first or (last + 1)), text(firstms or 0), text(entry), text(own), text(from) }
`
)

/** Drops what is too old, and tells how many entries are kept. Arguments: greatest age in ms or 0. */
export const size = script(
  common +
    `
local life = redis.call('HMGET', KEYS[1], 'n', 'base')
if not life[1] then return 0 end
trim(KEYS[2], 0, tonumber(ARGV[1]), tonumber(life[1]))
-- The mark is no event. It is the first to go.
local mark = at(KEYS[2], '-') == tonumber(life[2]) and 1 or 0
return redis.call('XLEN', KEYS[2]) - mark
`
)

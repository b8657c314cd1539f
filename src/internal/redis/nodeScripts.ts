/**
 * What Redis does in one step for nodes that know each other, as Lua.
 *
 * Keys: `nodes`, a hash of what nodes reported last, each behind the time until which it holds; `revoked`, a stream of what
 * was revoked. All times are those of Redis, so that the nodes' clocks may differ.
 *
 * @internal
 */
import type { Revocation } from "../../NodeBus.js"
import { common, script } from "./scripts.js"

export const keysOf = (prefix: string) => ({
  nodes: `{${prefix}}:nodes`,
  revoked: `{${prefix}}:revoked`,
  channel: `{${prefix}}:nodes`,
  channelOf: (id: string) => `{${prefix}}:node:${id}`
})

/** Revocations that are read in one go. */
const page = 1000

/** Revocations that are kept; Redis keeps up to some hundred more. */
const maxRevoked = 100_000

// A key is gone when nothing in it holds any more.
const outlive = `
local function outlive(key, ms)
  if redis.call('PTTL', key) < ms then redis.call('PEXPIRE', key, text(ms)) end
end
`

/** Arguments: id, status, for how long it holds in ms, id of the last revocation that was read or nothing. */
export const report = script(
  common +
    outlive +
    `
local hold = tonumber(ARGV[3])
redis.call('HSET', KEYS[1], ARGV[1], text(now() + hold) .. ' ' .. ARGV[2])
outlive(KEYS[1], hold)
local from = ARGV[4] == '' and '-' or '(' .. ARGV[4]
return { text(now()), redis.call('XRANGE', KEYS[2], from, '+', 'COUNT', ${page}) }
`
)

type Reply = readonly [now: string, entries: ReadonlyArray<readonly [id: string, fields: ReadonlyArray<string>]>]

export const readReport =
  (after: string) =>
  (reply: unknown): { readonly revocations: ReadonlyArray<Revocation>; readonly after: string } => {
    const [now, entries] = reply as Reply
    const revocations = entries.map(([id, [, principal, , at, , age, , remember]]): Revocation => {
      const kept = Number(id.slice(0, id.indexOf("-")))
      return {
        principal: principal!,
        at: Number(at),
        ageMillis: Number(age) + Math.max(0, Number(now) - kept),
        rememberMillis: Number(remember)
      }
    })
    return { revocations, after: entries.at(-1)?.[0] ?? after }
  }

/** The reports that hold. */
export const reports = script(
  common +
    `
local all = redis.call('HGETALL', KEYS[1])
local found, gone = {}, {}
local time = now()
for i = 1, #all, 2 do
  local untill, status = string.match(all[i + 1], '^(%d+) (.*)$')
  if untill and tonumber(untill) > time then found[#found + 1] = status else gone[#gone + 1] = all[i] end
end
if #gone > 0 then redis.call('HDEL', KEYS[1], unpack(gone)) end
return found
`
)

/** Arguments: principal, when by the clock of its node, how long ago in ms, for how long from then on in ms. */
export const remember = script(
  common +
    outlive +
    `
local function over(entry)
  local fields = entry[2]
  return tonumber(string.match(entry[1], '^(%d+)')) - tonumber(fields[6]) + tonumber(fields[8]) <= now()
end
redis.call('XADD', KEYS[1], 'MAXLEN', '~', '${maxRevoked}', '*', 'p', ARGV[1], 'at', ARGV[2], 'age', ARGV[3], 'keep', ARGV[4])
outlive(KEYS[1], tonumber(ARGV[4]))
-- The oldest that are over. Others behind them go when they are the oldest.
for _, entry in ipairs(redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 100)) do
  if not over(entry) then break end
  redis.call('XDEL', KEYS[1], entry[1])
end
`
)

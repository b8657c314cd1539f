/**
 * Connections to Redis as the options say.
 *
 * @internal
 */
import * as Redacted from "effect/Redacted"
import { Redis, type RedisOptions } from "ioredis"
import type { RedisLogOptions } from "../../EventLog/Redis.js"

export type ConnectionOptions = Pick<RedisLogOptions, "redis" | "url">

/** One that is not open yet, and never connects again by itself: that is its user's to do. */
export const connection = ({ redis, url = "redis://127.0.0.1:6379" }: ConnectionOptions, what: string): Redis => {
  const settings: RedisOptions = {
    connectionName: `effect-sse ${what}`.replace(" ", "-"),
    keepAlive: 10_000,
    disconnectTimeout: 500,
    ...redis,
    lazyConnect: true,
    // A lost connection is seen, and another one made, by the one who uses it; nothing is queued or sent again unasked.
    retryStrategy: () => null,
    enableOfflineQueue: false,
    autoResendUnfulfilledCommands: false,
    maxRetriesPerRequest: 0,
    enableAutoPipelining: false
  }
  if (redis?.host !== undefined || redis?.path !== undefined || redis?.sentinels !== undefined)
    return new Redis(settings)
  return new Redis(Redacted.isRedacted(url) ? Redacted.value(url) : url, settings)
}

/**
 * How Redis is reached.
 *
 * @internal
 */
import * as Redacted from "effect/Redacted"
import { Redis, type RedisOptions } from "ioredis"
import type { Address } from "./link.js"

export interface Where {
  readonly url?: string | Redacted.Redacted<string> | undefined
  readonly redis?: RedisOptions | undefined
  readonly cluster?: ReadonlyArray<Address> | undefined
}

/** Makes connections for one purpose; see `Link.make`. */
export type Connect = (what: string) => (at: Address | undefined) => Redis

/** To one server; or to where a cluster says, and first to one of those that are known. */
export const make =
  ({ cluster, redis, url = "redis://127.0.0.1:6379" }: Where): Connect =>
  (what) => {
    const settings: RedisOptions = {
      connectionName: `effect-sse-${what}`,
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
    const text = Redacted.isRedacted(url) ? Redacted.value(url) : url
    let asked = 0
    return (at) => {
      if (cluster !== undefined && cluster.length > 0) {
        const { host, port } = at ?? cluster[asked++ % cluster.length]!
        return new Redis({ ...credentials(text), ...settings, host, port })
      }
      return redis?.host !== undefined || redis?.path !== undefined || redis?.sentinels !== undefined
        ? new Redis(settings)
        : new Redis(text, settings)
    }
  }

/** What a URL says but for where. */
const credentials = (text: string): RedisOptions => {
  const { password, protocol, username } = new URL(text)
  return {
    ...(username === "" ? {} : { username: decodeURIComponent(username) }),
    ...(password === "" ? {} : { password: decodeURIComponent(password) }),
    ...(protocol === "rediss:" ? { tls: {} } : {})
  }
}

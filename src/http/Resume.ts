/**
 * Where a request wants its stream to begin.
 *
 * @internal
 */
import type * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as Duration from "effect/Duration"
import * as Option from "effect/Option"
import type { Start } from "../EventLog.js"
import { splitUrl } from "./url.js"

/** What polyfills and other servers' clients call it, since a page cannot set the header. */
const idNames = ["last_event_id", "lastEventId", "Last-Event-ID", "evs_last_event_id"]

/** No id that was given out is longer, not even one that tells of many shards. */
const maxIdLength = 4096

/**
 * The header of an `EventSource` that reconnects (WHATWG HTML section 9.2.4) comes first: what the query says was true when
 * the page was made.
 *
 * @returns a text says what is wrong with `since`
 */
export const startOf = (
  request: Pick<HttpServerRequest.HttpServerRequest, "headers" | "originalUrl">
): Start | undefined | string => {
  const header = request.headers["last-event-id"]
  if (header !== undefined && header !== "") return after(header)
  const search = splitUrl(request.originalUrl)[1]
  if (search === "") return undefined
  const query = new URLSearchParams(search)
  for (const name of idNames) {
    const id = query.get(name)
    if (id !== null && id !== "") return after(id)
  }
  const since = query.get("since")
  return since === null ? undefined : readSince(since)
}

const after = (id: string): Start => ({ _tag: "After", id: id.slice(0, maxIdLength + 1) })

const units = { ms: "millis", s: "seconds", m: "minutes", h: "hours", d: "days" } as const

const readSince = (since: string): Start | string => {
  if (since === "earliest") return { _tag: "Earliest" }
  if (/^\d{1,9}$/.test(since)) return { _tag: "Last", events: Number(since) }
  const short = /^(\d{1,9}) ?(ms|s|m|h|d)$/.exec(since)
  const time = Duration.decodeUnknown(
    short === null ? since : `${Number(short[1])} ${units[short[2] as keyof typeof units]}`
  )
  return Option.isSome(time) && Duration.isFinite(time.value)
    ? { _tag: "Within", millis: Duration.toMillis(time.value) }
    : 'since takes "earliest", a number of events, or a time such as 30s or 5m'
}

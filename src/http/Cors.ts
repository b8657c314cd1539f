/**
 * Which pages of other origins may read what is answered (WHATWG Fetch, "CORS protocol").
 *
 * @since 0.1.0
 */
import type * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Duration from "effect/Duration"
import * as Access from "./Access.js"

/**
 * Pages of which origins may subscribe, get tickets and publish.
 *
 * @since 0.1.0
 * @category models
 */
export interface CorsOptions {
  /**
   * - `*`: any, without cookies and other credentials of the browser. They may subscribe and get tickets, not publish.
   * - a list of origins, such as `["https://app.example.com"]`, or a rule: these, with credentials. Requests that pages of
   *   other origins send are refused (403). An empty list: only pages of the server's own origin.
   *
   * Default: `*`.
   */
  readonly origins?: "*" | ReadonlyArray<string> | ((origin: string) => boolean) | undefined
  /** Whether browsers may send cookies along. Default: with a list or a rule. It cannot be with `*`. */
  readonly credentials?: boolean | undefined
  /** How long a browser may remember the answer to a preflight. Default: 1 day; browsers cut it, Chromium to 2 hours. */
  readonly maxAge?: Duration.DurationInput | undefined
}

/** @internal */
export interface Cors {
  /** Whether some origins may do what others may not. */
  readonly listed: boolean
  /** The answer to a page whose origin is not listed; `undefined` for all other requests. */
  readonly refusal: (request: Asking) => HttpServerResponse.HttpServerResponse | undefined
  /** The answer to OPTIONS. */
  readonly preflight: (request: Asking, allow: string) => HttpServerResponse.HttpServerResponse
  /** The answer with what the browser wants to see on it. */
  readonly onto: (
    request: Asking,
    response: HttpServerResponse.HttpServerResponse
  ) => HttpServerResponse.HttpServerResponse
}

type Asking = Pick<HttpServerRequest.HttpServerRequest, "headers">

/** What a page may read of an answer's head, besides what it always may. */
const exposed = "idempotency-replayed, retry-after, sse-keepalive, sse-reset"

/** What a page may send: also what Effect's `HttpClient` tells of a trace. */
const accepted =
  "authorization, cache-control, content-type, idempotency-key, last-event-id, b3, traceparent, tracestate"

/**
 * @throws Error if the options make no sense
 * @internal
 */
export const make = (options: CorsOptions = {}): Cors => {
  const { origins = "*" } = options
  const listed = origins !== "*"
  const credentials = options.credentials ?? listed
  if (credentials && !listed) {
    throw new Error('cors: browsers refuse credentials with any origin ("*"); list the origins')
  }
  const maxAge = Duration.toSeconds(options.maxAge ?? "1 day")
  if (!(maxAge >= 0 && Number.isFinite(maxAge))) throw new Error("cors: maxAge must be a time")
  const allows = typeof origins === "function" ? origins : inList(origins)
  const shared = {
    ...(credentials ? { "access-control-allow-credentials": "true" } : {}),
    "access-control-expose-headers": exposed
  }
  const any = { "access-control-allow-origin": "*", ...shared }
  // Also on what is answered to others: a cache must not give it to one of these.
  const none = { vary: "Origin" }
  const isAllowed = (origin: string | undefined): origin is string => origin !== undefined && allows(origin)
  const headers = (request: Asking): Record<string, string> => {
    if (!listed) return any
    const origin = request.headers["origin"]
    return isAllowed(origin) ? { ...none, "access-control-allow-origin": origin, ...shared } : none
  }
  // Streams all have one head, and there may be thousands at once.
  let last: HttpServerResponse.HttpServerResponse | undefined
  let lastWith = HttpServerResponse.empty()
  return {
    listed,
    refusal: (request) =>
      listed && request.headers["origin"] !== undefined && !isAllowed(request.headers["origin"])
        ? Access.crossSite(request)
        : undefined,
    preflight: (request, allow) => {
      const given = headers(request)
      return HttpServerResponse.empty({
        headers: {
          allow,
          ...given,
          ...("access-control-allow-origin" in given
            ? {
                "access-control-allow-methods": allow,
                "access-control-allow-headers": accepted,
                "access-control-max-age": String(Math.floor(maxAge))
              }
            : {})
        }
      })
    },
    onto: (request, response) => {
      if (listed) return HttpServerResponse.setHeaders(response, headers(request))
      if (response !== last) {
        last = response
        lastWith = HttpServerResponse.setHeaders(response, any)
      }
      return lastWith
    }
  }
}

/** @throws Error if one is no origin */
const inList = (origins: "*" | ReadonlyArray<string>): ((origin: string) => boolean) => {
  if (origins === "*") return () => true
  const all = new Set(
    origins.map((text) => {
      // Also those of apps, such as capacitor://localhost. Of these a URL says that the origin is "null".
      if (!/^[a-z][a-z0-9+.-]*:\/\/[^/?#@*\s]+\/?$/i.test(text)) {
        throw new Error(`cors: ${JSON.stringify(text)} is not an origin such as "https://app.example.com"`)
      }
      return /^https?:/i.test(text) ? new URL(text).origin : text.replace(/\/$/, "")
    })
  )
  return (origin) => all.has(origin)
}

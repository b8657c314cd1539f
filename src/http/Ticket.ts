/**
 * `POST /tickets`, and the hook that takes what it gave.
 *
 * @internal
 */
import * as HttpMiddleware from "@effect/platform/HttpMiddleware"
import * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type { Authorize } from "../Authorize.js"
import * as NamespacePattern from "../NamespacePattern.js"
import { Refused } from "../SseError.js"
import { SseHub } from "../SseHub.js"
import type { Tickets } from "../Tickets.js"
import * as Access from "./Access.js"
import { digest } from "./digest.js"
import * as Namespaces from "./Namespaces.js"
import * as Refusal from "./Refusal.js"
import { splitUrl } from "./url.js"

export interface TicketOptions<R> {
  readonly authorize: Authorize<R>
  readonly tickets: Tickets["Type"]
  readonly lifetimeMillis: number
}

/** The ticket of a request. */
const ticketOf = (url: string): string | undefined => {
  const query = splitUrl(url)[1]
  return query === "" ? undefined : (new URLSearchParams(query).get("ticket") ?? undefined)
}

/**
 * Keeps a ticket out of what the platform writes of a request, which has the whole URL: no line of its logger, and no query
 * in its span.
 */
export const conceal = <A, E, R>(url: string, handler: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  ticketOf(url) === undefined ? handler : Effect.zipRight(hideQuery, HttpMiddleware.withLoggerDisabled(handler))

const hideQuery = Effect.map(Effect.option(Effect.currentSpan), (span) => {
  if (Option.isNone(span)) return
  const { attributes } = span.value
  if (attributes.has("url.query")) span.value.attribute("url.query", "REDACTED")
  const full = attributes.get("url.full")
  if (typeof full === "string") span.value.attribute("url.full", full.replace(/\?.*$/, "?REDACTED"))
})

const reason = "this ticket is not valid: each works once, for a short time; ask for another one"

/** A hook that takes tickets, and leaves requests without one to the other hook. */
export const accept = <R>({ authorize, tickets }: TicketOptions<R>): Authorize<R> => {
  return (request, namespaces) => {
    const ticket = ticketOf(request.url)
    if (ticket === undefined) return authorize(request, namespaces)
    return Effect.gen(function* () {
      const grant = yield* tickets.take(yield* digest(ticket))
      if (Option.isNone(grant)) return yield* new Refused({ kind: "unauthenticated", reason })
      const { namespaces: granted, principal } = grant.value
      if (!namespaces.every((wanted) => granted.some((one) => NamespacePattern.covers(one, wanted)))) {
        return yield* new Refused({ kind: "forbidden", reason: "this ticket was for other namespaces" })
      }
      return principal
    })
  }
}

export const handle = <R>(
  options: TicketOptions<R>
): Effect.Effect<HttpServerResponse.HttpServerResponse, never, R | SseHub | HttpServerRequest.HttpServerRequest> =>
  Effect.gen(function* () {
    const request = yield* HttpServerRequest.HttpServerRequest
    if (request.method !== "POST") return Refusal.methodNotAllowed("POST, OPTIONS")
    const hub = yield* SseHub
    const listed = Namespaces.isJson(request) ? yield* Namespaces.inBody(request) : []
    const namespaces = yield* Namespaces.parse([...Namespaces.inQuery(request), ...listed], hub)
    const principal = yield* Access.check(options.authorize, request, namespaces, hub)
    const ticket = base64url(crypto.getRandomValues(new Uint8Array(32)))
    yield* options.tickets.put(yield* digest(ticket), { principal, namespaces }, options.lifetimeMillis)
    return HttpServerResponse.unsafeJson(
      { ticket, expiresIn: options.lifetimeMillis / 1000 },
      { status: 201, headers: { "cache-control": "no-store" } }
    )
  }).pipe(Effect.catchAll((refused) => Effect.succeed(Access.answer(refused))))

const base64url = (bytes: Uint8Array): string =>
  btoa(String.fromCharCode(...bytes))
    .replaceAll("+", "-")
    .replaceAll("/", "_")
    .replace(/=+$/, "")

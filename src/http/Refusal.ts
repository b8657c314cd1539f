/**
 * Answers that refuse a request: a status and a JSON body `{ error, message, ... }` that says what is wrong.
 *
 * @internal
 */
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import type {
  InvalidEvent,
  InvalidNamespace,
  LimitReached,
  NodeUnreachable,
  Refused,
  UnknownNode
} from "../SseError.js"

export const refuse = (
  status: number,
  error: string,
  message: string,
  options?: {
    readonly headers?: Record<string, string>
    readonly details?: Record<string, string | number>
  }
): HttpServerResponse.HttpServerResponse =>
  HttpServerResponse.unsafeJson(
    { error, message, ...options?.details },
    { status, headers: { "cache-control": "no-store", ...options?.headers } }
  )

export const invalidNamespace = (error: InvalidNamespace): HttpServerResponse.HttpServerResponse =>
  refuse(400, error._tag, error.message, { details: { rule: error.rule } })

export const tooManyNamespaces = ({ _tag, limit, message }: LimitReached): HttpServerResponse.HttpServerResponse =>
  refuse(400, _tag, message, { details: { limit } })

export const invalidEvent = (
  error: InvalidEvent,
  details?: Record<string, number>
): HttpServerResponse.HttpServerResponse =>
  refuse(400, error._tag, error.message, { details: { field: error.field, reason: error.reason, ...details } })

export const refused = ({ challenge = "Bearer", kind, reason }: Refused): HttpServerResponse.HttpServerResponse =>
  kind === "unauthenticated"
    ? refuse(401, "Unauthorized", reason, { headers: { "www-authenticate": challenge } })
    : kind === "forbidden"
      ? refuse(403, "Forbidden", reason)
      : unavailable(reason)

export const methodNotAllowed = (allow: string): HttpServerResponse.HttpServerResponse =>
  refuse(405, "MethodNotAllowed", `this address takes ${allow}`, { headers: { allow } })

export const tooManyRequests = (message: string, retryMillis: number): HttpServerResponse.HttpServerResponse =>
  refuse(429, "TooManyRequests", message, { headers: { "retry-after": String(Math.ceil(retryMillis / 1000)) } })

export const unavailable = (message: string): HttpServerResponse.HttpServerResponse =>
  refuse(503, "Unavailable", message, { headers: { "retry-after": "5" } })

/** What was asked of another node in vain. */
export const otherNode = (error: UnknownNode | NodeUnreachable): HttpServerResponse.HttpServerResponse =>
  error._tag === "UnknownNode"
    ? refuse(404, error._tag, error.message)
    : error.kind === "no-connection"
      ? refuse(503, error._tag, error.message, { headers: { "retry-after": "5" } })
      : refuse(error.kind === "no-answer" ? 504 : 502, error._tag, error.message)

/** A defect, as in a hook of the app, ends the one request. It is told to the log, and to the client only that it is. */
export const failed = (defect: unknown): Effect.Effect<HttpServerResponse.HttpServerResponse> =>
  Effect.as(
    Effect.logError("effect-sse: a request failed", Cause.die(defect)),
    refuse(500, "InternalError", "this request failed; the server's log has the reason")
  )

/**
 * `GET /healthz`: whether to send clients here; 200 also while the log is degraded, which the body says.
 *
 * @internal
 */
import * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Effect from "effect/Effect"
import { SseHub } from "../SseHub.js"
import * as Refusal from "./Refusal.js"

const answer = (status: number, text: string) =>
  HttpServerResponse.unsafeJson({ status: text }, { status, headers: { "cache-control": "no-store" } })

export const handle: Effect.Effect<
  HttpServerResponse.HttpServerResponse,
  never,
  SseHub | HttpServerRequest.HttpServerRequest
> = Effect.gen(function* () {
  const { method } = yield* HttpServerRequest.HttpServerRequest
  if (method !== "GET" && method !== "HEAD") return Refusal.methodNotAllowed("GET, HEAD")
  const { log, open } = yield* (yield* SseHub).status
  if (!open) return answer(503, "draining")
  // No reason to send clients elsewhere: they stay connected and can connect, and other nodes share the log.
  return answer(200, log.status)
})

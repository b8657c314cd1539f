/**
 * `GET /healthz`: whether to send clients here.
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
  const { open } = yield* (yield* SseHub).status
  return open ? answer(200, "ok") : answer(503, "draining")
})

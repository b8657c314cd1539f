/**
 * `GET /metrics`: the process's Effect metrics for Prometheus.
 *
 * @internal
 */
import * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import * as Prometheus from "../internal/prometheus.js"
import type { SseHub } from "../SseHub.js"
import * as Access from "./Access.js"
import type { ClientAddressOptions } from "./ClientAddress.js"
import * as Refusal from "./Refusal.js"

export const make = <R>(options: {
  readonly access: Access.Access<R>
  readonly proxies: ClientAddressOptions
}): Effect.Effect<HttpServerResponse.HttpServerResponse, never, R | SseHub | HttpServerRequest.HttpServerRequest> =>
  Access.guard(
    Access.toHook(options.access, "metrics", options.proxies),
    Effect.gen(function* () {
      const { method } = yield* HttpServerRequest.HttpServerRequest
      if (method !== "GET" && method !== "HEAD") return Refusal.methodNotAllowed("GET, HEAD")
      return HttpServerResponse.text(Prometheus.format(yield* Metric.snapshot), {
        contentType: Prometheus.contentType,
        headers: { "cache-control": "no-store" }
      })
    })
  )

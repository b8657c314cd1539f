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
import * as Access from "./Access.js"
import type { ClientAddressOptions } from "./ClientAddress.js"
import * as Refusal from "./Refusal.js"

export const make = (options: {
  readonly access: Access.Access
  readonly proxies: ClientAddressOptions
}): Effect.Effect<HttpServerResponse.HttpServerResponse, never, HttpServerRequest.HttpServerRequest> => {
  const refusal = Access.make(options.access, "metrics", options.proxies)
  return Effect.gen(function* () {
    const refused = yield* refusal
    if (refused !== undefined) return refused
    const { method } = yield* HttpServerRequest.HttpServerRequest
    if (method !== "GET" && method !== "HEAD") return Refusal.methodNotAllowed("GET, HEAD")
    return HttpServerResponse.text(Prometheus.format(yield* Metric.snapshot), {
      contentType: Prometheus.contentType,
      headers: { "cache-control": "no-store" }
    })
  })
}

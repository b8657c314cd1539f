/**
 * Short spans for what a hub does, for those who trace. Off unless asked for: a span costs more than a publish.
 *
 * A stream itself has no span: it would be open for hours and look like the slowest request of all.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { SseHub } from "./SseHub.js"

/**
 * The same hub, whose `publish` and `publishAll` run in a span `sse.publish` (of kind producer), and whose `connect` runs in
 * a span `sse.connect`, with the namespace as `messaging.destination.name` and, for more than one event, their number as
 * `messaging.batch.message_count` (OpenTelemetry's conventions for messaging).
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { SseLayer, SseTracing } from "effect-sse"
 * import { Layer } from "effect"
 *
 * const TracedHub = SseTracing.layer.pipe(Layer.provide(SseLayer))
 * ```
 */
export const layer: Layer.Layer<SseHub, never, SseHub> = Layer.effect(
  SseHub,
  Effect.map(SseHub, (hub) => {
    const publishing = (attributes: Record<string, unknown>) =>
      Effect.withSpan("sse.publish", {
        kind: "producer",
        captureStackTrace: false,
        attributes: { "messaging.system": "effect-sse", "messaging.operation.type": "send", ...attributes }
      })
    return SseHub.of({
      ...hub,
      publish: (event) => publishing({ "messaging.destination.name": event.namespace })(hub.publish(event)),
      publishAll: (events) =>
        Effect.suspend(() => {
          const all = Array.from(events)
          const namespaces = new Set(all.map(({ namespace }) => namespace))
          return publishing({
            "messaging.batch.message_count": all.length,
            ...(namespaces.size === 1 ? { "messaging.destination.name": all[0]!.namespace } : {})
          })(hub.publishAll(all))
        }),
      connect: (request) =>
        Effect.withSpan(hub.connect(request), "sse.connect", {
          kind: "server",
          captureStackTrace: false,
          attributes: {
            "messaging.system": "effect-sse",
            "messaging.destination.name": request.namespaces.join(" "),
            ...(request.address === undefined ? {} : { "client.address": request.address })
          }
        })
    })
  })
)

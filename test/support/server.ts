/** A hub served on a free port of loopback. */
import { HttpServer } from "@effect/platform"
import { SseHub, type SseConfig } from "effect-sse"
import * as SseServer from "effect-sse/node/SseServer"
import { Effect, Layer, Logger } from "effect"

export const serverLayer = (
  options?: SseServer.ServerOptions,
  hub?: SseConfig.HubOptions
): Layer.Layer<SseHub.SseHub | HttpServer.HttpServer> =>
  SseServer.layer({ port: 0, publishToken: "secret", ...options }).pipe(
    Layer.orDie,
    Layer.provideMerge(SseHub.layer(hub)),
    Layer.provide(Logger.remove(Logger.defaultLogger))
  )

export const port: Effect.Effect<number, never, HttpServer.HttpServer> = Effect.map(
  HttpServer.HttpServer,
  ({ address }) => {
    if (address._tag !== "TcpAddress") throw new Error("not a TCP server")
    return address.port
  }
)

/** Waits for a condition of the hub that nothing announces, giving the event loop turns between looks. */
export const eventually = <E, R>(condition: Effect.Effect<boolean, E, R>): Effect.Effect<void, E, R> =>
  Effect.zipRight(
    Effect.async<void>((resume) => void setImmediate(() => resume(Effect.void))),
    condition
  ).pipe(Effect.repeat({ until: (holds) => holds }), Effect.asVoid)

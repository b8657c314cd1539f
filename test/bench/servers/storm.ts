/** A server to be restarted: on the port that is given (0: a free one), with the usual jitter or with none. */
import { HttpServer } from "@effect/platform"
import { NodeRuntime } from "@effect/platform-node"
import { SseHub } from "effect-sse"
import * as SseServer from "effect-sse/node/SseServer"
import { Console, Effect, Layer, Logger, LogLevel } from "effect"

const [port = "0", jitter = "jitter"] = process.argv.slice(2)

HttpServer.addressWith((address) =>
  Effect.zipRight(Console.log(address._tag === "TcpAddress" ? address.port : 0), Effect.never)
).pipe(
  Effect.provide(
    SseServer.layer({ port: Number(port) }).pipe(
      Layer.provide(
        SseHub.layer(
          jitter === "jitter"
            ? {}
            : { shutdownRetry: ["1 second", "1 second"], drainWindow: 0, maxReturnsPerSecond: 1e9 }
        )
      ),
      Layer.provide(Logger.minimumLogLevel(LogLevel.Warning))
    )
  ),
  NodeRuntime.runMain
)

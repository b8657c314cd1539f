/**
 * The routes as a function from Request to Response, for any framework that has those. This program calls it itself:
 * it subscribes, publishes, shows what arrives, and ends.
 *
 *     npx tsx examples/toWebHandler.ts
 */
import { HttpApp } from "@effect/platform"
import { NodeRuntime } from "@effect/platform-node"
import { SseHub, SseLayer, SseRoutes } from "effect-sse"
import { Console, Data, Effect, Stream } from "effect"

class BodyBroke extends Data.TaggedError("BodyBroke")<{ readonly cause: unknown }> {}

const program = Effect.gen(function* () {
  const hub = yield* SseHub.SseHub
  const runtime = yield* Effect.runtime<SseHub.SseHub>()
  const handler = HttpApp.toWebHandlerRuntime(runtime)(SseRoutes.router())

  const response = yield* Effect.promise(() => handler(new Request("http://localhost/subscribe/pets")))
  yield* Console.log(`${response.status} ${response.headers.get("content-type")}`)

  yield* hub.publish({ namespace: "/pets/dogs", event: "new-dog", data: "Corgi" })
  const body = Stream.fromReadableStream({
    evaluate: () => response.body ?? new ReadableStream<Uint8Array>(),
    onError: (cause) => new BodyBroke({ cause })
  })
  yield* body.pipe(
    Stream.decodeText(),
    Stream.takeUntil((text) => text.includes("Corgi")),
    Stream.runForEach((text) => Console.log(text.trimEnd()))
  )
})

NodeRuntime.runMain(Effect.provide(program, SseLayer))

/**
 * What `effect-sse serve --demo` broadcasts: the time, and pets.
 *
 * @internal
 */
import * as Clock from "effect/Clock"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import type { PublishError } from "../SseError.js"
import { SseHub } from "../SseHub.js"

const pets = [
  { namespace: "/pets/dogs", event: "new-dog", data: "Corgi" },
  { namespace: "/pets/cats", event: "new-cat", data: "Persian" },
  { namespace: "/pets/dogs", event: "new-dog", data: "Terrier" },
  { namespace: "/pets/cats", event: "new-cat", data: "LOLcat" }
]

export const demo: Effect.Effect<void, PublishError, SseHub> = Effect.gen(function* () {
  const hub = yield* SseHub
  const time = Effect.flatMap(Clock.currentTimeMillis, (now) =>
    hub.publish({ namespace: "/time", data: DateTime.formatIso(DateTime.unsafeMake(now)) })
  )
  const pet = Effect.forEach(pets, (event) => Effect.delay(hub.publish(event), "1 second"))
  yield* Effect.all(
    [Effect.repeat(time, Schedule.fixed("1 second")), Effect.forever(Effect.andThen(pet, Effect.sleep("1 second")))],
    { concurrency: "unbounded", discard: true }
  )
})

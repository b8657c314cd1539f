/** Tickets and idempotency keys of several processes. */
import { assert, it } from "@effect/vitest"
import { Idempotency, Namespace, Tickets } from "effect-sse"
import { Effect, Exit, Option, Scope } from "effect"
import { MessageChannel } from "node:worker_threads"
import * as RemoteStores from "../../../src/internal/remote/stores.js"
import { channelOf } from "../../support/channel.js"

it.scopedLive("processes share tickets and keys; what one worked on that is gone may be tried again", () =>
  Effect.gen(function* () {
    const stores = { tickets: Tickets.unsafeMakeMemory({ max: 1 }), idempotency: Idempotency.unsafeMakeMemory() }
    const join = Effect.gen(function* () {
      const { port1, port2 } = new MessageChannel()
      yield* Effect.addFinalizer(() => Effect.sync(() => port1.close()))
      yield* RemoteStores.serve(stores, channelOf(port1))
      return yield* RemoteStores.connect(channelOf(port2))
    })
    const gone = yield* Scope.make()
    const [one, two] = yield* Effect.all([Scope.extend(join, gone), join])

    const grant = { principal: { id: "ann", metadata: { of: [1] } }, namespaces: [Namespace.make("/pets")] }
    yield* one.tickets.put("t", grant, 60_000)
    assert.strictEqual((yield* Effect.flip(two.tickets.put("u", grant, 60_000))).kind, "unavailable")
    assert.deepStrictEqual(yield* two.tickets.take("t"), Option.some(grant))
    assert.deepStrictEqual(yield* one.tickets.take("t"), Option.none())

    const begin = (by: RemoteStores.Stores, key: string) => by.idempotency.begin(key, "fingerprint", 60_000)
    assert.deepStrictEqual(yield* begin(one, "a"), { _tag: "New" })
    assert.deepStrictEqual(yield* begin(two, "a"), { _tag: "Running" })
    yield* one.idempotency.finish("a", "answer")
    yield* begin(one, "b")
    yield* one.idempotency.abandon("b")
    assert.deepStrictEqual(yield* begin(two, "b"), { _tag: "New" })
    yield* begin(one, "c")
    yield* Scope.close(gone, Exit.void)
    assert.deepStrictEqual(yield* begin(two, "a"), { _tag: "Done", answer: "answer" })
    assert.deepStrictEqual(yield* begin(two, "b"), { _tag: "Running" }, "that of another")
    assert.deepStrictEqual(yield* begin(two, "c"), { _tag: "New" })
  })
)

import { assert, describe, it } from "@effect/vitest"
import { Idempotency } from "effect-sse"
import { Effect, TestClock } from "effect"

const minute = 60_000

describe("Idempotency in memory", () => {
  it.effect("knows a key for its time, and nothing of one that was abandoned", () =>
    Effect.gen(function* () {
      const store = Idempotency.unsafeMakeMemory()
      const begin = (key: string, fingerprint = "f") =>
        Effect.map(store.begin(key, fingerprint, minute), (known) =>
          known._tag === "Done" ? known.answer : known._tag
        )
      assert.strictEqual(yield* begin("a"), "New")
      assert.strictEqual(yield* begin("a"), "Running")
      assert.strictEqual(yield* begin("a", "g"), "Different")
      yield* store.finish("a", "answer")
      assert.strictEqual(yield* begin("a"), "answer")
      assert.strictEqual(yield* begin("a", "g"), "Different")
      assert.strictEqual(yield* begin("b"), "New")
      yield* store.abandon("b")
      assert.strictEqual(yield* begin("b", "g"), "New")
      yield* TestClock.adjust(minute - 1)
      assert.strictEqual(yield* begin("a"), "answer")
      yield* TestClock.adjust(1)
      assert.strictEqual(yield* begin("a"), "New")
    })
  )

  it.effect("forgets the oldest when there are too many, or too much of them, but nothing that is worked on", () =>
    Effect.gen(function* () {
      const store = Idempotency.unsafeMakeMemory({ max: 3, maxBytes: 10_000 })
      const tagOf = (key: string) => Effect.map(store.begin(key, "f", minute), ({ _tag }) => _tag)
      yield* tagOf("working")
      for (const key of ["a", "b", "c"]) {
        assert.strictEqual(yield* tagOf(key), "New")
        yield* store.finish(key, key)
      }
      assert.deepStrictEqual(yield* Effect.forEach(["working", "b", "c"], tagOf), ["Running", "Done", "Done"])
      assert.strictEqual(yield* tagOf("a"), "New")
      yield* store.finish("a", "x".repeat(9000))
      assert.deepStrictEqual(yield* Effect.forEach(["working", "a"], tagOf), ["Running", "Done"])
      yield* store.finish("working", "y".repeat(9000))
      assert.strictEqual(yield* tagOf("working"), "New")
    })
  )
})

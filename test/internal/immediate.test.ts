import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit, Ref } from "effect"
import * as Immediate from "../../src/internal/immediate.js"

describe("immediate", () => {
  it.effect("an immediate effect does at each run what it does, with a fiber or without", () =>
    Effect.gen(function* () {
      let runs = 0
      const effect: Effect.Effect<number, string> = new Immediate.Immediate(() =>
        ++runs < 3 ? Exit.succeed(runs) : Exit.fail("no more")
      )
      assert.strictEqual(runs, 0)
      assert.deepStrictEqual(Immediate.unsafeRun(effect), Exit.succeed(1))
      assert.strictEqual(yield* effect, 2)
      assert.strictEqual(yield* Effect.flip(effect), "no more")
      assert.deepStrictEqual(Immediate.unsafeRun(effect), Exit.fail("no more"))
    })
  )

  it.effect("what it throws is a defect", () =>
    Effect.gen(function* () {
      const effect: Effect.Effect<number> = new Immediate.Immediate(() => {
        throw new Error("broken")
      })
      const cause = yield* Effect.sandbox(effect).pipe(Effect.flip)
      assert.match(Cause.pretty(cause), /broken/)
      assert.throws(() => Immediate.unsafeRun(effect), /broken/)
    })
  )

  it("leaves other effects to a fiber", () => {
    assert.strictEqual(Immediate.unsafeRun(Effect.succeed(1)), undefined)
    assert.strictEqual(
      Immediate.unsafeRun(Effect.map(new Immediate.Immediate(() => Exit.succeed(1)), String)),
      undefined
    )
  })

  it.effect("its Ref is one to all that takes a Ref, and plain code changes it as well", () =>
    Effect.gen(function* () {
      const ref = new Immediate.ImmediateRef(1)
      yield* Ref.update(ref, (n) => n + 1)
      assert.strictEqual(
        ref.unsafeModify((n) => [`was ${n}`, n * 10]),
        "was 2"
      )
      assert.strictEqual(yield* Ref.get(ref), 20)
      assert.strictEqual(yield* Ref.modify(ref, (n) => [n, n + 1]), 20)
      assert.strictEqual(yield* ref, 21)
      assert.strictEqual(yield* ref.get, 21)
    })
  )
})

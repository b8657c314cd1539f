import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Scope, TestClock } from "effect"
import * as Lingering from "../../../src/internal/shards/lingering.js"

const setup = (lingerMillis = 1000) =>
  Effect.gen(function* () {
    const log: Array<string> = []
    let fails = 0
    const gate = yield* Effect.makeLatch(true)
    const release = yield* Effect.makeLatch(true)
    const use = yield* Lingering.make(
      (key) =>
        Effect.zipRight(
          gate.await,
          Effect.suspend(() => {
            if (fails-- > 0) return Effect.fail("no")
            return Effect.acquireRelease(
              Effect.sync(() => void log.push(`+${key}`)),
              () =>
                Effect.zipRight(
                  release.await,
                  Effect.sync(() => void log.push(`-${key}`))
                )
            )
          })
        ),
      lingerMillis
    )
    const enter = (key: number) =>
      Effect.gen(function* () {
        const scope = yield* Scope.make()
        yield* Scope.extend(use(key), scope)
        return { leave: Scope.close(scope, Exit.void) }
      })
    return { log, use, enter, gate, release, fail: (times: number) => void (fails = times) }
  })

describe("lingering", () => {
  it.scoped("is had once by all who use it, and for a while when nobody does", () =>
    Effect.gen(function* () {
      const { enter, log } = yield* setup()
      const users = yield* Effect.all([enter(1), enter(1), enter(2)], { concurrency: "unbounded" })
      assert.deepStrictEqual(log.toSorted(), ["+1", "+2"])
      yield* users[0]!.leave
      yield* users[2]!.leave
      yield* TestClock.adjust("999 millis")
      assert.strictEqual(log.length, 2)
      yield* TestClock.adjust("1 millis")
      assert.deepStrictEqual(log.slice(2), ["-2"])
      yield* users[1]!.leave
      yield* TestClock.adjust("600 millis")
      const again = yield* enter(1)
      yield* TestClock.adjust("1 hour")
      yield* again.leave
      yield* TestClock.adjust("999 millis")
      assert.deepStrictEqual(log.slice(3), [], "the time counts from the last one")
      yield* TestClock.adjust("1 millis")
      assert.deepStrictEqual(log.slice(3), ["-1"])
    })
  )

  it.scoped("tells a failure those who wait, and is tried again by the next", () =>
    Effect.gen(function* () {
      const { enter, fail, gate, log } = yield* setup()
      fail(1)
      yield* gate.close
      const both = yield* Effect.fork(Effect.all([Effect.flip(enter(1)), Effect.flip(enter(1))], { concurrency: 2 }))
      yield* Effect.yieldNow()
      yield* gate.open
      assert.deepStrictEqual(yield* both, ["no", "no"])
      yield* enter(1)
      assert.deepStrictEqual(log, ["+1"])
    })
  )

  it.scoped("outlives one who does not wait for it", () =>
    Effect.gen(function* () {
      const { enter, gate, log } = yield* setup()
      yield* gate.close
      const [first, second] = [yield* Effect.fork(enter(1)), yield* Effect.fork(enter(1))]
      yield* Effect.yieldNow()
      yield* first.interruptAsFork(first.id())
      yield* gate.open
      yield* second
      assert.deepStrictEqual(log, ["+1"])
    })
  )

  it.scoped("is not had again before it is released", () =>
    Effect.gen(function* () {
      const { enter, log, release } = yield* setup()
      yield* release.close
      yield* Effect.flatMap(enter(1), ({ leave }) => leave)
      yield* TestClock.adjust("1 seconds")
      assert.deepStrictEqual(log, ["+1"], "it is being released")
      const again = yield* Effect.fork(enter(1))
      yield* TestClock.adjust("1 seconds")
      assert.deepStrictEqual(log, ["+1"])
      yield* release.open
      yield* again
      assert.deepStrictEqual(log, ["+1", "-1", "+1"])
    })
  )
})

import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit } from "effect"
import { forEach } from "../../src/internal/eventLoop.js"

const numbers = (count: number) => Array.from({ length: count }, (_, i) => i)

describe("eventLoop", () => {
  it("does few in one step", () => {
    const seen: Array<number> = []
    assert.isTrue(Exit.isSuccess(Effect.runSyncExit(forEach(numbers(31), (i) => seen.push(i)))))
    assert.deepStrictEqual(seen, numbers(31))
  })

  it.live("gives the event loop back when many take long, and reaches each once", () =>
    Effect.gen(function* () {
      const seen: Array<number> = []
      let turns = 0
      let immediate: NodeJS.Immediate
      const count = () => {
        turns++
        immediate = setImmediate(count)
      }
      immediate = setImmediate(count)
      yield* forEach(numbers(320), (i) => {
        seen.push(i)
        for (const until = performance.now() + 0.3; performance.now() < until;);
      })
      clearImmediate(immediate)
      assert.deepStrictEqual(seen, numbers(320))
      // 96 ms, of which 8 to 18 ms at a time.
      assert.isAtLeast(turns, 5)
    })
  )
})

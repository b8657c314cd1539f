import { assert, describe, it } from "@effect/vitest"
import { type EventLog, Namespace, SseEvent } from "effect-sse"
import { Either, FastCheck as fc } from "effect"
import { Batch } from "../../src/internal/batch.js"
import * as Run from "../../src/internal/run.js"

const entries = fc
  .array(fc.record({ namespace: fc.constantFrom("/a", "/a/b", "/c"), data: fc.string({ maxLength: 60 }) }))
  .map((events): ReadonlyArray<EventLog.LogEntry> =>
    events.map((event, i) => ({
      namespace: Namespace.make(event.namespace),
      event,
      text: Either.getOrThrow(SseEvent.encode(event)),
      position: `test-${i}`
    }))
  )

describe("run", () => {
  it.prop(
    "runs are the entries in their order, as long as they may be",
    [entries, fc.integer({ min: 1, max: 200 })],
    ([entries, maxLength]) => {
      const runs = Run.split(entries, true, maxLength)
      assert.deepStrictEqual(
        runs.flatMap((run) => run.entries),
        entries
      )
      runs.forEach((run, i) => {
        assert.strictEqual(run.text, run.entries.map(({ text }) => text).join(""))
        assert.strictEqual(run.count, run.entries.length)
        assert.strictEqual(run.last, run.entries.at(-1))
        assert.isTrue(run.entries.every(({ namespace }) => namespace === run.last.namespace))
        assert.isTrue(run.count === 1 || run.text.length <= maxLength)
        // The next one did not fit.
        const next = runs[i + 1]
        if (next !== undefined && next.last.namespace === run.last.namespace) {
          assert.isAbove(run.text.length + next.entries[0]!.text.length, maxLength)
        }
      })
    }
  )

  it.prop("without its entries a run says the same", [entries], ([entries]) => {
    const [kept, bare] = [true, false].map((keep) => {
      const batch = new Batch(1)
      for (const run of Run.split(entries, keep, 100)) batch.add(run)
      return batch
    })
    assert.strictEqual(bare!.count, entries.length)
    assert.deepStrictEqual(bare!.frame.bytes, kept!.frame.bytes)
    assert.deepStrictEqual(kept!.entries, entries)
    assert.deepStrictEqual(bare!.entries, [])
  })
})

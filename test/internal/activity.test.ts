import { assert, describe, it } from "@effect/vitest"
import type { HubStatus } from "effect-sse"
import { rates } from "../../src/internal/activity.js"

const sample = (at: number, count: number): HubStatus.Sample => ({
  at,
  clients: 1,
  published: count,
  deliveries: 3 * count,
  bytes: 30 * count,
  pendingBytes: 0,
  slowClients: 0,
  historyEvents: 0,
  memoryBytes: undefined,
  eventLoopDelay: undefined
})

describe("rates", () => {
  it("are those of the last ten seconds", () => {
    const samples = Array.from({ length: 30 }, (_, i) => sample(i * 1000, i < 19 ? 0 : (i - 19) * 7))
    assert.deepStrictEqual(rates(samples), { publishes: 7, deliveries: 21, bytes: 210 })
  })

  it("are those since the start in the first seconds, and 0 in the first", () => {
    assert.deepStrictEqual(rates([sample(0, 0), sample(1000, 4), sample(2000, 6)]).publishes, 3)
    assert.deepStrictEqual(rates([sample(0, 5)]), { publishes: 0, deliveries: 0, bytes: 0 })
    assert.deepStrictEqual(rates([]), { publishes: 0, deliveries: 0, bytes: 0 })
    assert.deepStrictEqual(rates([sample(0, 0), sample(0, 4)]).publishes, 0)
  })
})

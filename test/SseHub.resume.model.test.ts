/**
 * Resume against a model. Clients come, go, are cut off within what was written to them, resume, read slowly; the log is small,
 * drops, compacts and restarts. The model knows what was published. Whatever happens, each client's view must be whole: in
 * order, nothing twice, nothing missing but where it was told, and told nothing but where something is missing.
 */
import { assert, describe, it } from "@effect/vitest"
import { type HubClient, Namespace, NamespacePattern, SseHub } from "effect-sse"
import { Effect, Exit, FastCheck as fc, Layer, Scope } from "effect"
import { pause, turn } from "../src/internal/eventLoop.js"
import { blocksOf, RecordedConnection } from "./support/recorded.js"

const paths = ["/a", "/a/b", "/c", "/state/x", "/state/y", "/fleeting"] as const
const isState = (namespace: string) => namespace.startsWith("/state")
const isFleeting = (namespace: string) => namespace === "/fleeting"

const setups = fc.record({
  maxEvents: fc.integer({ min: 1, max: 30 }),
  /** Small ones make clients lose what is held for them while they catch up. */
  maxPendingBytes: fc.constantFrom(400, 1024 * 1024),
  afterReset: fc.constantFrom("now" as const, "earliest" as const),
  /** Whether each step is over before the next one, and all read: then nobody may be told of a gap that is none. */
  tidy: fc.boolean()
})

const client = fc.nat(3)

const steps = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      _tag: fc.constant("publish" as const),
      path: fc.constantFrom(...paths),
      count: fc.oneof(
        { weight: 12, arbitrary: fc.integer({ min: 1, max: 6 }) },
        { weight: 1, arbitrary: fc.constant(600) }
      ),
      withId: fc.boolean()
    })
  },
  {
    weight: 4,
    arbitrary: fc.record({ _tag: fc.constant("connect" as const), client })
  },
  { weight: 4, arbitrary: fc.record({ _tag: fc.constant("leave" as const), client, lost: fc.nat(4) }) },
  { weight: 3, arbitrary: fc.record({ _tag: fc.constant("turn" as const) }) },
  { weight: 1, arbitrary: fc.record({ _tag: fc.constant("stall" as const), client, bytes: fc.constantFrom(0, 300) }) },
  { weight: 1, arbitrary: fc.record({ _tag: fc.constant("restart" as const) }) }
)

const cases = fc.record({
  setup: setups,
  subscriptions: fc.array(
    fc.constantFrom(
      ["/"],
      ["/a"],
      ["/a/b", "/c"],
      ["/state"],
      ["/fleeting", "/a"],
      ["/*"],
      ["/*/x", "/a/*"],
      ["/state/*", "/*/b", "/c"]
    ),
    {
      minLength: 4,
      maxLength: 4
    }
  ),
  steps: fc.array(steps, { minLength: 5, maxLength: 40 })
})

interface Published {
  readonly life: number
  readonly namespace: string
}

/** A client as its user sees it. */
class Viewer {
  connection: RecordedConnection | undefined
  lastEventId: string | undefined
  /** Numbers of events, and what it was told in between. */
  readonly view: Array<number | { readonly reset: string; readonly requested: string }> = []
  /** How much had been published when it came first, or last came with nothing. */
  from: number | undefined

  constructor(readonly namespaces: HubClient.ConnectRequest["namespaces"]) {}

  wants(namespace: string): boolean {
    return this.namespaces.some((one) => NamespacePattern.matches(one, Namespace.make(namespace)))
  }

  /** Takes what the connection was given, but for the last blocks. */
  read(lost: number): void {
    const { connection } = this
    if (connection === undefined) return
    this.connection = undefined
    const blocks = blocksOf(connection.text)
    for (const { data, event, id } of blocks.slice(0, Math.max(0, blocks.length - lost))) {
      if (id !== undefined) this.lastEventId = id
      if (data === undefined) continue
      if (event === "sse-reset") {
        const told = JSON.parse(data) as { reason: string; requested: string }
        assert.strictEqual(told.requested === "", false)
        this.view.push({ reset: told.reason, requested: told.requested })
      } else {
        this.view.push(Number(data))
      }
    }
  }
}

const run = ({ setup, steps, subscriptions }: typeof cases extends fc.Arbitrary<infer A> ? A : never) =>
  Effect.gen(function* () {
    const published: Array<Published> = []
    let life = 0
    const layer = SseHub.layer({
      keepalive: false,
      maxPendingBytes: setup.maxPendingBytes,
      afterReset: setup.afterReset,
      shutdownRetry: false,
      history: {
        maxEvents: setup.maxEvents,
        rules: [
          { namespace: "/state", keep: "latest", maxEvents: 10 },
          { namespace: "/fleeting", keep: "nothing" }
        ]
      }
    })
    const start = Effect.gen(function* () {
      const scope = yield* Scope.make()
      const context = yield* Layer.buildWithScope(layer, scope)
      return { scope, hub: yield* Effect.provide(SseHub.SseHub, context) }
    })
    let { hub, scope } = yield* start
    const viewers = subscriptions.map((paths) => {
      const [first, ...rest] = paths.map((path) => NamespacePattern.make(path))
      return new Viewer([first!, ...rest])
    })

    const connect = (viewer: Viewer) =>
      Effect.gen(function* () {
        const connection = new RecordedConnection()
        const id = viewer.lastEventId
        const request: HubClient.ConnectRequest = {
          namespaces: viewer.namespaces,
          connection,
          start: id === undefined ? undefined : { _tag: "After", id }
        }
        if (id === undefined) {
          // What it saw before without an id was nothing but values and what is fleeting.
          viewer.view.length = 0
          viewer.from = published.length
        }
        yield* hub.connect(request)
        viewer.connection = connection
      })

    let witness = new RecordedConnection()
    yield* hub.connect({ namespaces: [Namespace.root], connection: witness })
    const settle = Effect.gen(function* () {
      if (!setup.tidy) return
      const last = published.length - 1
      const isBehind = () => last >= 0 && published[last]!.life === life && !witness.text.includes(`data:${last}\n\n`)
      while (witness.endedBy === undefined && isBehind()) yield* turn
      if (witness.endedBy !== undefined) {
        // The slow-client rule ended it, as it ends any other.
        witness = new RecordedConnection()
        yield* hub.connect({ namespaces: [Namespace.root], connection: witness })
        for (let i = 0; i < 20; i++) yield* turn
      }
      for (let i = 0; i < 4; i++) yield* turn
    })

    for (const step of steps) {
      const viewer = "client" in step ? viewers[step.client]! : undefined
      switch (step._tag) {
        case "publish": {
          const events = Array.from({ length: step.count }, () => {
            const n = published.push({ life, namespace: step.path }) - 1
            return { namespace: step.path, data: String(n), id: step.withId ? `own-${n}` : undefined }
          })
          yield* hub.publishAll(events)
          yield* settle
          break
        }
        case "connect":
          if (viewer!.connection?.endedBy !== undefined) viewer!.read(0)
          if (viewer!.connection === undefined) yield* connect(viewer!)
          yield* settle
          break
        case "leave":
          viewer!.connection?.close()
          viewer!.read(step.lost)
          break
        case "stall":
          if (viewer!.connection !== undefined && !setup.tidy) viewer!.connection.pending = step.bytes
          break
        case "turn":
          yield* turn
          break
        case "restart":
          yield* Scope.close(scope, Exit.void)
          for (const viewer of viewers) viewer.read(0)
          life++
          ;({ hub, scope } = yield* start)
          witness = new RecordedConnection()
          yield* hub.connect({ namespaces: [Namespace.root], connection: witness })
          break
      }
    }

    // In the end all are there and read: one event for each that all others are in front of.
    for (const viewer of viewers) if (viewer.connection !== undefined) viewer.connection.pending = 0
    for (const viewer of viewers) {
      if (viewer.connection?.endedBy !== undefined) viewer.read(0)
      if (viewer.connection === undefined) yield* connect(viewer)
    }
    // Whoever is told that something is missing may go on behind the last events: then there are some more.
    yield* settle
    let marks: ReadonlyArray<number> = []
    const isThere = (viewer: Viewer) =>
      marks.every((n) => !viewer.wants(published[n]!.namespace) || viewer.connection!.text.includes(`data:${n}\n\n`))
    for (let round = 0; round < 50 && (round === 0 || !viewers.every(isThere)); round++) {
      marks = ["/a/b", "/state/x", "/fleeting"].map((namespace) => published.push({ life, namespace }) - 1)
      yield* hub.publishAll(marks.map((n) => ({ namespace: published[n]!.namespace, data: String(n) })))
      for (let turns = 0; turns < 30 && !viewers.every(isThere); turns++) {
        // Whoever has to read first is looked at again some time later.
        yield* turns < 20 ? turn : pause(5)
        for (const viewer of viewers) {
          // The slow-client rule ended it while it caught up: it comes again.
          if (viewer.connection?.endedBy === undefined) continue
          viewer.read(0)
          yield* connect(viewer)
        }
      }
    }
    for (const viewer of viewers) {
      assert.isTrue(isThere(viewer), `${viewer.namespaces.join()} did not get the last events`)
      viewer.read(0)
    }
    yield* Scope.close(scope, Exit.void)
    for (const viewer of viewers) check(viewer, published, setup.tidy)
  })

/** Every event that the viewer should have got it has, or was told. */
const check = ({ from = 0, view, wants, ...viewer }: Viewer, published: ReadonlyArray<Published>, tidy = true) => {
  const wanted = (n: number) => wants.call(viewer, published[n]!.namespace)
  const told = JSON.stringify(view)
  const seen = new Set<number>()
  let last = from - 1
  let lastFleeting = -1
  let first = true
  let resets: Array<{ readonly reset: string; readonly requested: string }> = []
  const values = new Map<string, number>()
  for (const element of view) {
    if (typeof element !== "number") {
      resets.push(element)
      continue
    }
    const { life, namespace } = published[element]!
    assert.isTrue(wanted(element), `${element} was not asked for: ${told}`)
    if (isState(namespace)) {
      assert.isAtLeast(element, values.get(namespace) ?? -1, `an older value came: ${told}`)
      values.set(namespace, element)
      seen.add(element)
      continue
    }
    if (isFleeting(namespace)) {
      // While one catches up, they come behind what is given again, and each once.
      assert.isFalse(seen.has(element), `${element} came twice: ${told}`)
      assert.isAbove(element, lastFleeting, `out of order: ${told}`)
      lastFleeting = element
      seen.add(element)
      continue
    }
    // Of an own id that is dropped nobody knows where it was: the earliest that is kept may have been seen.
    if (resets.some(({ reset }) => reset === "unknown") && element <= last) {
      seen.clear()
      last = element - 1
    }
    assert.isFalse(seen.has(element), `${element} came twice: ${told}`)
    seen.add(element)
    // An event that was on its way when a client came first may come.
    if (!first || element >= from) assert.isAbove(element, last, `out of order: ${told}`)
    const missing = []
    // What is missing in front of the first one was on its way when the client came, and may be told of.
    for (let n = first && resets.length > 0 ? 0 : last + 1; n < element; n++) {
      if (wanted(n) && !isState(published[n]!.namespace) && !isFleeting(published[n]!.namespace)) missing.push(n)
    }
    if (missing.length > 0) assert.isNotEmpty(resets, `${missing.join()} are missing: ${told}`)
    for (const { requested, reset } of resets) {
      if (reset === "expired" && tidy) assert.isNotEmpty(missing, `nothing is missing behind ${requested}: ${told}`)
      if (reset === "restarted") assert.isAbove(life, 0, `no restart: ${told}`)
      if (reset === "unknown") assert.match(requested, /^own-/, `an own id that was dropped: ${told}`)
    }
    resets = []
    first = false
    last = element
  }
  // The last events are not kept from anybody who is there.
  for (let n = published.length - 3; n < published.length; n++) {
    if (wanted(n)) assert.isTrue(seen.has(n), `the end is missing: ${told}`)
  }
  for (const path of ["/state/x", "/state/y"]) {
    const holds = published.findLastIndex(({ namespace }) => namespace === path)
    const lives = published.at(-1)!.life
    if (holds === -1 || !wanted(holds) || published[holds]!.life !== lives) continue
    assert.strictEqual(values.get(path), holds, `not the value of ${path}: ${told}`)
  }
}

describe("resume", () => {
  it.effect.prop("agrees with a model, in 1,000 random lives", [cases], ([one]) => run(one), {
    timeout: 180_000,
    fastCheck: { numRuns: 1000 }
  })

  it("is checked by a model that sees what is wrong", () => {
    const published = Array.from({ length: 6 }, () => ({ life: 0, namespace: "/a" }))
    const viewer = (...view: Viewer["view"]) => {
      const made = new Viewer([Namespace.make("/a")])
      made.view.push(...view)
      made.from = 0
      return made
    }
    check(viewer(0, 1, 2, 3, 4, 5), published)
    check(viewer(0, 1, { reset: "expired", requested: "x" }, 3, 4, 5), published)
    assert.throws(() => check(viewer(0, 2, 3, 4, 5), published), /missing/)
    assert.throws(() => check(viewer(0, 1, 1, 2, 3, 4, 5), published), /twice/)
    assert.throws(() => check(viewer(0, 2, 1, 3, 4, 5), published), /missing|order/)
    assert.throws(() => check(viewer(0, 1, 2, 3, 4), published), /end is missing/)
    assert.throws(() => check(viewer(0, { reset: "expired", requested: "x" }, 1, 2, 3, 4, 5), published), /nothing is/)
  })
})

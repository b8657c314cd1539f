/** Several logs as one, under hubs: what their clients get, wherever they come back. */
import { assert, describe, it } from "@effect/vitest"
import { EventLog, type HubClient, Namespace, NamespacePattern, SseError, SseHub } from "effect-sse"
import { Effect, FastCheck as fc, Fiber, Stream, TestClock } from "effect"
import { pause, turn } from "../../../src/internal/eventLoop.js"
import * as Sharding from "../../../src/internal/shards/sharding.js"
import * as Shards from "../../../src/internal/shards/shards.js"
import { blocksOf, RecordedConnection } from "../../support/recorded.js"

type Log = EventLog.EventLog["Type"]
type Logs = readonly [Log, ...ReadonlyArray<Log>]

const sharding = { count: 3, depth: 1 }
const shardOf = (namespace: string) => Sharding.shardOf(sharding, Namespace.make(namespace))
// One of each shard.
const names = [0, 1, 2].map((shard) => {
  for (const letter of "abcdefghijklmnopqrstuvwxyz") if (shardOf(`/${letter}`) === shard) return `/${letter}`
  throw new Error("no name")
})
const [a, b, c] = names as [string, string, string]

const entry = (namespace: string, data: string): EventLog.NewEntry => ({
  namespace: Namespace.make(namespace),
  event: { namespace, data },
  text: `data:${data}\n\n`
})

const patterns = (...paths: ReadonlyArray<string>) => paths.map((path) => NamespacePattern.make(path))

const memories = (options: EventLog.HistoryOptions = {}): Effect.Effect<Logs> => {
  const one = EventLog.makeMemory(options)
  return Effect.all([one, one, one])
}

/** A log that a node reads behind, as far as it is let; and whether it reads it. */
const behind = (log: Log) => {
  let held: Array<{ readonly tail: EventLog.Tail; readonly run: () => void }> = []
  let tails = 0
  const made: Log = {
    ...log,
    tail: (tail) =>
      Effect.acquireRelease(
        Effect.sync(() => void tails++),
        () =>
          Effect.sync(() => {
            tails--
            held = held.filter((one) => one.tail !== tail)
          })
      ).pipe(
        Effect.zipRight(
          log.tail({
            ...tail,
            offer: (entries) => void held.push({ tail, run: () => tail.offer(entries) }),
            gap: (gap) => void held.push({ tail, run: () => tail.gap(gap) })
          })
        )
      )
  }
  return {
    log: made,
    isRead: () => tails > 0,
    release: (count: number) => {
      for (const { run } of held.splice(0, count)) run()
    }
  }
}

/** A hub on its own view of the logs. */
const node = (logs: Logs, options: { readonly lingerMillis?: number; readonly maxPendingBytes?: number } = {}) =>
  Effect.gen(function* () {
    const views = logs.map(behind)
    const [first, ...rest] = views.map(({ log }) => log)
    const log = yield* Shards.make([first!, ...rest], { depth: 1, lingerMillis: options.lingerMillis ?? 1000 })
    const hub = yield* SseHub.make({
      keepalive: false,
      shutdownRetry: false,
      maxPendingBytes: options.maxPendingBytes ?? 1024 * 1024
    }).pipe(Effect.provideService(EventLog.EventLog, log))
    return {
      hub,
      log,
      views,
      catchUp: Effect.suspend(() => {
        for (const view of views) view.release(Infinity)
        return hub.flush
      }),
      reads: () => views.flatMap((view, shard) => (view.isRead() ? [shard] : []))
    }
  })
type Node = Effect.Effect.Success<ReturnType<typeof node>>

const connect = (node: Node, paths: ReadonlyArray<string>, start?: EventLog.Start) =>
  Effect.gen(function* () {
    const connection = new RecordedConnection()
    const [first, ...rest] = patterns(...paths)
    yield* node.hub.connect({ namespaces: [first!, ...rest], connection, start })
    const blocks = () => blocksOf(connection.text)
    return {
      connection,
      data: () =>
        blocks().flatMap(({ data, event }) => (data === undefined ? [] : [event === "message" ? data : event])),
      ids: () => blocks().flatMap(({ id }) => id ?? []),
      lastId: () => blocks().findLast(({ id }) => id !== undefined)!.id!
    }
  })

const after = (id: string): EventLog.Start => ({ _tag: "After", id })

describe("a log in shards", () => {
  it.scoped("is read where somebody listens, and no longer", () =>
    Effect.gen(function* () {
      const one = yield* node(yield* memories())
      assert.deepStrictEqual(one.reads(), [])
      const first = yield* connect(one, [a])
      assert.deepStrictEqual(one.reads(), [0])
      const second = yield* connect(one, [a + "/x", b])
      assert.deepStrictEqual(one.reads(), [0, 1])
      const stream = yield* Effect.fork(Stream.runCollect(one.hub.subscribe("/*/y")))
      while (one.reads().length < 3) yield* turn
      yield* Fiber.interrupt(stream)
      second.connection.close()
      yield* one.hub.flush
      yield* TestClock.adjust("999 millis")
      assert.deepStrictEqual(one.reads(), [0, 1, 2], "for a while")
      yield* TestClock.adjust("1 millis")
      assert.deepStrictEqual(one.reads(), [0])
      const refused = yield* Effect.flip(
        one.hub.connect({
          namespaces: [Namespace.root],
          connection: first.connection,
          principal: { id: "x", expiresAt: 0 }
        })
      )
      assert.strictEqual(refused._tag, "Refused")
      assert.deepStrictEqual(one.reads(), [0, 1, 2])
      yield* TestClock.adjust("1 seconds")
      assert.deepStrictEqual(one.reads(), [0], "who is refused holds nothing")
      first.connection.close()
      yield* one.hub.flush
      yield* TestClock.adjust("1 seconds")
      assert.deepStrictEqual(one.reads(), [])
    })
  )

  it.scoped("gives those who touch one shard short ids, and others ids of all", () =>
    Effect.gen(function* () {
      const one = yield* node(yield* memories({ rules: [{ namespace: a + "/no", keep: "nothing" }] }))
      const narrow = yield* connect(one, [a])
      const wide = yield* connect(one, ["/"])
      yield* one.hub.publishAll([
        { namespace: a, data: "1" },
        { namespace: b, data: "2" },
        { namespace: a, data: "3", id: "own" },
        { namespace: a + "/no", data: "4" },
        { namespace: a, data: "5" }
      ])
      yield* one.catchUp
      assert.deepStrictEqual(narrow.data(), ["1", "3", "4", "5"])
      assert.deepStrictEqual(wide.data().toSorted(), ["1", "2", "3", "4", "5"])
      const ids = narrow.ids()
      assert.strictEqual(ids.length, 4, "the first is that at which it came")
      assert.strictEqual(ids[2], "own")
      for (const id of [ids[0], ids[1], ids[3]]) assert.match(id!, /^0~[^.~]+$/)
      for (const id of wide.ids()) if (id !== "own") assert.match(id, /^0~[^.~]+\.1~[^.~]+\.2~[^.~]+$/)
    })
  )

  it.scoped("is resumed on another node, whichever it reads", () =>
    Effect.gen(function* () {
      const logs = yield* memories()
      const nodes = [yield* node(logs), yield* node(logs)] as const
      const wide = yield* connect(nodes[0], ["/"])
      const narrow = yield* connect(nodes[0], [b])
      const publish = (...data: ReadonlyArray<string>) =>
        nodes[0].hub.publishAll(data.flatMap((one) => names.map((namespace) => ({ namespace, data: namespace + one }))))
      yield* publish("1", "2")
      yield* nodes[0].catchUp
      const [wideId, narrowId] = [wide.lastId(), narrow.lastId()]
      yield* publish("3", "4")
      const again = yield* connect(nodes[1], ["/"], after(wideId))
      assert.deepStrictEqual(nodes[1].reads(), [0, 1, 2])
      yield* nodes[1].catchUp
      assert.deepStrictEqual(again.data().toSorted(), [a, b, c].flatMap((name) => [name + "3", name + "4"]).toSorted())
      const other = yield* connect(nodes[1], [b], after(narrowId))
      const fromWide = yield* connect(nodes[1], [c], after(wideId))
      yield* publish("5")
      yield* nodes[1].catchUp
      assert.deepStrictEqual(other.data(), [b + "3", b + "4", b + "5"])
      assert.deepStrictEqual(fromWide.data(), [c + "3", c + "4", c + "5"])
      for (const id of again.ids()) {
        const resumed = yield* connect(nodes[0], ["/"], after(id))
        yield* nodes[0].catchUp
        assert.notInclude(resumed.data(), "sse-reset")
      }
    })
  )

  it.scoped("does not know what it was not told: another shard, or an own id for several", () =>
    Effect.gen(function* () {
      const one = yield* node(yield* memories())
      const narrow = yield* connect(one, [a])
      yield* one.hub.publishAll([
        { namespace: a, data: "1", id: "own" },
        { namespace: a, data: "2" },
        { namespace: b, data: "3" }
      ])
      yield* one.catchUp
      for (const [paths, id, expected] of [
        [[a], "own", ["2"]],
        [["/"], "own", ["sse-reset"]],
        [[b], "own", ["sse-reset"]],
        [[a, b], narrow.lastId(), ["sse-reset"]],
        [[b], narrow.lastId(), ["sse-reset"]],
        [[a], "0~x", ["sse-reset"]],
        [["/"], "0~x.1~x.2~x", ["sse-reset"]],
        [[a], narrow.lastId(), []]
      ] as const) {
        const client = yield* connect(one, paths, after(id))
        yield* one.catchUp
        assert.deepStrictEqual(client.data(), [...expected], `${paths.join()} ${id}`)
        const told = /"reason":"(\w+)"/.exec(client.connection.text)?.[1]
        assert.isTrue(told === undefined || told === "unknown" || id.includes("x"), told)
      }
    })
  )

  it.scoped("begins at the oldest, so many of all back, or so long back", () =>
    Effect.gen(function* () {
      const one = yield* node(yield* memories())
      const data = Array.from({ length: 9 }, (_, i) => String(i))
      for (const [i, text] of data.entries()) {
        yield* one.hub.publish({ namespace: names[(i * i) % 3]!, data: text })
        yield* TestClock.adjust("1 seconds")
      }
      const begin = (start: EventLog.Start, ...paths: ReadonlyArray<string>) =>
        Effect.gen(function* () {
          const client = yield* connect(one, paths, start)
          yield* one.catchUp
          return client.data().toSorted()
        })
      assert.deepStrictEqual(yield* begin({ _tag: "Earliest" }, "/"), data)
      for (const events of [0, 1, 2, 3, 5, 9, 20]) {
        assert.deepStrictEqual(yield* begin({ _tag: "Last", events }, "/"), events === 0 ? [] : data.slice(-events))
      }
      assert.deepStrictEqual(yield* begin({ _tag: "Last", events: 2 }, names[1]!), ["7", "8"])
      assert.deepStrictEqual(yield* begin({ _tag: "Within", millis: 4000 }, "/"), data.slice(-4))
      yield* one.hub.publishAll(Array.from({ length: 1500 }, (_, i) => ({ namespace: names[i % 3]!, data: "x" })))
      yield* one.catchUp
      assert.strictEqual((yield* begin({ _tag: "Last", events: 1400 }, "/")).length, 1000, "that is the most")
    })
  )

  it.scoped("says what is gone where a client listens, and nothing elsewhere", () =>
    Effect.gen(function* () {
      const one = yield* node(yield* memories({ maxEvents: 5 }))
      const wide = yield* connect(one, ["/"])
      const first = wide.lastId()
      yield* one.hub.publishAll(Array.from({ length: 20 }, (_, i) => ({ namespace: a, data: String(i) })))
      yield* one.hub.publish({ namespace: b, data: "b" })
      yield* one.catchUp
      const told = yield* connect(one, ["/"], after(first))
      assert.deepStrictEqual(told.data(), ["sse-reset"])
      assert.include(told.connection.text, '"reason":"expired"')
      const oldest = /"oldest":"([^"]+)"/.exec(told.connection.text)![1]!
      const again = yield* connect(one, ["/"], after(oldest))
      const other = yield* connect(one, [b, c], after(first))
      yield* one.catchUp
      assert.deepStrictEqual(again.data(), ["15", "16", "17", "18", "19", "b"])
      assert.deepStrictEqual(other.data(), ["b"])
    })
  )

  it.scoped("gives the latest values of all shards, oldest first", () =>
    Effect.gen(function* () {
      const one = yield* node(yield* memories({ rules: [{ namespace: "/*/v", keep: "latest" }] }))
      for (const [i, name] of [a, b, c, a, b].entries()) {
        yield* one.hub.publish({ namespace: name + "/v", data: String(i) })
        yield* TestClock.adjust("1 seconds")
      }
      const client = yield* connect(one, ["/"])
      yield* one.catchUp
      assert.deepStrictEqual(client.data(), ["2", "3", "4"])
      const back = yield* connect(one, ["/"], after(client.lastId()))
      yield* one.hub.publish({ namespace: a, data: "5" })
      yield* one.catchUp
      assert.deepStrictEqual(back.data(), ["5"])
    })
  )

  it.scoped("publishes whole in each shard, and says if that was not in all", () =>
    Effect.gen(function* () {
      const logs = yield* memories()
      let outcome: "unknown" | undefined
      const broken: Log = {
        ...logs[1]!,
        append: () => Effect.fail(new SseError.EventLogError({ operation: "append", reason: "broken", outcome }))
      }
      const log = yield* Shards.make([logs[0], broken, broken], { depth: 1, lingerMillis: 0 })
      const fail = (...names: ReadonlyArray<string>) => Effect.flip(log.append(names.map((name) => entry(name, "x"))))
      assert.isUndefined((yield* fail(b)).outcome)
      assert.isUndefined((yield* fail(b, c)).outcome, "nothing was published")
      const partial = yield* fail(a, b)
      assert.strictEqual(partial.outcome, "partial")
      assert.include(partial.message, "some of the events were published")
      outcome = "unknown"
      assert.strictEqual((yield* fail(b, c)).outcome, "unknown")
      assert.strictEqual((yield* fail(a, b)).outcome, "partial")
      const positions = yield* log.append([entry(a, "1"), entry(a, "2")])
      assert.match(positions.join(" "), /^0~\S+ 0~\S+$/)
    })
  )

  it.scoped("fails to connect while a shard cannot be read, and then does not", () =>
    Effect.gen(function* () {
      const logs = yield* memories()
      let isBroken = true
      const sick: Log = {
        ...logs[1]!,
        tail: (tail) =>
          Effect.suspend(() =>
            isBroken
              ? Effect.fail(new SseError.EventLogError({ operation: "tail", reason: "broken" }))
              : logs[1]!.tail(tail)
          )
      }
      const one = yield* node([logs[0], sick, logs[2]!])
      const failed = yield* Effect.flip(connect(one, ["/"]))
      assert.strictEqual(failed._tag, "EventLogError")
      yield* connect(one, [a])
      const stream = yield* Effect.fork(Stream.runHead(one.hub.subscribe(b)))
      yield* pause(20)
      isBroken = false
      while (stream.unsafePoll() === null) {
        yield* one.hub.publish({ namespace: b, data: "1" })
        yield* one.catchUp
        yield* pause(5)
      }
      const client = yield* connect(one, ["/"])
      yield* one.hub.publish({ namespace: b, data: "2" })
      yield* one.catchUp
      assert.deepStrictEqual(client.data(), ["2"])
    })
  )
})

const client = fc.nat(3)
const steps = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      _tag: fc.constant("publish" as const),
      node: fc.nat(1),
      paths: fc.array(fc.constantFrom("/", a, b, c, a + "/x", b + "/x"), { minLength: 1, maxLength: 6 })
    })
  },
  { weight: 4, arbitrary: fc.record({ _tag: fc.constant("connect" as const), client, node: fc.nat(1) }) },
  { weight: 4, arbitrary: fc.record({ _tag: fc.constant("leave" as const), client, lost: fc.nat(4) }) },
  {
    weight: 5,
    arbitrary: fc.record({ _tag: fc.constant("read" as const), node: fc.nat(1), shard: fc.nat(2), count: fc.nat(3) })
  },
  { weight: 3, arbitrary: fc.record({ _tag: fc.constant("turn" as const) }) },
  { weight: 1, arbitrary: fc.record({ _tag: fc.constant("wait" as const), millis: fc.constantFrom(5, 20) }) }
)
const lives = fc.record({
  maxPendingBytes: fc.constantFrom(400, 1024 * 1024),
  subscriptions: fc.array(fc.constantFrom(["/"], [a], [a, b], ["/*"], [a + "/x", c], ["/*/x"]), {
    minLength: 4,
    maxLength: 4
  }),
  steps: fc.array(steps, { minLength: 5, maxLength: 60 })
})

const live = ({ maxPendingBytes, steps, subscriptions }: typeof lives extends fc.Arbitrary<infer A> ? A : never) =>
  Effect.gen(function* () {
    const logs = yield* memories({ maxEvents: 100_000 })
    const options = { lingerMillis: 10, maxPendingBytes }
    const nodes = [yield* node(logs, options), yield* node(logs, options)]
    const published: Array<string> = []
    const viewers = subscriptions.map((paths) => ({
      paths,
      connection: undefined as RecordedConnection | undefined,
      lastEventId: undefined as string | undefined,
      from: 0,
      view: [] as Array<string>
    }))
    type Viewer = (typeof viewers)[number]
    const come = (viewer: Viewer, node: Node) =>
      Effect.gen(function* () {
        if (viewer.connection?.endedBy !== undefined) look(viewer, 0)
        if (viewer.connection !== undefined) return
        if (viewer.lastEventId === undefined) {
          viewer.view = []
          viewer.from = published.length
        }
        const connection = new RecordedConnection()
        const [first, ...rest] = patterns(...viewer.paths)
        const start = viewer.lastEventId === undefined ? undefined : after(viewer.lastEventId)
        const request: HubClient.ConnectRequest = { namespaces: [first!, ...rest], connection, start }
        yield* node.hub.connect(request)
        viewer.connection = connection
      })
    const look = (viewer: Viewer, lost: number) => {
      const blocks = viewer.connection === undefined ? [] : blocksOf(viewer.connection.text)
      viewer.connection = undefined
      for (const { data, event, id } of blocks.slice(0, Math.max(0, blocks.length - lost))) {
        if (id !== undefined) viewer.lastEventId = id
        if (data !== undefined) viewer.view.push(event === "message" ? data : event)
      }
    }

    for (const step of steps) {
      switch (step._tag) {
        case "publish":
          yield* nodes[step.node]!.hub.publishAll(
            step.paths.map((namespace) => ({ namespace, data: String(published.push(namespace) - 1) }))
          )
          break
        case "connect":
          yield* come(viewers[step.client]!, nodes[step.node]!)
          break
        case "leave":
          viewers[step.client]!.connection?.close()
          look(viewers[step.client]!, step.lost)
          break
        case "read":
          nodes[step.node]!.views[step.shard]!.release(step.count)
          break
        case "turn":
          yield* turn
          break
        case "wait":
          yield* TestClock.adjust(step.millis)
      }
    }

    const wants = ({ paths }: Viewer) => NamespacePattern.matchesAny(patterns(...paths))
    const expected = (viewer: Viewer, shard: number, from: number) =>
      published.flatMap((path, n) =>
        n >= from && shardOf(path) === shard && wants(viewer)(Namespace.make(path)) ? [String(n)] : []
      )
    const isWhole = (viewer: Viewer) =>
      [0, 1, 2].every((shard) => {
        const last = expected(viewer, shard, viewer.from).at(-1)
        const text = viewer.view.map((data) => `data:${data}\n\n`).join("") + (viewer.connection?.text ?? "")
        return last === undefined || text.includes(`data:${last}\n\n`)
      })
    for (let i = 0; i < 300; i++) {
      for (const { views } of nodes) for (const view of views) view.release(Infinity)
      for (const [i, viewer] of viewers.entries()) yield* come(viewer, nodes[i % 2]!)
      if (viewers.every(isWhole)) break
      yield* i < 20 ? turn : pause(2)
    }
    for (let i = 0; i < 5; i++) yield* turn
    for (const viewer of viewers) {
      assert.isTrue(isWhole(viewer), `${viewer.paths.join()} from ${viewer.from}: ${viewer.view.join()}`)
      look(viewer, 0)
      const told = `${viewer.paths.join()} from ${viewer.from}: ${viewer.view.join()}`
      for (const shard of [0, 1, 2]) {
        const seen = viewer.view.filter((data) => data === "sse-reset" || shardOf(published[Number(data)]!) === shard)
        // Of what was published before it came, some may have been on its way to its node.
        const all = expected(viewer, shard, 0)
        const whole = seen.length === 0 ? [] : all.slice(all.indexOf(seen[0]!))
        assert.deepStrictEqual(seen, whole, told)
        assert.isAtLeast(seen.length, expected(viewer, shard, viewer.from).length, told)
      }
    }
  }).pipe(Effect.scoped)

describe("nodes on a log in shards", () => {
  it.effect.prop(
    "nothing is lost or doubled, and each shard is in order, in 500 random lives",
    [lives],
    ([one]) => live(one),
    {
      timeout: 120_000,
      fastCheck: { numRuns: 500 }
    }
  )
})

/** What every log promises, whatever its engine. To test another one, add it to `engines`. */
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import { EventLog, Namespace, type SseError } from "effect-sse"
import * as RedisLog from "effect-sse/EventLog/Redis"
import { Effect, Exit, Scope } from "effect"
import { MessageChannel } from "node:worker_threads"
import * as RemoteLog from "../src/internal/remote/log.js"
import { channelOf } from "./support/channel.js"
import * as Shards from "../src/internal/shards/shards.js"
import { type RedisServer, redisServer } from "./support/redis.js"
import { eventually } from "./support/server.js"
import { below } from "./support/shards.js"

type Log = EventLog.EventLog["Type"]

interface Options {
  readonly maxEvents?: number
  readonly maxAge?: number
  readonly rules?: ReadonlyArray<{ readonly namespace: string; readonly keep: "events" | "latest" | "nothing" }>
}

/** One log as two nodes have it, and a way to begin its life anew. */
interface Nodes {
  readonly nodes: Effect.Effect<readonly [Log, Log], SseError.EventLogError, Scope.Scope>
  readonly renew: Effect.Effect<unknown>
}

let server: RedisServer
let logs = 0
const scope = Effect.runSync(Scope.make())
beforeAll(async () => {
  server = await Effect.runPromise(Scope.extend(redisServer(), scope))
})
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

const engines: Record<string, (options: Options) => Nodes> = {
  memory: (options) => ({
    nodes: Effect.map(EventLog.makeMemory(options), (log) => [log, log]),
    renew: Effect.sleep("2 millis")
  }),
  "memory in another process": (options) => ({
    nodes: Effect.gen(function* () {
      const log = yield* EventLog.makeMemory(options)
      const load = yield* RemoteLog.makeLoad
      const one = Effect.gen(function* () {
        const { port1, port2 } = yield* Effect.acquireRelease(
          Effect.sync(() => new MessageChannel()),
          ({ port1 }) => Effect.sync(() => port1.close())
        )
        yield* RemoteLog.serve(log, channelOf(port1), load)
        return yield* RemoteLog.connect(channelOf(port2))
      })
      return yield* Effect.all([one, one])
    }),
    renew: Effect.sleep("2 millis")
  }),
  "one shard of several": (options) => ({
    nodes: Effect.gen(function* () {
      const rules = options.rules?.map((rule) => ({ ...rule, namespace: "/x" + rule.namespace }))
      const make = EventLog.makeMemory({ ...options, ...(rules && { rules }) })
      const logs = yield* Effect.all([make, make, make])
      const one = Effect.map(Shards.make(logs, { depth: 1, lingerMillis: 10 }), (log) => below("/x", log))
      return yield* Effect.all([one, one])
    }),
    renew: Effect.sleep("2 millis")
  }),
  redis: (history) => {
    const prefix = `contract-${++logs}`
    const make = Effect.suspend(() => RedisLog.make({ url: server.url, prefix, history }))
    return { nodes: Effect.all([make, make]), renew: Effect.promise(() => server.admin.flushall()) }
  },
  "one shard of several on redis": ({ rules = [], ...bounds }) => {
    const prefix = `contract-${++logs}`
    const history = { ...bounds, rules: rules.map((rule) => ({ ...rule, namespace: "/x" + rule.namespace })) }
    const make = Effect.map(
      Effect.suspend(() => RedisLog.make({ url: server.url, prefix, history, shards: 4 })),
      (log) => below("/x", log)
    )
    return { nodes: Effect.all([make, make]), renew: Effect.promise(() => server.admin.flushall()) }
  }
}

const entry = (namespace: string, data = "x", id?: string): EventLog.NewEntry => ({
  namespace: Namespace.make(namespace),
  event: { namespace, data, id },
  text: `${id === undefined ? "" : `id:${id}\n`}data:${data}\n\n`
})

const dataOf = (entries: ReadonlyArray<EventLog.NewEntry>) => entries.map(({ event }) => event.data)

const after = (id: string): EventLog.Start => ({ _tag: "After", id })

/** Follows a log: what came, and waiting for it. */
const follow = (log: Log) =>
  Effect.gen(function* () {
    const entries: Array<EventLog.LogEntry> = []
    const gaps: Array<EventLog.TailGap> = []
    const begin = yield* log.tail({
      offer: (some) => entries.push(...some),
      gap: (gap) => gaps.push(gap),
      ready: Effect.void
    })
    const until = (count: number) => eventually(Effect.sync(() => entries.length >= count))
    return { entries, gaps, begin, until, here: () => entries.at(-1)?.position ?? begin }
  })

/** A log that is published to on one node and read on the other. */
const make = (engine: (options: Options) => Nodes, options: Options = {}) =>
  Effect.gen(function* () {
    const [writer, reader] = yield* engine(options).nodes
    const tail = yield* follow(reader)
    const history = reader.history!
    let appended = 0
    const append = (entries: ReadonlyArray<EventLog.NewEntry>) =>
      Effect.gen(function* () {
        const positions = yield* writer.append(entries)
        appended += entries.length
        yield* tail.until(appended)
        return positions
      })
    const readAll = (from: string, namespaces: ReadonlyArray<Namespace.Namespace>, upTo = tail.here()) =>
      Effect.gen(function* () {
        const entries: Array<EventLog.LogEntry> = []
        for (let cursor = from; ;) {
          const page = yield* history.read({ after: cursor, upTo, namespaces, maxBytes: 262_144 })
          if (page._tag === "Gap") return page.reason
          entries.push(...page.entries)
          if (page.done) return dataOf(entries)
          assert.notStrictEqual(page.cursor, cursor, "a page goes on")
          cursor = page.cursor
        }
      })
    const since = (start: EventLog.Start, ...paths: ReadonlyArray<string>) => {
      const namespaces = (paths.length === 0 ? ["/"] : paths).map((path) => Namespace.make(path))
      return Effect.flatMap(history.locate(start, tail.here(), namespaces), (found) =>
        typeof found === "string" ? readAll(found, namespaces) : Effect.succeed(found.reason)
      )
    }
    return { append, since, readAll, tail, writer, reader, history }
  })

describe.each(Object.entries(engines))("EventLog on %s", (_, engine) => {
  it.scopedLive("hands all that is appended on any node to every tail, in one order", () =>
    Effect.gen(function* () {
      const [one, other] = yield* engine({}).nodes
      const tails = [yield* follow(one), yield* follow(other)]
      const publish = (log: Log, name: string) =>
        Effect.forEach(
          Array.from({ length: 100 }, (_, i) => i),
          (i) => log.append([0, 1, 2].map((j) => entry("/a", `${name}${i}.${j}`))),
          { concurrency: 10 }
        )
      const positions = yield* Effect.all([publish(one, "a"), publish(other, "b")], { concurrency: 2 })
      yield* Effect.forEach(tails, (tail) => tail.until(600))
      const [first, second] = tails.map(({ entries }) => entries)
      assert.deepStrictEqual(
        first!.map(({ position, text }) => [position, text]),
        second!.map(({ position, text }) => [position, text])
      )
      const place = new Map(first!.map(({ position }, i) => [position, i]))
      assert.strictEqual(place.size, 600, "every event once")
      for (const batch of positions.flat()) {
        const [at] = batch.map((position) => place.get(position)!)
        assert.deepStrictEqual(
          batch.map((position) => place.get(position)),
          [at, at! + 1, at! + 2],
          "a batch is not torn"
        )
      }
      assert.deepStrictEqual(tails[0]!.gaps, [])
    })
  )

  it.scopedLive("has handed out what was appended when it is settled", () =>
    Effect.gen(function* () {
      const [log] = yield* engine({}).nodes
      const tail = yield* Effect.scoped(
        Effect.gen(function* () {
          const tail = yield* follow(log)
          yield* log.append([entry("/a", "1"), entry("/a", "2")])
          yield* log.settled
          assert.strictEqual(tail.entries.length, 2)
          return tail
        })
      )
      yield* log.append([entry("/a", "3")])
      yield* log.settled
      assert.strictEqual(tail.entries.length, 2, "a tail ends with its scope")
      assert.deepStrictEqual(yield* log.health, { status: "ok" })
    })
  )

  it.scopedLive("gives back text and event as they were, with the position or the publisher's id", () =>
    Effect.gen(function* () {
      const log = yield* make(engine, { rules: [{ namespace: "/typing", keep: "nothing" }] })
      const event = { namespace: "/a/ü", data: " a: b\n\nc\n ", event: "say", id: "own", retry: 10 }
      const [first] = yield* log.append([
        entry("/a/%25/é", "1"),
        {
          namespace: Namespace.make("/a/ü"),
          event,
          text: "id:own\nretry:10\nevent:say\ndata:  a: b\ndata:\ndata:c\ndata:  \n\n"
        },
        entry("/typing/7", "3")
      ])
      const { entries } = log.tail
      assert.deepStrictEqual(
        entries.map(({ text }) => text),
        [
          `id:${first}\ndata:1\n\n`,
          "id:own\nretry:10\nevent:say\ndata:  a: b\ndata:\ndata:c\ndata:  \n\n",
          "data:3\n\n"
        ]
      )
      assert.deepStrictEqual(entries[1]!.event, event)
      assert.deepStrictEqual(
        entries.map(({ namespace }) => namespace as string),
        ["/a/%25/é", "/a/ü", "/typing/7"]
      )
      for (const { position } of entries) assert.match(position, /^[\x21-\x7e]{1,128}$/)
    })
  )

  it.scopedLive("gives what came behind a position, of the namespaces asked for", () =>
    Effect.gen(function* () {
      const log = yield* make(engine, { rules: [{ namespace: "/typing", keep: "nothing" }] })
      const positions = yield* log.append(
        ["/a", "/b", "/a/c", "/typing", "/ab", "/a"].map((ns, i) => entry(ns, String(i)))
      )
      assert.deepStrictEqual(yield* log.since(after(positions[1]!), "/a"), ["2", "5"])
      assert.deepStrictEqual(yield* log.since(after(positions[0]!)), ["1", "2", "4", "5"])
      assert.deepStrictEqual(yield* log.since(after(positions[2]!), "/b", "/a/c", "/ab"), ["4"])
      assert.deepStrictEqual(yield* log.since(after(positions[5]!)), [])
      assert.deepStrictEqual(yield* log.since(after(log.tail.begin)), ["0", "1", "2", "4", "5"])
      assert.deepStrictEqual(yield* log.readAll(positions[0]!, [Namespace.root], positions[2]!), ["1", "2"])
      assert.deepStrictEqual(
        yield* log.history.read({
          after: positions[4]!,
          upTo: positions[1]!,
          namespaces: [Namespace.root],
          maxBytes: 262_144
        }),
        { _tag: "Page", entries: [], cursor: positions[4]!, done: true },
        "a client may be ahead of this node"
      )
    })
  )

  it.scopedLive("reads in pages, of bounded size, up to exactly where it was to go", () =>
    Effect.gen(function* () {
      const log = yield* make(engine, { maxEvents: 20_000 })
      const all: Array<string> = []
      for (let i = 0; i < 10; i++) {
        yield* log.append(Array.from({ length: 1000 }, (_, j) => entry("/a", String(i * 1000 + j))))
      }
      for (let i = 0; i < 10_000; i++) all.push(String(i))
      assert.deepStrictEqual(yield* log.since({ _tag: "Earliest" }), all)
      const fresh = yield* make(engine)
      yield* fresh.append(Array.from({ length: 6 }, (_, i) => entry("/a", String(i).repeat(100_000))))
      const page = yield* fresh.history.read({
        after: fresh.tail.begin,
        upTo: fresh.tail.here(),
        namespaces: [Namespace.root],
        maxBytes: 262_144
      })
      if (page._tag === "Gap") return assert.fail(page.reason)
      assert.isFalse(page.done)
      assert.isBelow(page.entries.length, 6)
    })
  )

  it.scopedLive("tells unknown positions and those of another life", () =>
    Effect.gen(function* () {
      const { nodes, renew } = engine({})
      const [old] = yield* Effect.scoped(Effect.flatMap(nodes, ([log]) => log.append([entry("/a"), entry("/a")])))
      yield* renew
      const [log] = yield* nodes
      const tail = yield* follow(log)
      yield* log.append([entry("/a")])
      const locate = (id: string) =>
        Effect.map(log.history!.locate(after(id), tail.here(), [Namespace.root]), (found) =>
          typeof found === "string" ? found : found.reason
        )
      assert.strictEqual(yield* locate(old!), "restarted")
      const [epoch] = (yield* log.append([entry("/a")]))[0]!.split("-")
      for (const id of ["", "x", `${epoch}-zz`, `${epoch}-zz-0`, `${epoch}--1`, `${epoch}-1.5`, "ü", "x".repeat(200)]) {
        assert.strictEqual(yield* locate(id), "unknown", id)
      }
    })
  )

  it.scopedLive("resumes by a publisher's own ids", () =>
    Effect.gen(function* () {
      const log = yield* make(engine, { rules: [{ namespace: "/typing", keep: "nothing" }] })
      yield* log.append([entry("/a", "1", "one"), entry("/a", "2", "two"), entry("/a", "3", "two"), entry("/a", "4")])
      assert.deepStrictEqual(yield* log.since(after("one")), ["2", "3", "4"])
      assert.strictEqual(yield* log.since(after("two")), "unknown", "it may be either")
      yield* log.append([entry("/typing", "5", "three")])
      assert.strictEqual(yield* log.since(after("three")), "unknown")
    })
  )

  it.scopedLive("begins at the oldest, so many events back, or so long back", () =>
    Effect.gen(function* () {
      const log = yield* make(engine)
      assert.deepStrictEqual(yield* log.since({ _tag: "Earliest" }), [])
      assert.deepStrictEqual(yield* log.since({ _tag: "Last", events: 3 }), [])
      assert.deepStrictEqual(yield* log.since({ _tag: "Within", millis: 1000 }), [])
      yield* log.append(["/a", "/b", "/a"].map((ns, i) => entry(ns, String(i))))
      yield* Effect.sleep("300 millis")
      yield* log.append(["/b", "/a"].map((ns, i) => entry(ns, String(i + 3))))
      const back = (start: EventLog.Start, ...paths: Array<string>) => log.since(start, ...paths)
      assert.deepStrictEqual(yield* back({ _tag: "Earliest" }), ["0", "1", "2", "3", "4"])
      assert.deepStrictEqual(yield* back({ _tag: "Last", events: 2 }), ["3", "4"])
      assert.deepStrictEqual(yield* back({ _tag: "Last", events: 2 }, "/a"), ["2", "4"])
      assert.deepStrictEqual(yield* back({ _tag: "Last", events: 99 }, "/b"), ["1", "3"])
      assert.deepStrictEqual(yield* back({ _tag: "Last", events: 0 }), [])
      assert.deepStrictEqual(yield* back({ _tag: "Within", millis: 250 }, "/b"), ["3"])
      assert.deepStrictEqual(yield* back({ _tag: "Within", millis: 1e9 }), ["0", "1", "2", "3", "4"])
    })
  )

  it.scopedLive("is bounded in events, and says what is gone", () =>
    Effect.gen(function* () {
      const log = yield* make(engine, { maxEvents: 300 })
      const [first] = yield* log.append([entry("/a", "first", "own")])
      for (let i = 0; i < 20; i++) yield* log.append(Array.from({ length: 100 }, () => entry("/a")))
      assert.strictEqual(yield* log.since(after(first!)), "expired")
      assert.notDeepEqual(yield* log.since(after("own")), [])
      assert.isAtMost(yield* log.reader.size, 500)
      const kept = yield* log.since({ _tag: "Earliest" })
      assert.isAtLeast(kept.length, 300)
      assert.isAtMost(kept.length, 500)
      const gap = yield* log.history.locate(after(first!), log.tail.here(), [Namespace.root])
      if (typeof gap === "string") return assert.fail(gap)
      const behindOldest = yield* log.since(after(gap.oldest!))
      assert.strictEqual(behindOldest.length, kept.length - 1)
      assert.strictEqual(
        yield* log.readAll(first!, [Namespace.root]),
        "expired",
        "one that reads too slowly is told, too"
      )
    })
  )

  it.scopedLive("is bounded by age, and who has seen all is up to date however long that is ago", () =>
    Effect.gen(function* () {
      const log = yield* make(engine, { maxAge: 100 })
      const [first, last] = yield* log.append([entry("/a", "1"), entry("/a", "2")])
      yield* eventually(Effect.map(log.reader.size, (size) => size === 0))
      assert.strictEqual(yield* log.since(after(first!)), "expired")
      assert.deepStrictEqual(yield* log.since(after(last!)), [])
      yield* log.append([entry("/a", "3")])
      assert.deepStrictEqual(yield* log.since(after(last!)), ["3"])
    })
  )

  it.scopedLive("keeps the latest value of a namespace, as of a position", () =>
    Effect.gen(function* () {
      const log = yield* make(engine, { rules: [{ namespace: "/prices", keep: "latest" }] })
      const say = (namespace: string, data: string) => Effect.map(log.append([entry(namespace, data)]), ([one]) => one!)
      const start = yield* say("/other", "0")
      yield* say("/prices/eur", "1")
      yield* say("/prices/usd", "2")
      yield* say("/other", "3")
      const end = yield* say("/prices/eur", "4")
      assert.isTrue(log.history.hasLatest)
      const values = (upTo: string, path: string) =>
        Effect.map(log.history.latest(upTo, [Namespace.make(path)]), dataOf)
      assert.deepStrictEqual(yield* values(end, "/"), ["2", "4"])
      assert.deepStrictEqual(yield* values(end, "/prices/usd"), ["2"])
      assert.deepStrictEqual(yield* values(end, "/other"), [])
      assert.deepStrictEqual(yield* values(start, "/"), [], "they are newer")
      assert.include(String(yield* log.since(after(start))), "2,3,4")
    })
  )
})

import { assert, describe, it } from "@effect/vitest"
import { EventLog, Namespace } from "effect-sse"
import { Effect, FastCheck as fc, TestClock } from "effect"

const entry = (namespace: string, data = "x", id?: string): EventLog.NewEntry => ({
  namespace: Namespace.make(namespace),
  event: { namespace, data, id },
  text: `${id === undefined ? "" : `id:${id}\n`}data:${data}\n\n`
})

const dataOf = (entries: ReadonlyArray<EventLog.NewEntry>) => entries.map(({ event }) => event.data)

const root = [Namespace.root]
const after = (id: string): EventLog.Start => ({ _tag: "After", id })

/** A log, and what is behind a start: the data up to the end of the log, or the reason of a gap. */
const make = (options?: EventLog.HistoryOptions | boolean) =>
  Effect.gen(function* () {
    const log = yield* EventLog.makeMemory(options)
    let last = yield* log.tail({
      offer: (entries) => (last = entries.at(-1)!.position),
      gap: () => {},
      ready: Effect.void
    })
    const { history } = log
    const readAll = (cursor: string, namespaces: ReadonlyArray<Namespace.Namespace>) =>
      Effect.gen(function* () {
        const entries: Array<EventLog.LogEntry> = []
        for (let from = cursor; ;) {
          const page = yield* history!.read({ after: from, upTo: last, namespaces, maxBytes: 64 * 1024 })
          if (page._tag === "Gap") return page.reason
          entries.push(...page.entries)
          if (page.done) return dataOf(entries)
          from = page.cursor
        }
      })
    const since = (start: EventLog.Start, paths: ReadonlyArray<string> = ["/"]) => {
      const namespaces = paths.map((path) => Namespace.make(path))
      return Effect.flatMap(history!.locate(start, last, namespaces), (found) =>
        typeof found === "string" ? readAll(found, namespaces) : Effect.succeed(found.reason)
      )
    }
    return { ...log, since, here: () => last }
  })

describe("EventLog.layerMemory", () => {
  it.scoped("gives consecutive places and hands entries to every tail in order", () =>
    Effect.gen(function* () {
      const log = yield* EventLog.makeMemory()
      const first: Array<EventLog.LogEntry> = []
      const second: Array<EventLog.LogEntry> = []
      const begin = yield* log.tail({ offer: (entries) => first.push(...entries), gap: () => {}, ready: Effect.void })
      const one = yield* log.append([entry("/a", "1"), entry("/b", "2")])
      yield* Effect.scoped(
        Effect.zipRight(
          log.tail({ offer: (entries) => second.push(...entries), gap: () => {}, ready: Effect.void }),
          log.append([entry("/a", "3")])
        )
      )
      const two = yield* log.append([entry("/a", "4")])
      assert.deepStrictEqual(dataOf(first), ["1", "2", "3", "4"])
      assert.deepStrictEqual(dataOf(second), ["3"], "a tail ends with its scope")
      assert.deepStrictEqual(
        [begin, ...one, ...two].map((position) => position.split("-")[1]),
        ["0", "1", "2", "4"]
      )
      assert.deepStrictEqual(first.map(({ position }) => position).slice(0, 2), one)
    })
  )

  it.scoped("keeps nothing unless asked to, and then events carry no ids", () =>
    Effect.gen(function* () {
      const log = yield* EventLog.makeMemory()
      assert.isUndefined(log.history)
      const texts: Array<string> = []
      yield* log.tail({
        offer: (entries) => texts.push(...entries.map(({ text }) => text)),
        gap: () => {},
        ready: Effect.void
      })
      yield* log.append([entry("/a", "1"), entry("/a", "2", "own")])
      assert.deepStrictEqual(texts, ["data:1\n\n", "id:own\ndata:2\n\n"])
      assert.strictEqual(yield* log.size, 0)
    })
  )

  it.scoped("puts the position, or the publisher's id, on every event it keeps", () =>
    Effect.gen(function* () {
      const log = yield* EventLog.makeMemory({ rules: [{ namespace: "/typing", keep: "nothing" }] })
      const texts: Array<string> = []
      yield* log.tail({
        offer: (entries) => texts.push(...entries.map(({ text }) => text)),
        gap: () => {},
        ready: Effect.void
      })
      const [first] = yield* log.append([entry("/a", "1"), entry("/a", "2", "own"), entry("/typing/7", "3", "no")])
      assert.deepStrictEqual(texts, [`id:${first}\ndata:1\n\n`, "id:own\ndata:2\n\n", "data:3\n\n"])
      assert.match(first!, /^[0-9A-Za-z]{4}-1$/)
      assert.strictEqual(yield* log.size, 2)
    })
  )

  it.scoped("gives what came behind a position, of the namespaces asked for", () =>
    Effect.gen(function* () {
      const log = yield* make({ maxEvents: 4 })
      const positions = yield* log.append(["/a", "/b", "/a/c", "/ab", "/a"].map((ns, i) => entry(ns, String(i))))
      assert.deepStrictEqual(yield* log.since(after(positions[1]!), ["/a"]), ["2", "4"])
      assert.deepStrictEqual(yield* log.since(after(positions[0]!)), ["1", "2", "3", "4"])
      assert.deepStrictEqual(yield* log.since(after(positions[2]!), ["/b", "/a/c", "/ab"]), ["3"])
      yield* log.append([entry("/a", "5")])
      assert.deepStrictEqual(yield* log.history!.locate(after(positions[0]!), log.here(), root), {
        _tag: "Gap",
        reason: "expired",
        oldest: positions[2]!
      })
      assert.deepStrictEqual(
        yield* log.since(after(positions[0]!), ["/a/c"]),
        ["2"],
        "what was dropped would not have been for it"
      )
    })
  )

  it.scoped("reads in pages that end at the same places for all", () =>
    Effect.gen(function* () {
      const log = yield* make(true)
      yield* log.append(Array.from({ length: 9000 }, (_, i) => entry("/a", String(i + 1))))
      const cursors: Array<string> = []
      const sizes: Array<number> = []
      let from = log.here().replace(/-.*/, "-" + (100).toString(36))
      for (;;) {
        const page = yield* log.history!.read({ after: from, upTo: log.here(), namespaces: root, maxBytes: 1e6 })
        if (page._tag === "Gap") return assert.fail(page.reason)
        from = page.cursor
        cursors.push(from.split("-")[1]!)
        sizes.push(page.entries.length)
        if (page.done) break
      }
      assert.deepStrictEqual(cursors, [(4096).toString(36), (8192).toString(36), (9000).toString(36)])
      assert.deepStrictEqual(sizes, [3996, 4096, 808])
      const large = yield* make({ maxBytes: 1e9 })
      const [first] = yield* large.append(Array.from({ length: 4 }, () => entry("/a", "x".repeat(200_000))))
      const page = yield* large.history!.read({
        after: first!,
        upTo: large.here(),
        namespaces: root,
        maxBytes: 500_000
      })
      assert.strictEqual(page._tag === "Page" ? page.entries.length : 0, 2, "a page is bounded in bytes too")
    })
  )

  it.scoped("tells unknown positions and those of another life", () =>
    Effect.gen(function* () {
      const before = yield* make(true)
      const [old] = yield* before.append([entry("/a")])
      yield* TestClock.adjust("1 millis")
      const log = yield* make(true)
      const [current] = yield* log.append([entry("/a")])
      const [epoch] = current!.split("-")
      assert.strictEqual(yield* log.since(after(old!)), "restarted")
      for (const position of ["", "x", `${epoch}-2`, `${epoch}--1`, `${epoch}-01`, `${epoch}-1.5`, `${epoch}-`]) {
        assert.strictEqual(yield* log.since(after(position)), "unknown", position)
      }
      assert.deepStrictEqual(yield* log.since(after(`${epoch}-0`)), ["x"])
    })
  )

  it.scoped("resumes by a publisher's own ids, as long as they are kept", () =>
    Effect.gen(function* () {
      const log = yield* make({ maxEvents: 3, rules: [{ namespace: "/fleeting", keep: "nothing" }] })
      const say = (namespace: string, data: string, id?: string) => log.append([entry(namespace, data, id)])
      yield* say("/a", "a1", "1")
      yield* say("/a", "a2", "2")
      yield* say("/a", "a3")
      assert.deepStrictEqual(yield* log.since(after("1")), ["a2", "a3"])
      // Another publisher counts as well.
      yield* say("/b", "b1", "1")
      assert.deepStrictEqual(yield* log.since(after("1"), ["/a"]), ["a2", "a3"], "each in its own namespace")
      assert.deepStrictEqual(yield* log.since(after("1"), ["/b"]), [])
      assert.strictEqual(yield* log.since(after("1")), "unknown", "it may be either")
      assert.deepStrictEqual(yield* log.since(after("2"), ["/b"]), ["b1"], "of what it listened to before")
      for (let i = 0; i < 3; i++) yield* say("/c", String(i))
      assert.deepStrictEqual(yield* log.since(after("1"), ["/b"]), [], "it is dropped, and nothing was missed")
      assert.strictEqual(yield* log.since(after("1"), ["/a"]), "expired")
      yield* say("/b", "again", "1")
      assert.strictEqual(yield* log.since(after("1"), ["/b"]), "unknown", "twice in one namespace")
      const [, position] = yield* log.append([entry("/a", "4"), entry("/a", "5")])
      yield* say("/a", "6", position)
      yield* say("/a", "7")
      assert.deepStrictEqual(yield* log.since(after(position!)), ["7"], "one that looks like a position")
      yield* say("/fleeting", "x", "gone")
      assert.strictEqual(yield* log.since(after("gone")), "unknown")
    })
  )

  it.scoped("begins at the oldest, so many events back, or so long back", () =>
    Effect.gen(function* () {
      const log = yield* make({ maxEvents: 4 })
      assert.deepStrictEqual(yield* log.since({ _tag: "Earliest" }), [])
      for (const [i, namespace] of ["/a", "/b", "/a", "/b", "/a"].entries()) {
        yield* log.append([entry(namespace, String(i))])
        yield* TestClock.adjust("1 second")
      }
      const back = (start: EventLog.Start, ...paths: Array<string>) => log.since(start, paths)
      assert.deepStrictEqual(yield* back({ _tag: "Earliest" }, "/"), ["1", "2", "3", "4"])
      assert.deepStrictEqual(yield* back({ _tag: "Last", events: 2 }, "/"), ["3", "4"])
      assert.deepStrictEqual(yield* back({ _tag: "Last", events: 2 }, "/a"), ["2", "4"])
      assert.deepStrictEqual(yield* back({ _tag: "Last", events: 99 }, "/b"), ["1", "3"])
      assert.deepStrictEqual(yield* back({ _tag: "Last", events: 0 }, "/"), [])
      assert.deepStrictEqual(yield* back({ _tag: "Within", millis: 2000 }, "/"), ["3", "4"])
      assert.deepStrictEqual(yield* back({ _tag: "Within", millis: 1500 }, "/b"), [])
      assert.deepStrictEqual(yield* back({ _tag: "Within", millis: 1e9 }, "/"), ["1", "2", "3", "4"])
    })
  )

  it.scoped("is bounded by bytes and by age", () =>
    Effect.gen(function* () {
      const log = yield* make({ maxBytes: 200, maxAge: "1 minute" })
      const [big] = yield* log.append([entry("/a", "x".repeat(500))])
      assert.strictEqual(yield* log.size, 0, "one that is larger than all is not kept")
      yield* log.append(Array.from({ length: 10 }, (_, i) => entry("/a", "y".repeat(20) + i)))
      assert.strictEqual(yield* log.size, 5)
      assert.strictEqual(yield* log.since(after(big!)), "expired")
      const position = log.here()
      yield* TestClock.adjust("61 seconds")
      assert.strictEqual(yield* log.size, 0, "without any append")
      assert.deepStrictEqual(yield* log.since(after(position)), [])
      yield* log.append([entry("/a", "new")])
      assert.deepStrictEqual(yield* log.since(after(position)), ["new"])
    })
  )

  it.scoped("keeps by rules: the first that covers a namespace holds", () =>
    Effect.gen(function* () {
      const log = yield* make({
        maxEvents: 100,
        maxAge: "1 hour",
        rules: [
          { namespace: "/rooms/*/typing", keep: "nothing" },
          { namespace: "/rooms", keep: "events", maxEvents: 2 },
          { namespace: "/prices", keep: "latest", maxEvents: 2 }
        ]
      })
      const [start] = yield* log.append([entry("/other", "0")])
      const say = (namespace: string, data: string) => log.append([entry(namespace, data)])
      yield* say("/rooms/1", "1")
      yield* say("/rooms/1/typing", "2")
      yield* say("/rooms/2", "3")
      yield* say("/prices/eur", "4")
      yield* say("/prices/usd", "5")
      yield* say("/prices/eur", "6")
      assert.deepStrictEqual(yield* log.since(after(start!)), ["1", "3", "5", "6"], "in one order, values compacted")
      assert.deepStrictEqual(yield* log.since(after(start!), ["/rooms"]), ["1", "3"])
      const [fourth] = yield* say("/rooms/3", "7")
      assert.strictEqual(yield* log.since(after(start!)), "expired")
      assert.deepStrictEqual(yield* log.since(after(start!), ["/prices", "/other"]), ["5", "6"])
      const values = (upTo: string, path: string) =>
        Effect.map(log.history!.latest(upTo, [Namespace.make(path)]), dataOf)
      assert.deepStrictEqual(yield* values(fourth!, "/"), ["5", "6"])
      assert.deepStrictEqual(yield* values(fourth!, "/prices/usd"), ["5"])
      assert.deepStrictEqual(yield* values(start!, "/"), [], "they are newer")
      yield* say("/prices/yen", "8")
      assert.deepStrictEqual(yield* values(log.here(), "/"), ["6", "8"])
      assert.strictEqual(yield* log.since(after(start!), ["/prices/usd"]), "expired")
      yield* TestClock.adjust("2 hours")
      assert.deepStrictEqual(yield* values(log.here(), "/"), ["6", "8"], "values hold")
      assert.strictEqual(yield* log.size, 2)
    })
  )

  it.scoped("compacts values that change often", () =>
    Effect.gen(function* () {
      const log = yield* make({ rules: [{ namespace: "/v", keep: "latest" }] })
      const [start] = yield* log.append([entry("/x", "start")])
      for (let i = 0; i < 5000; i++) yield* log.append([entry(`/v/${i % 7}`, String(i))])
      assert.strictEqual(yield* log.size, 8)
      assert.deepStrictEqual(
        yield* log.since(after(start!)),
        Array.from({ length: 7 }, (_, i) => String(4993 + i))
      )
    })
  )

  it("refuses bounds and patterns that make no sense", () => {
    for (const options of [{ maxEvents: 0 }, { maxBytes: -1 }, { maxEvents: Number.NaN }]) {
      assert.throws(() => Effect.runSync(EventLog.makeMemory(options)), /must be at least 1/)
    }
    assert.throws(
      () => Effect.runSync(EventLog.makeMemory({ rules: [{ namespace: "rooms", keep: "latest" }] })),
      /invalid namespace/
    )
  })

  it.scoped("remembers what it dropped of thousands of namespaces, or says that it does not know", () =>
    Effect.gen(function* () {
      const log = yield* make({ maxEvents: 1 })
      const [start] = yield* log.append([entry("/start")])
      for (let i = 0; i < 10_000; i++) yield* log.append([entry(`/n/${i}`)])
      assert.strictEqual(yield* log.since(after(start!), ["/other"]), "expired", "too long ago to know")
      const recent = log.here()
      for (let i = 0; i < 1000; i++) yield* log.append([entry(`/m/${i}`)])
      assert.deepStrictEqual(yield* log.since(after(recent), ["/other"]), [])
      assert.strictEqual(yield* log.since(after(recent), ["/m/5"]), "expired")
    })
  )

  it.scoped.prop(
    "agrees with a list",
    [fc.integer({ min: 1, max: 6 }), fc.array(fc.constantFrom("/a", "/b", "/a/c"), { maxLength: 20 }), fc.nat(20)],
    ([maxEvents, namespaces, back]) =>
      Effect.gen(function* () {
        const log = yield* make({ maxEvents })
        const all: Array<{ position: string; namespace: string; data: string }> = []
        for (const namespace of namespaces) {
          const data = String(all.length)
          const [position] = yield* log.append([entry(namespace, data)])
          all.push({ position: position!, namespace, data })
        }
        const asked = all[all.length - 1 - back]
        if (asked === undefined) return
        const missed = all.slice(all.length - back).filter(({ namespace }) => namespace.startsWith("/a"))
        const dropped = all.slice(0, Math.max(0, all.length - maxEvents))
        assert.deepStrictEqual(
          yield* log.since(after(asked.position), ["/a"]),
          missed.some((event) => dropped.includes(event)) ? "expired" : missed.map(({ data }) => data)
        )
      })
  )
})

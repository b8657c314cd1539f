import { assert, describe, it } from "@effect/vitest"
import { type Connection, EventLog, Namespace, SseConfig, SseError, SseHub, SseLayer } from "effect-sse"
import { Chunk, ConfigProvider, Deferred, Effect, Exit, Fiber, Layer, Schedule, Stream, TestClock } from "effect"
import { eventually } from "./support/server.js"

const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes)

/** A connection whose network takes bytes only when told to. */
class FakeConnection implements Connection.Connection {
  readonly keepsItselfAlive = false
  readonly written: Array<string> = []
  endedBy: Connection.EndReason | undefined
  pending = 0
  stuck = false
  private listener: ((reason: "client-closed" | "shutdown") => void) | undefined
  readonly write = (frame: Connection.Frame) => {
    this.written.push(text(frame.bytes))
    if (this.stuck) this.pending += frame.bytes.length
    return frame.bytes.length
  }
  readonly pendingBytes = () => this.pending
  readonly end = (reason: Connection.EndReason) => void (this.endedBy = reason)
  readonly onClose = (listener: (reason: "client-closed" | "shutdown") => void) => void (this.listener = listener)
  /** The client goes away. */
  close() {
    this.listener?.("client-closed")
  }
  /** The server behind the connection wants to close. */
  serverCloses() {
    this.listener?.("shutdown")
  }
  get body() {
    return this.written.join("")
  }
}

const connect = (...paths: [string, ...Array<string>]) =>
  Effect.gen(function* () {
    const hub = yield* SseHub.SseHub
    const connection = new FakeConnection()
    const [first, ...rest] = paths
    const namespaces = [Namespace.make(first), ...rest.map(Namespace.make)] as const
    const { id } = yield* hub.connect({ namespaces, connection, address: "192.0.2.1" })
    return Object.assign(connection, { id })
  })

/** Publishes and waits until it has been handed out. */
const publish = (namespace: string, data: string) =>
  Effect.gen(function* () {
    const hub = yield* SseHub.SseHub
    yield* hub.publish({ namespace, data })
    const seen = new FakeConnection()
    yield* hub.connect({ namespaces: [Namespace.make("/flush")], connection: seen })
    yield* hub.publish({ namespace: "/flush", data: "x" })
    yield* eventually(Effect.sync(() => seen.body.includes("data:x")))
    seen.close()
    yield* eventually(
      Effect.map(hub.clients, (clients) => clients.every(({ namespaces }) => namespaces[0] !== "/flush"))
    )
  })

describe("SseHub", () => {
  it.scoped("gives an event to its namespace and to all above, in publish order", () =>
    Effect.gen(function* () {
      const hub = yield* SseHub.SseHub
      const [all, pets, dogs, store] = yield* Effect.all([
        connect("/"),
        connect("/pets"),
        connect("/pets/dogs"),
        connect("/petstore")
      ])
      yield* hub.publish({ namespace: "/pets/dogs", event: "new-dog", data: "Corgi" })
      yield* hub.publish({ namespace: "/pets/cats", data: "Persian" })
      yield* hub.publish({ namespace: "/pets", data: "any" })
      yield* publish("/petstore", "sale")
      const [dog, cat, any, sale] = [
        "event:new-dog\ndata:Corgi\n\n",
        "data:Persian\n\n",
        "data:any\n\n",
        "data:sale\n\n"
      ]
      assert.strictEqual(dogs.body, ":ok\n\n" + dog)
      assert.strictEqual(pets.body, ":ok\n\n" + dog + cat + any)
      assert.strictEqual(store.body, ":ok\n\n" + sale)
      assert.strictEqual(all.body, ":ok\n\n" + dog + cat + any + sale + "data:x\n\n")
    }).pipe(Effect.provide(SseLayer))
  )

  it.scoped("gives a client of several namespaces each event once", () =>
    Effect.gen(function* () {
      const client = yield* connect("/pets/dogs", "/time", "/pets", "/pets")
      yield* publish("/pets/dogs", "Corgi")
      yield* publish("/time", "noon")
      yield* publish("/other", "no")
      assert.strictEqual(client.body, ":ok\n\ndata:Corgi\n\ndata:noon\n\n")
      const [status] = yield* (yield* SseHub.SseHub).clients
      assert.deepStrictEqual<ReadonlyArray<string> | undefined>(status?.namespaces, ["/pets", "/time"])
      assert.strictEqual(status?.events, 2)
    }).pipe(Effect.provide(SseLayer))
  )

  it.scoped("joins what waits into one write for each client", () =>
    Effect.gen(function* () {
      const hub = yield* SseHub.SseHub
      const client = yield* connect("/")
      const positions = yield* hub.publishAll(["a", "b", "c"].map((data) => ({ namespace: "/x", data })))
      assert.strictEqual(new Set(positions).size, 3)
      yield* eventually(Effect.sync(() => client.body.includes("data:c")))
      assert.deepStrictEqual(client.written, [":ok\n\n", "data:a\n\ndata:b\n\ndata:c\n\n"])
    }).pipe(Effect.provide(SseLayer))
  )

  it.scoped("publishes a batch whole or not at all", () =>
    Effect.gen(function* () {
      const hub = yield* SseHub.SseHub
      const client = yield* connect("/")
      const error = yield* Effect.flip(
        hub.publishAll([
          { namespace: "/a", data: "1" },
          { namespace: "/a", data: "2", id: "no spaces" }
        ])
      )
      assert.strictEqual(error._tag, "InvalidEvent")
      assert.deepInclude(error, { field: "id", index: 1 })
      const bad = yield* Effect.flip(hub.publish({ namespace: "a//b", data: "1" }))
      assert.deepInclude(bad, { _tag: "InvalidEvent", field: "namespace", index: 0 })
      yield* publish("/flushed", "end")
      assert.strictEqual(client.body, ":ok\n\ndata:end\n\ndata:x\n\n")
      assert.strictEqual((yield* hub.status).published, 2)
    }).pipe(Effect.provide(SseLayer))
  )

  it.scoped("keeps the order of many publishers, the same for all", () =>
    Effect.gen(function* () {
      const hub = yield* SseHub.SseHub
      const [one, two] = yield* Effect.all([connect("/"), connect("/n")])
      yield* Effect.forEach(
        Array.from({ length: 50 }, (_, publisher) => publisher),
        (publisher) =>
          Effect.forEach(
            Array.from({ length: 200 }, (_, i) => i),
            (i) => hub.publish({ namespace: "/n", data: `${publisher}.${i}` }),
            { discard: true }
          ),
        { concurrency: "unbounded", discard: true }
      )
      yield* eventually(Effect.map(hub.clients, (clients) => clients.every(({ events }) => events === 10_000)))
      assert.strictEqual(one.body, two.body)
      const last = new Map<string, number>()
      for (const [, publisher, i] of one.body.matchAll(/data:(\d+)\.(\d+)/g)) {
        assert.strictEqual(Number(i), (last.get(publisher!) ?? -1) + 1)
        last.set(publisher!, Number(i))
      }
      assert.strictEqual(last.size, 50)
    }).pipe(Effect.provide(SseLayer))
  )

  it.scoped("gives 40,000 events published at once, more than may wait, to a client", () =>
    Effect.gen(function* () {
      const hub = yield* SseHub.SseHub
      const client = yield* connect("/")
      const batch = Array.from({ length: 20_000 }, (_, i) => ({ namespace: "/n", data: String(i) }))
      yield* hub.publishAll(batch)
      yield* hub.publishAll(batch)
      yield* eventually(Effect.map(hub.clients, ([status]) => status?.events === 40_000))
      assert.strictEqual(client.body, ":ok\n\n" + [...batch, ...batch].map(({ data }) => `data:${data}\n\n`).join(""))
    }).pipe(Effect.provide(SseLayer))
  )

  it.scoped("flushes: what was published is written, and who ended is gone", () =>
    Effect.gen(function* () {
      const hub = yield* SseHub.SseHub
      const [one, two] = yield* Effect.all([connect("/"), connect("/n")])
      // More than a round takes, and than one turn of the event loop hands out.
      const batch = Array.from({ length: 20_000 }, (_, i) => ({ namespace: "/n", data: String(i) }))
      yield* hub.publishAll(batch)
      assert.notInclude(two.body, "data:19999\n")
      yield* hub.flush
      assert.isTrue(one.body.endsWith("data:19999\n\n"))
      assert.strictEqual(two.body, one.body)
      one.close()
      assert.lengthOf(yield* hub.clients, 2)
      yield* hub.flush
      assert.deepStrictEqual(
        (yield* hub.clients).map(({ id }) => id),
        [two.id]
      )
      yield* hub.shutdown
      yield* hub.flush
    }).pipe(Effect.provide(SseLayer))
  )

  describe("in-process", () => {
    it.scoped("subscribes to a Stream", () =>
      Effect.gen(function* () {
        const hub = yield* SseHub.SseHub
        const fiber = yield* Effect.fork(Stream.runCollect(Stream.take(hub.subscribe("/pets"), 2)))
        yield* eventually(Effect.map(hub.status, (status) => status.subscriptions === 1))
        assert.strictEqual((yield* hub.status).clients, 0, "it is no client")
        yield* hub.publish({ namespace: "/time", data: "noon" })
        yield* hub.publish({ namespace: "/pets/dogs/", event: "new-dog", data: "Corgi" })
        yield* hub.publish({ namespace: "/pets", data: new TextEncoder().encode("any") })
        const events = Chunk.toReadonlyArray(yield* Fiber.join(fiber))
        assert.deepStrictEqual(events, [
          { namespace: "/pets/dogs", event: "new-dog", data: "Corgi" },
          { namespace: "/pets", data: new TextEncoder().encode("any") }
        ])
        yield* eventually(Effect.map(hub.status, (status) => status.subscriptions === 0))
      }).pipe(Effect.provide(SseLayer))
    )

    it.scoped("fails a subscriber that lets too much wait, and nobody else", () =>
      Effect.gen(function* () {
        const hub = yield* SseHub.SseHub
        const client = yield* connect("/")
        const release = yield* Deferred.make<void>()
        const seen: Array<string> = []
        const fiber = yield* Effect.fork(
          Stream.runForEach(hub.subscribe("/n"), (event) =>
            Effect.zipRight(
              Deferred.await(release),
              Effect.sync(() => seen.push(String(event.data)))
            )
          )
        )
        yield* eventually(Effect.map(hub.status, (status) => status.subscriptions === 2))
        const batch = (n: number) =>
          hub.publishAll(Array.from({ length: n }, (_, i) => ({ namespace: "/n", data: `${i}` })))
        yield* batch(5)
        yield* eventually(Effect.sync(() => client.body.includes("data:4\n")))
        yield* batch(10)
        yield* eventually(Effect.sync(() => client.body.includes("data:9\n")))
        yield* Deferred.succeed(release, void 0)
        const exit = yield* Fiber.await(fiber)
        assert.isTrue(Exit.isFailure(exit) && JSON.stringify(exit).includes("SubscriberTooSlow"))
        assert.isAtMost(seen.length, 15)
        assert.strictEqual(client.endedBy, undefined)
      }).pipe(Effect.provide(SseHub.layer({ maxPendingEvents: 8 })))
    )

    it.scoped("refuses a bad namespace", () =>
      Effect.gen(function* () {
        const hub = yield* SseHub.SseHub
        const error = yield* Effect.flip(Stream.runDrain(hub.subscribe("pets")))
        assert.strictEqual(error._tag, "InvalidNamespace")
      }).pipe(Effect.provide(SseLayer))
    )

    it.scoped("publishes a Stream through the sink", () =>
      Effect.gen(function* () {
        const hub = yield* SseHub.SseHub
        const client = yield* connect("/n")
        const count = yield* Stream.range(1, 10_000).pipe(
          Stream.map((i) => ({ namespace: "/n", data: String(i) })),
          Stream.run(hub.sink)
        )
        assert.strictEqual(count, 10_000)
        yield* eventually(Effect.sync(() => client.body.endsWith("data:10000\n\n")))
      }).pipe(Effect.provide(SseLayer))
    )
  })

  describe("keepalive", () => {
    it.scoped("writes a comment every 15 seconds by default", () =>
      Effect.gen(function* () {
        const client = yield* connect("/")
        yield* TestClock.adjust("14 seconds")
        assert.strictEqual(client.body, ":ok\n\n")
        yield* TestClock.adjust("1 second")
        assert.strictEqual(client.body, ":ok\n\n:keepalive\n\n")
        yield* TestClock.adjust("30 seconds")
        assert.strictEqual(client.body, ":ok\n\n" + ":keepalive\n\n".repeat(3))
      }).pipe(Effect.provide(SseLayer))
    )

    it.scoped("spreads clients that come at different times, none later than the interval", () =>
      Effect.gen(function* () {
        yield* TestClock.adjust("7 seconds")
        const client = yield* connect("/")
        yield* TestClock.adjust("14400 millis")
        assert.strictEqual(client.body, ":ok\n\n")
        yield* TestClock.adjust("600 millis")
        assert.strictEqual(client.body, ":ok\n\n:keepalive\n\n")
      }).pipe(Effect.provide(SseLayer))
    )

    it.scoped("follows any schedule, counted from the connect, and stops with the client", () =>
      Effect.gen(function* () {
        yield* TestClock.adjust("1 second")
        const client = yield* connect("/")
        yield* TestClock.adjust("2 seconds")
        assert.strictEqual(client.body, ":ok\n\n:keepalive\n\n")
        yield* TestClock.adjust("4 seconds")
        assert.strictEqual(client.body, ":ok\n\n:keepalive\n\n:keepalive\n\n")
        client.close()
        yield* TestClock.adjust("1 minute")
        assert.strictEqual(client.written.length, 3)
      }).pipe(Effect.provide(SseHub.layer({ keepalive: Schedule.exponential("2 seconds") })))
    )

    it.scoped("can be off", () =>
      Effect.gen(function* () {
        const client = yield* connect("/")
        yield* TestClock.adjust("1 minute")
        assert.strictEqual(client.body, ":ok\n\n")
      }).pipe(Effect.provide(SseHub.layer({ keepalive: false })))
    )
  })

  describe("slow clients", () => {
    it.scoped("ends one with too much waiting; the others get everything", () =>
      Effect.gen(function* () {
        const hub = yield* SseHub.SseHub
        const [slow, ...others] = yield* Effect.replicateEffect(connect("/n"), 10)
        slow!.stuck = true
        for (let i = 0; i < 20; i++) yield* publish("/n", "x".repeat(100))
        assert.strictEqual(slow!.endedBy, "pending-overflow")
        assert.isBelow(slow!.written.length, 15)
        for (const other of others) assert.strictEqual(other.body.split("x".repeat(100)).length, 21)
        const status = yield* hub.status
        assert.strictEqual(status.ended["pending-overflow"], 1)
        assert.strictEqual(status.clients, 9)
      }).pipe(Effect.provide(SseHub.layer({ maxPendingBytes: 1000 })))
    )

    it.scoped("ends one that makes no progress for the stall timeout", () =>
      Effect.gen(function* () {
        const hub = yield* SseHub.SseHub
        const client = yield* connect("/")
        client.stuck = true
        yield* publish("/n", "stays")
        yield* TestClock.adjust("29 seconds")
        assert.strictEqual(client.endedBy, undefined)
        yield* TestClock.adjust("2 seconds")
        assert.strictEqual(client.endedBy, "stalled")
        yield* eventually(Effect.map(hub.status, ({ clients, ended }) => clients === 0 && ended.stalled === 1))
      }).pipe(Effect.provide(SseHub.layer({ keepalive: false })))
    )

    it.scoped("keeps one that takes its bytes in time, however much goes on waiting", () =>
      Effect.gen(function* () {
        const client = yield* connect("/")
        client.stuck = true
        for (let i = 0; i < 10; i++) {
          yield* publish("/n", "more")
          // All but the last event has been taken by now.
          client.pending = 12
          yield* TestClock.adjust("15 seconds")
        }
        assert.strictEqual(client.endedBy, undefined)
      }).pipe(Effect.provide(SseHub.layer({ keepalive: false })))
    )
  })

  describe("clients", () => {
    it.scoped("are listed, disconnected and forgotten", () =>
      Effect.gen(function* () {
        const hub = yield* SseHub.SseHub
        const one = yield* connect("/a")
        yield* TestClock.adjust("1 second")
        const two = yield* connect("/b")
        assert.deepStrictEqual(
          (yield* hub.clients).map(({ id, connectedAt, address }) => ({ id, connectedAt, address })),
          [
            { id: one.id, connectedAt: 0, address: "192.0.2.1" },
            { id: two.id, connectedAt: 1000, address: "192.0.2.1" }
          ]
        )
        assert.isTrue(yield* hub.disconnect(one.id))
        assert.strictEqual(one.endedBy, "disconnected")
        two.close()
        yield* eventually(Effect.map(hub.clients, (clients) => clients.length === 0))
        assert.isFalse(yield* hub.disconnect(one.id))
        const { ended, subscriptions } = yield* hub.status
        assert.deepInclude(ended, { disconnected: 1, "client-closed": 1 })
        assert.strictEqual(subscriptions, 0)
      }).pipe(Effect.provide(SseLayer))
    )

    it.scoped("presence: who is there, then who comes and goes, with nobody missed or told twice", () =>
      Effect.gen(function* () {
        const hub = yield* SseHub.SseHub
        yield* connect("/")
        yield* connect("/rooms")
        const one = yield* connect("/rooms/1")
        const deep = yield* connect("/rooms/1/desk")
        yield* connect("/rooms/12")
        const fiber = yield* Effect.fork(Stream.runCollect(hub.presence("/rooms/1")))
        // Clients come and go around the moment in which the stream begins.
        for (let i = 0; i < 50; i++) {
          const client = yield* connect("/rooms/1")
          if (i % 2 === 0) client.close()
          yield* Effect.yieldNow()
        }
        yield* eventually(Effect.map(hub.clients, (clients) => clients.length === 30))
        one.close()
        deep.close()
        yield* eventually(Effect.map(hub.clients, (clients) => clients.length === 28))
        yield* hub.shutdown
        const seen = Chunk.toReadonlyArray(yield* Fiber.join(fiber))
        const there = new Set<number>()
        for (const presence of seen) {
          if (presence._tag === "Joined") {
            assert.isFalse(there.has(presence.client.id))
            there.add(presence.client.id)
          } else {
            assert.isTrue(there.delete(presence.client.id))
          }
        }
        assert.strictEqual(there.size, 0)
        assert.deepInclude(seen[0], { _tag: "Joined", wasThere: true })
        const reasons = seen.flatMap((presence) => (presence._tag === "Left" ? [presence.reason] : []))
        assert.isAtLeast(reasons.filter((reason) => reason === "client-closed").length, 2)
        assert.strictEqual(reasons.filter((reason) => reason === "shutdown").length, 25)
      }).pipe(Effect.provide(SseLayer))
    )

    it.scoped("presence: refuses what is no namespace, and fails for a consumer that is too slow", () =>
      Effect.gen(function* () {
        const hub = yield* SseHub.SseHub
        assert.strictEqual((yield* Effect.flip(Stream.runDrain(hub.presence("x"))))._tag, "InvalidNamespace")
        const reached = yield* Deferred.make<void>()
        const go = yield* Deferred.make<void>()
        yield* connect("/a")
        const fiber = yield* hub.presence("/a").pipe(
          Stream.rechunk(1),
          Stream.tap(() => Effect.zipRight(Deferred.succeed(reached, undefined), Deferred.await(go))),
          Stream.runDrain,
          Effect.flip,
          Effect.fork
        )
        yield* Deferred.await(reached)
        for (let i = 0; i < 10; i++) yield* connect("/a")
        yield* Deferred.succeed(go, undefined)
        assert.deepInclude(yield* Fiber.join(fiber), { _tag: "SubscriberTooSlow", limit: 4 })
      }).pipe(Effect.provide(SseHub.layer({ maxPendingEvents: 4 })))
    )

    it.scoped("tell of their coming and going", () =>
      Effect.gen(function* () {
        const hub = yield* SseHub.SseHub
        const fiber = yield* Effect.fork(Stream.runCollect(yield* hub.changes))
        const one = yield* connect("/a")
        yield* TestClock.adjust("1500 millis")
        one.close()
        yield* eventually(Effect.map(hub.clients, (clients) => clients.length === 0))
        yield* connect("/b")
        yield* hub.shutdown
        const changes = Chunk.toReadonlyArray(yield* Fiber.join(fiber))
        assert.deepStrictEqual(
          changes.map((change) => [change._tag, change.client.namespaces[0], "reason" in change ? change.reason : ""]),
          [
            ["Connected", "/a", ""],
            ["Disconnected", "/a", "client-closed"],
            ["Connected", "/b", ""],
            ["Disconnected", "/b", "shutdown"]
          ]
        )
        assert.strictEqual(changes[1]!.client.connectedAt + 1500, (changes[1] as { endedAt?: number }).endedAt)
      }).pipe(Effect.provide(SseLayer))
    )
  })

  it.scoped("refuses an event that no client could be given, and gives a large one to those with nothing waiting", () =>
    Effect.gen(function* () {
      const hub = yield* SseHub.SseHub
      const client = yield* connect("/n")
      client.stuck = true
      client.pending = 0
      const error = yield* Effect.flip(hub.publish({ namespace: "/n", data: "\n".repeat(400) }))
      assert.deepInclude(error, { _tag: "InvalidEvent", field: "data" })
      yield* publish("/n", "x".repeat(1000))
      assert.strictEqual(client.endedBy, undefined)
      yield* publish("/n", "x")
      assert.strictEqual(client.endedBy, "pending-overflow")
    }).pipe(Effect.provide(SseHub.layer({ maxPendingBytes: 1000 })))
  )

  it.scoped("gives the event loop turns while it takes a large batch", () =>
    Effect.gen(function* () {
      const hub = yield* SseHub.SseHub
      let turns = 0
      const count = (): NodeJS.Immediate => setImmediate(() => (turns++, (immediate = count())))
      let immediate = count()
      const slowly = function* () {
        for (let i = 0; i < 200; i++) {
          for (const until = performance.now() + 0.5; performance.now() < until;);
          yield { namespace: "/n", data: "x" }
        }
      }
      yield* hub.publishAll(slowly())
      clearImmediate(immediate)
      // Sixteen at a time take longer than the loop is held.
      assert.isAtLeast(turns, 12)
    }).pipe(Effect.provide(SseLayer))
  )

  it("refuses options that make no sense", () => {
    for (const options of [
      { maxPendingBytes: 0 },
      { maxPendingBytes: Number.NaN },
      { stallTimeout: 0 },
      { stallTimeout: Infinity },
      { maxPendingEvents: -1 },
      { maxNamespaceBytes: 0 },
      { keepalive: "1 millis" },
      { shutdownRetry: ["5 seconds", "1 second"] },
      { shutdownRetry: [0, "1 second"] },
      { drainWindow: "13 days" }
    ] satisfies ReadonlyArray<SseConfig.HubOptions>) {
      assert.throws(() => SseConfig.hubSettings(options), /must be/, JSON.stringify(options))
    }
  })

  describe("shutdown", () => {
    it.effect("is waited for by whoever calls it again", () =>
      Effect.gen(function* () {
        const connection = yield* Effect.scoped(
          Effect.gen(function* () {
            const hub = yield* SseHub.SseHub
            const client = yield* connect("/")
            yield* hub.publishAll(Array.from({ length: 20_000 }, (_, i) => ({ namespace: "/n", data: `${i}` })))
            const first = yield* Effect.forkDaemon(hub.shutdown)
            yield* Effect.yieldNow()
            yield* hub.shutdown
            assert.strictEqual(client.endedBy, "shutdown")
            assert.include(client.body, "data:19999\n")
            yield* Fiber.join(first)
            return client
          }).pipe(Effect.provide(SseLayer))
        )
        assert.strictEqual(connection.endedBy, "shutdown")
      })
    )

    it.effect("lets nobody in behind it, whenever they come", () =>
      Effect.forEach(
        Array.from({ length: 30 }, (_, yields) => yields),
        (yields) =>
          Effect.gen(function* () {
            const hub = yield* SseHub.SseHub
            const late = new FakeConnection()
            yield* connect("/")
            const connecting = Effect.yieldNow().pipe(
              Effect.repeatN(yields),
              Effect.zipRight(hub.connect({ namespaces: [Namespace.root], connection: late })),
              Effect.exit
            )
            const [exit] = yield* Effect.all([connecting, hub.shutdown], { concurrency: "unbounded" })
            assert.strictEqual(Exit.isSuccess(exit), late.endedBy === "shutdown")
            assert.deepStrictEqual(yield* hub.clients, [])
            const changes = yield* hub.changes
            assert.strictEqual((yield* Stream.runCollect(changes)).length, 0, "changes have ended")
          }).pipe(Effect.provide(SseHub.layer()), Effect.scoped),
        { discard: true }
      )
    )

    it.scoped("of the server alone ends its connections with a goodbye", () =>
      Effect.gen(function* () {
        const hub = yield* SseHub.SseHub
        const [one, other] = yield* Effect.all([connect("/"), connect("/")])
        one.serverCloses()
        assert.match(one.body, /^:ok\n\nretry:[1-5]\d{3}\n\n$/)
        assert.strictEqual(one.endedBy, "shutdown")
        yield* eventually(Effect.map(hub.clients, (clients) => clients.length === 1))
        assert.strictEqual(other.endedBy, undefined)
      }).pipe(Effect.provide(SseLayer))
    )

    it.effect("delivers what was taken, says when to come back, and refuses the rest", () =>
      Effect.gen(function* () {
        const [client, hub, stream] = yield* Effect.scoped(
          Effect.gen(function* () {
            const hub = yield* SseHub.SseHub
            const client = yield* connect("/")
            const stream = yield* Effect.forkDaemon(Stream.runCollect(hub.subscribe("/n")))
            yield* eventually(Effect.map(hub.status, (status) => status.subscriptions === 2))
            yield* hub.publish({ namespace: "/n", data: "last" })
            return [client, hub, stream] as const
          }).pipe(Effect.provide(SseLayer))
        )
        assert.match(client.body, /^:ok\n\ndata:last\n\nretry:[1-5]\d{3}\n\n$/)
        assert.strictEqual(client.endedBy, "shutdown")
        assert.strictEqual((yield* Fiber.join(stream)).length, 1)
        assert.strictEqual((yield* Effect.flip(hub.publish({ namespace: "/n", data: "x" })))._tag, "HubClosed")
        const late = new FakeConnection()
        const refused = yield* Effect.flip(hub.connect({ namespaces: [Namespace.root], connection: late }))
        assert.strictEqual(refused._tag, "HubClosed")
        assert.deepStrictEqual(late.written, [])
        assert.strictEqual((yield* Effect.flip(Stream.runDrain(hub.subscribe("/"))))._tag, "HubClosed")
        assert.isFalse((yield* hub.status).open)
      })
    )

    it.effect("does not interrupt a publisher", () =>
      Effect.gen(function* () {
        const publisher = yield* Effect.scoped(
          Effect.gen(function* () {
            const hub = yield* SseHub.SseHub
            const fiber = yield* Effect.forkDaemon(Effect.forever(hub.publish({ namespace: "/n", data: "x" })))
            yield* eventually(Effect.map(hub.status, (status) => status.published > 1000))
            return fiber
          }).pipe(Effect.provide(SseLayer))
        )
        assert.strictEqual((yield* Effect.flip(Fiber.join(publisher)))._tag, "HubClosed")
      })
    )
  })

  it.scoped("forgets 2,000 clients that came and went", () =>
    Effect.gen(function* () {
      const hub = yield* SseHub.SseHub
      for (let round = 0; round < 10; round++) {
        const clients = yield* Effect.forEach(
          Array.from({ length: 200 }, (_, i) => i),
          (i) => connect(`/n/${i % 7}/${i}`)
        )
        for (const client of clients) client.close()
      }
      yield* eventually(Effect.map(hub.clients, (clients) => clients.length === 0))
      assert.deepInclude(yield* hub.status, { clients: 0, subscriptions: 0 })
    }).pipe(Effect.provide(SseLayer))
  )

  it.scoped("goes on after a connection that throws", () =>
    Effect.gen(function* () {
      const hub = yield* SseHub.SseHub
      const broken = yield* connect("/n")
      const healthy = yield* connect("/n")
      Object.assign(broken, {
        write: () => {
          throw new Error("broken connection")
        }
      })
      yield* hub.publish({ namespace: "/n", data: "1" })
      yield* hub.publish({ namespace: "/n", data: "2" })
      yield* eventually(Effect.sync(() => healthy.body.includes("data:2")))
      assert.strictEqual(healthy.body, ":ok\n\ndata:1\n\ndata:2\n\n")
      yield* eventually(Effect.map(hub.status, ({ clients, ended }) => clients === 1 && ended.failed === 1))
    }).pipe(Effect.provide(SseLayer))
  )

  it.scoped("does nothing while nobody is connected: a TestClock that is moved by a year wakes no fiber", () =>
    Effect.gen(function* () {
      const hub = yield* SseHub.SseHub
      assert.deepStrictEqual(yield* TestClock.sleeps(), Chunk.empty())
      const client = yield* connect("/a")
      yield* eventually(Effect.map(TestClock.sleeps(), (sleeps) => sleeps.length === 1))
      client.close()
      yield* eventually(Effect.map(hub.clients, (clients) => clients.length === 0))
      yield* TestClock.adjust("365 days")
      assert.deepStrictEqual(yield* TestClock.sleeps(), Chunk.empty())
    }).pipe(Effect.provide(SseLayer))
  )

  it.scoped("runs on any log, and fails typed when the log does", () =>
    Effect.gen(function* () {
      const hub = yield* SseHub.SseHub
      const error = yield* Effect.flip(hub.publish({ namespace: "/n", data: "x" }))
      assert.strictEqual(error._tag, "EventLogError")
    }).pipe(
      Effect.provide(
        SseHub.layerWithLog().pipe(
          Layer.provide(
            Layer.succeed(EventLog.EventLog, {
              append: () => Effect.fail(new SseError.EventLogError({ operation: "append", reason: "down" })),
              tail: () => Effect.succeed("0"),
              history: undefined,
              size: Effect.succeed(0),
              health: Effect.succeed({ status: "degraded" as const, reason: "down", since: 0 }),
              settled: Effect.void
            })
          )
        )
      )
    )
  )

  it.scoped("tells every client, in order with the events, when its log could not go on", () => {
    const tails: Array<EventLog.Tail> = []
    return Effect.gen(function* () {
      const log = yield* EventLog.EventLog
      const [pets, all] = [yield* connect("/pets"), yield* connect("/")]
      const append = (namespace: string, data: string) =>
        log.append([{ namespace: Namespace.make(namespace), event: { namespace, data }, text: `data:${data}\n\n` }])
      yield* append("/pets", "1")
      for (const tail of tails) tail.gap({ reason: "restarted", position: "later-0" })
      yield* append("/other", "2")
      yield* append("/pets", "3")
      const before = '{"reason":"restarted","requested":"'
      const behind = '","oldest":null}\n\nid:later-0\n\n'
      const reset = `event:sse-reset\ndata:${before}`
      yield* eventually(Effect.sync(() => [pets, all].every(({ body }) => body.includes("data:3"))))
      const [petsText, allText] = [pets.body, all.body]
      assert.match(petsText, /data:1\n\nevent:sse-reset\n[^]*data:3\n\n$/)
      assert.include(petsText, reset)
      assert.include(petsText, behind)
      assert.isBelow(allText.indexOf(reset), allText.indexOf("data:2"))
      assert.strictEqual(allText.split(reset).length, 2, "once")
    }).pipe(
      Effect.provide(
        Layer.provideMerge(
          SseHub.layerWithLog(),
          Layer.effect(
            EventLog.EventLog,
            Effect.map(EventLog.makeMemory(), (log) => ({
              ...log,
              tail: (tail) => {
                tails.push(tail)
                return log.tail(tail)
              }
            }))
          )
        )
      )
    )
  })

  it.effect("is configured by the environment", () =>
    Effect.gen(function* () {
      const read = (...entries: ReadonlyArray<[string, string]>) =>
        SseConfig.hubFromEnv.pipe(Effect.withConfigProvider(ConfigProvider.fromMap(new Map(entries))))
      const set = SseConfig.hubSettings(
        yield* read(["SSE_KEEPALIVE", "off"], ["SSE_MAX_PENDING_BYTES", "5"], ["SSE_STALL_TIMEOUT", "2 seconds"])
      )
      assert.deepInclude(set, { keepalive: false, maxPendingBytes: 5, stallMillis: 2000 })
      assert.deepInclude(SseConfig.hubSettings(yield* read()), { maxPendingBytes: 1_048_576, stallMillis: 30_000 })
      assert.deepStrictEqual(
        SseConfig.hubSettings(yield* read(["SSE_SHUTDOWN_RETRY", "500 millis to 3 seconds"])).shutdownRetryMillis,
        [500, 3000]
      )
      assert.isUndefined(SseConfig.hubSettings(yield* read(["SSE_SHUTDOWN_RETRY", "off"])).shutdownRetryMillis)
      for (const [name, value] of [
        ["SSE_SHUTDOWN_RETRY", "1 second"],
        ["SSE_SHUTDOWN_RETRY", "3 seconds to 2 seconds"],
        ["SSE_SHUTDOWN_RETRY", "0 seconds to 2 seconds"],
        ["SSE_KEEPALIVE", "soon"],
        ["SSE_KEEPALIVE", "0 seconds"],
        ["SSE_MAX_PENDING_BYTES", "0"],
        ["SSE_STALL_TIMEOUT", "x"]
      ] as const) {
        assert.include(String(yield* Effect.flip(read([name, value]))), name)
      }
    })
  )
})

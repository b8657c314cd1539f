import { assert, describe, it } from "@effect/vitest"
import { Namespace, SseEvent, SseHub, SseTest, SseTracing } from "effect-sse"
import { Effect, Either, FastCheck as fc, Fiber, Layer, Option, Schedule, Stream, TestClock } from "effect"

const publish = (namespace: string, data: string, event?: string) =>
  Effect.flatMap(SseHub.SseHub, (hub) => hub.publish({ namespace, data, event }))

describe("SseTest", () => {
  it.scoped("records what a browser would dispatch, and the wire as it is", () =>
    Effect.gen(function* () {
      const client = yield* SseTest.connect("/pets")
      const hub = yield* SseHub.SseHub
      assert.deepStrictEqual(yield* client.events, [])
      yield* publish("/pets/dogs", "Corgi", "new-dog")
      yield* publish("/time", "noon")
      yield* hub.publish({ namespace: "/pets", data: "a\r\nb", id: "7", retry: 50 })
      yield* publish("/pets", "")
      assert.deepStrictEqual(yield* client.events, [
        { event: "new-dog", data: "Corgi" },
        { event: "message", data: "a\nb", id: "7" },
        { event: "message", data: "", id: "7" }
      ])
      assert.strictEqual(
        yield* client.text,
        ":ok\n\nevent:new-dog\ndata:Corgi\n\nid:7\nretry:50\ndata:a\ndata:b\n\ndata:\n\n"
      )
      assert.strictEqual(yield* client.lastEventId, "7")
      assert.strictEqual(yield* client.retry, 50)
      assert.isUndefined(yield* client.ended)
    }).pipe(Effect.provide(SseTest.layer()))
  )

  it.scoped("takes each event once, waiting for those to come", () =>
    Effect.gen(function* () {
      const client = yield* SseTest.connect(["/pets/dogs", "/time"])
      yield* publish("/time", "1")
      yield* Effect.fork(publish("/time", "3").pipe(Effect.delay("1 hour")))
      assert.deepStrictEqual(yield* client.takeEvents(1), [{ event: "message", data: "1" }])
      const next = yield* Effect.fork(client.takeEvents(2))
      yield* publish("/time", "2")
      yield* TestClock.adjust("59 minutes")
      assert.isTrue(Option.isNone(yield* Fiber.poll(next)))
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(
        (yield* Fiber.join(next)).map(({ data }) => data),
        ["2", "3"]
      )
      assert.lengthOf(yield* client.events, 3)
    }).pipe(Effect.provide(SseTest.layer()))
  )

  it.scoped("fails to take events of a client that ended, and gives those that came before", () =>
    Effect.gen(function* () {
      const hub = yield* SseHub.SseHub
      const client = yield* SseTest.connect("/n")
      yield* hub.publishAll(["1", "2", "3"].map((data) => ({ namespace: "/n", data })))
      yield* SseTest.settled
      yield* hub.disconnect(client.id)
      assert.strictEqual(yield* client.awaitEnd, "disconnected")
      assert.lengthOf(yield* client.takeEvents(2), 2)
      const error = yield* Effect.flip(client.takeEvents(2))
      assert.deepInclude(error, {
        _tag: "NoSuchElementException",
        message: "the client ended (disconnected) before it got 2 more events"
      })
    }).pipe(Effect.provide(SseTest.layer()))
  )

  it.scoped("follows what a program does upon an event, until nothing is left", () =>
    Effect.gen(function* () {
      const hub = yield* SseHub.SseHub
      const client = yield* SseTest.connect("/")
      // Counts down, each step upon the one before.
      yield* hub.subscribe("/down").pipe(
        Stream.map(({ data }) => Number(data) - 1),
        Stream.takeWhile((n) => n >= 0),
        Stream.runForEach((n) => publish("/down", String(n))),
        Effect.fork
      )
      yield* SseTest.settled
      yield* publish("/down", "50")
      assert.deepStrictEqual(
        (yield* client.events).map(({ data }) => data),
        Array.from({ length: 51 }, (_, i) => String(50 - i))
      )
    }).pipe(Effect.provide(SseTest.layer()))
  )

  it.scoped("is settled when clients that went away are gone from the hub", () =>
    Effect.gen(function* () {
      const hub = yield* SseHub.SseHub
      const clients = yield* Effect.replicateEffect(SseTest.connect("/a", { address: "192.0.2.1" }), 3)
      yield* clients[0]!.disconnect
      assert.deepStrictEqual(
        (yield* hub.clients).map(({ id }) => id),
        clients.slice(1).map(({ id }) => id)
      )
      assert.strictEqual(yield* clients[0]!.ended, "client-closed")
      yield* hub.disconnect(clients[1]!.id)
      yield* SseTest.settled
      assert.lengthOf(yield* hub.clients, 1)
      yield* Effect.scoped(SseTest.connect("/b"))
      yield* SseTest.settled
      assert.lengthOf(yield* hub.clients, 1, "a client goes away with its scope")
      yield* clients[0]!.disconnect
      assert.strictEqual((yield* hub.status).ended["client-closed"], 2)
    }).pipe(Effect.provide(SseTest.layer()))
  )

  it.scoped("passes on what the client says of itself", () =>
    Effect.gen(function* () {
      const hub = yield* SseHub.SseHub
      const { id } = yield* SseTest.connect("/pets/dogs/", {
        address: "192.0.2.1",
        requestPath: "/subscribe/pets/dogs/",
        userAgent: "test",
        principal: { id: "ann", metadata: { user: 7 } }
      })
      assert.deepInclude((yield* hub.clients)[0], {
        id,
        namespaces: [Namespace.make("/pets/dogs")],
        address: "192.0.2.1",
        requestPath: "/subscribe/pets/dogs/",
        userAgent: "test",
        principal: "ann",
        metadata: { user: 7 }
      })
    }).pipe(Effect.provide(SseTest.layer()))
  )

  it.scoped("is refused as any client is", () =>
    Effect.gen(function* () {
      assert.strictEqual((yield* Effect.flip(SseTest.connect("/a//b")))._tag, "InvalidNamespace")
      assert.strictEqual((yield* Effect.flip(SseTest.connect("/12345678")))._tag, "InvalidNamespace")
      yield* SseTest.connect("/a")
      assert.strictEqual((yield* Effect.flip(SseTest.connect("/a")))._tag, "LimitReached")
      yield* (yield* SseHub.SseHub).shutdown
      assert.strictEqual((yield* Effect.flip(SseTest.connect("/a")))._tag, "HubClosed")
    }).pipe(Effect.provide(SseTest.layer({ maxClients: 1, maxNamespaceBytes: 8 })))
  )

  it.scoped("is told when to come back at shutdown, and gets what was published before", () =>
    Effect.gen(function* () {
      const hub = yield* SseHub.SseHub
      const [client, slow] = yield* Effect.all([SseTest.connect("/"), SseTest.connect("/", { reading: false })])
      yield* publish("/n", "last")
      yield* hub.shutdown
      assert.match(yield* client.text, /^:ok\n\ndata:last\n\nretry:10\d\d\n\n$/)
      assert.approximately((yield* client.retry) ?? 0, 1050, 50)
      assert.strictEqual(yield* client.ended, "shutdown")
      assert.strictEqual(yield* slow.text, "")
      yield* slow.startReading
      assert.deepStrictEqual(yield* slow.takeEvents(1), [{ event: "message", data: "last" }])
      assert.match(yield* slow.text, /^:ok\n\ndata:last\n\nretry:10\d\d\n\n$/)
    }).pipe(Effect.provide(SseTest.layer()))
  )

  it.scoped("is silent unless keepalives are asked for", () =>
    Effect.gen(function* () {
      const client = yield* SseTest.connect("/")
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(yield* client.text, ":ok\n\n")
      const kept = yield* Effect.gen(function* () {
        const client = yield* SseTest.connect("/")
        yield* TestClock.adjust("2 minutes")
        return yield* client.text
      }).pipe(Effect.provide(SseTest.layer({ keepalive: Schedule.spaced("1 minute") })))
      assert.strictEqual(kept, ":ok\n\n:keepalive\n\n:keepalive\n\n")
    }).pipe(Effect.provide(SseTest.layer()))
  )

  describe("a client that does not read", () => {
    it.scoped("is ended for what waits, and disturbs nobody", () =>
      Effect.gen(function* () {
        const [slow, other] = yield* Effect.all([SseTest.connect("/"), SseTest.connect("/")])
        yield* publish("/n", "seen")
        yield* slow.stopReading
        for (let i = 0; i < 12; i++) {
          yield* publish("/n", "x".repeat(100))
          // Each in a round of its own.
          yield* SseTest.settled
        }
        assert.strictEqual(yield* slow.ended, "pending-overflow")
        assert.deepStrictEqual(yield* slow.events, [{ event: "message", data: "seen" }])
        assert.lengthOf(yield* other.events, 13)
        yield* slow.startReading
        assert.lengthOf(yield* slow.events, 1, "what waited was thrown away")
      }).pipe(Effect.provide(SseTest.layer({ maxPendingBytes: 1000 })))
    )

    it.scoped("is ended when anything waits too long, and stays while nothing does", () =>
      Effect.gen(function* () {
        const [stuck, behind] = yield* Effect.all([SseTest.connect("/"), SseTest.connect("/")])
        yield* stuck.stopReading
        yield* behind.stopReading
        const size = "data:12345\n\n".length
        yield* publish("/n", "12345")
        for (let i = 0; i < 10; i++) {
          yield* SseTest.settled
          yield* publish("/n", "12345")
          yield* TestClock.adjust("10 seconds")
          assert.strictEqual(yield* behind.read(size), size)
        }
        assert.strictEqual(yield* stuck.ended, "stalled")
        assert.isUndefined(yield* behind.ended)
        assert.strictEqual(yield* behind.pendingBytes, size)
        assert.lengthOf(yield* behind.events, 10)
        yield* behind.startReading
        assert.lengthOf(yield* behind.events, 11)
        assert.strictEqual(yield* behind.read(5), 0)
      }).pipe(Effect.provide(SseTest.layer()))
    )
  })

  it.scoped("works with any hub", () =>
    Effect.gen(function* () {
      const client = yield* SseTest.connect("/")
      yield* publish("/n", "traced")
      assert.lengthOf(yield* client.events, 1)
    }).pipe(Effect.provide(SseTracing.layer.pipe(Layer.provide(SseHub.layer()))))
  )

  it.effect.prop(
    "reads back any event, in pieces of any size",
    [
      fc.array(
        fc.record({
          event: fc.constantFrom("message", "a", " b:c"),
          data: fc.string({ unit: "binary" }).filter((text) => text.isWellFormed()),
          id: fc.constantFrom(undefined, "7", "8")
        }),
        { maxLength: 5 }
      ),
      fc.integer({ min: 1, max: 40 })
    ],
    ([events, size]) =>
      Effect.gen(function* () {
        const hub = yield* SseHub.SseHub
        const client = yield* SseTest.connect("/", { reading: false })
        yield* hub.publishAll(events.map((event): SseEvent.SseEvent => ({ namespace: "/n", ...event })))
        while ((yield* client.read(size)) > 0);
        let id: string | undefined
        assert.deepStrictEqual(
          yield* client.events,
          events.map((event) => {
            id = event.id ?? id
            const data = event.data.replace(/\r\n|\r/g, "\n")
            return { event: event.event, data, ...(id === undefined ? {} : { id }) }
          })
        )
        const wire = events.map((event) => Either.getOrThrow(SseEvent.encode({ namespace: "/n", ...event }))).join("")
        assert.strictEqual(yield* client.text, ":ok\n\n" + wire)
      }).pipe(Effect.scoped, Effect.provide(SseTest.layer()))
  )
})

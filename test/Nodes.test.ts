/** Hubs that know each other, on every bus there is. To test another one, add it to `engines`. */
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import { EventLog, NodeBus, Nodes, SseHub, SseTest } from "effect-sse"
import * as RedisBus from "effect-sse/NodeBus/Redis"
import { Chunk, Context, Effect, Exit, FastCheck as fc, Fiber, Layer, Logger, Scope, Stream } from "effect"
import { MessageChannel, type MessagePort } from "node:worker_threads"
import * as RemoteBus from "../src/internal/remote/bus.js"
import type { Channel } from "../src/internal/remote/log.js"
import { type RedisServer, redisServer } from "./support/redis.js"
import { eventually } from "./support/server.js"

let server: RedisServer
let prefixes = 0
const scope = Effect.runSync(Scope.make())
beforeAll(async () => {
  server = await Effect.runPromise(Scope.extend(redisServer(), scope))
})
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

const fast: NodeBus.NodeOptions = { reportEvery: 30, expireAfter: 500, answerTimeout: 300 }

const channelOf = (port: MessagePort): Channel<RemoteBus.Message> => ({
  send: (message) => port.postMessage(message),
  listen: (listener) => {
    port.on("message", listener)
    return () => void port.off("message", listener)
  }
})

/** Makes, for each test, what makes the bus of one node. */
const engines: Record<string, () => Effect.Effect<(name: string) => Effect.Effect<NodeBus.Bus, never, Scope.Scope>>> = {
  memory: () => Effect.map(NodeBus.makeMemory(fast), (bus) => (name) => Effect.succeed({ ...bus, name })),
  "memory in another process": () =>
    Effect.map(
      NodeBus.makeMemory(fast),
      (bus) => (name) =>
        Effect.gen(function* () {
          const { port1, port2 } = yield* Effect.acquireRelease(
            Effect.sync(() => new MessageChannel()),
            ({ port1 }) => Effect.sync(() => port1.close())
          )
          yield* RemoteBus.serve(bus, channelOf(port1))
          return RemoteBus.connect(channelOf(port2), { ...bus, name })
        })
    ),
  Redis: () =>
    Effect.sync(() => {
      const prefix = `nodes${prefixes++}`
      return (name) => RedisBus.make({ ...fast, url: server.url, prefix, name, answerTimeout: 300 })
    })
}

/** A hub on a bus, in a scope of its own. */
const hubOn = (bus: Effect.Effect<NodeBus.Bus, never, Scope.Scope>) =>
  Effect.gen(function* () {
    const own = yield* Effect.acquireRelease(Scope.make(), (own) => Scope.close(own, Exit.void))
    const made = yield* Scope.extend(bus, own)
    const layer = SseHub.layerWithLog(SseTest.defaults).pipe(
      Layer.provide(Layer.effect(EventLog.EventLog, EventLog.makeMemory())),
      Layer.provide(Layer.succeed(NodeBus.NodeBus, made))
    )
    const hub = Context.get(yield* Layer.buildWithScope(layer, own), SseHub.SseHub)
    const connect = (path: string, options?: SseTest.ConnectOptions) =>
      Effect.provideService(SseTest.connect(path, options), SseHub.SseHub, hub)
    return { hub, nodes: hub.nodes, connect, stop: Scope.close(own, Exit.void) }
  })

const quiet = Effect.provide(Logger.remove(Logger.defaultLogger))

const know = (one: { readonly nodes: Nodes.Nodes }, count: number) =>
  eventually(Effect.map(one.nodes.status, ({ others }) => others.length === count - 1))

describe("a hub that is alone", () => {
  it.scoped("is the only node, and answers for itself", () =>
    Effect.gen(function* () {
      const hub = yield* SseHub.SseHub
      const client = yield* SseTest.connect("/a")
      yield* SseTest.connect("/b")
      const status = yield* hub.nodes.status
      assert.deepStrictEqual([status.others, status.problem], [[], undefined])
      assert.deepInclude(status.self, { id: hub.nodes.id, clients: 2, open: true, pid: process.pid })
      const page = yield* hub.nodes.clients({ limit: 1 })
      assert.deepStrictEqual([page.total, page.matching, page.missing], [2, 2, []])
      assert.deepStrictEqual(
        page.clients.map(({ client, node }) => [node, client.id]),
        [[hub.nodes.id, client.id]]
      )
      const next = yield* hub.nodes.clients({ node: hub.nodes.id, limit: 1 })
      assert.strictEqual(next.next, client.id)
      assert.deepInclude(yield* Effect.flip(hub.nodes.clients({ node: "other" })), {
        _tag: "UnknownNode",
        node: "other"
      })
      assert.deepInclude(yield* Effect.flip(hub.nodes.disconnect("other", 1)), { _tag: "UnknownNode" })
      assert.isFalse(yield* hub.nodes.disconnect(hub.nodes.id, 99))
      assert.isTrue(yield* hub.nodes.disconnect(hub.nodes.id, client.id))
      assert.strictEqual(yield* client.ended, "disconnected")
      assert.strictEqual(yield* hub.revoke("nobody"), 0)
      const seen = yield* Stream.runCollect(Stream.take(hub.nodes.presence("/"), 1))
      assert.deepInclude(Chunk.toReadonlyArray(seen)[0], { _tag: "Joined", node: hub.nodes.id, wasThere: true })
      assert.deepInclude(yield* Effect.flip(Stream.runDrain(hub.nodes.presence("no"))), { _tag: "InvalidNamespace" })
    }).pipe(Effect.provide(SseTest.layer()))
  )
})

for (const [name, engine] of Object.entries(engines)) {
  describe(`nodes on a bus: ${name}`, () => {
    const three = Effect.gen(function* () {
      const bus = yield* engine()
      const nodes = yield* Effect.forEach(["a", "b", "c"], (name) => hubOn(bus(name)))
      for (const node of nodes) yield* know(node, 3)
      return [nodes[0]!, nodes[1]!, nodes[2]!] as const
    })

    it.scopedLive("all know how all are; one that ends is gone at once", () =>
      Effect.gen(function* () {
        const [a, b, c] = yield* three
        yield* a.connect("/x")
        yield* b.connect("/x")
        yield* b.connect("/y")
        yield* a.hub.publish({ namespace: "/x", data: "1" })
        yield* b.hub.publishAll([
          { namespace: "/x", data: "2" },
          { namespace: "/y", data: "3" }
        ])
        for (const node of [a, b, c]) {
          yield* eventually(
            Effect.map(node.nodes.status, (status) => {
              const { clients, deliveries, nodes, published } = Nodes.totals(status)
              return nodes === 3 && clients === 3 && published === 3 && deliveries === 3
            })
          )
        }
        const { others, problem, self } = yield* a.nodes.status
        assert.deepStrictEqual([self.name, ...others.map(({ name }) => name)], ["a", "b", "c"])
        assert.strictEqual(problem, undefined)
        assert.deepStrictEqual(
          others.map(({ clients, id, log, pid }) => [id, clients, log.status, pid]),
          [
            [b.nodes.id, 2, "ok", process.pid],
            [c.nodes.id, 0, "ok", process.pid]
          ]
        )
        yield* b.stop
        assert.deepStrictEqual(
          (yield* a.nodes.status).others.map(({ name }) => name),
          ["c"]
        )
        assert.deepInclude(yield* Effect.flip(a.nodes.disconnect(b.nodes.id, 1)), { _tag: "UnknownNode" })
      }).pipe(quiet)
    )

    it.scopedLive("shows clients of all and of one, by page, filter and order", () =>
      Effect.gen(function* () {
        const [a, b, c] = yield* three
        for (const node of [a, b]) {
          for (let i = 0; i < 3; i++) yield* node.connect(`/rooms/${i}`, { userAgent: i === 1 ? "Findable" : "other" })
        }
        const metadata = { name: "Ann", level: 3n }
        const ann = yield* c.connect("/rooms/9", { principal: { id: "ann", metadata, expiresAt: Infinity } })
        yield* c.hub.publish({ namespace: "/rooms/9", data: "x" })
        yield* ann.events
        const ids = (page: Nodes.ClientPage) => page.clients.map(({ client, node }) => `${node}/${client.id}`)

        const all = yield* a.nodes.clients()
        assert.deepStrictEqual([all.total, all.matching, all.clients.length, all.next], [7, 7, 7, undefined])
        assert.strictEqual(new Set(ids(all)).size, 7)
        assert.deepStrictEqual(ids(yield* b.nodes.clients({ limit: 2 })), ids(all).slice(0, 2), "the oldest of all")
        const busiest = yield* b.nodes.clients({ sort: "events", limit: 1 })
        assert.deepStrictEqual([ids(busiest), busiest.matching], [[`${c.nodes.id}/${ann.id}`], 7])
        // What JSON does not carry is said to be so.
        assert.deepInclude(busiest.clients[0]!.client, { metadata: "(not JSON)", expiresAt: undefined, events: 1 })
        const filtered = yield* c.nodes.clients({ filter: "findable" })
        assert.deepStrictEqual([filtered.total, filtered.matching, filtered.clients.length], [7, 2, 2])
        assert.strictEqual((yield* c.nodes.clients({ filter: "ANN" })).matching, 1)

        const first = yield* a.nodes.clients({ node: b.nodes.id, limit: 2 })
        assert.deepStrictEqual([first.total, first.matching, first.clients.length], [3, 3, 2])
        const rest = yield* a.nodes.clients({ node: b.nodes.id, limit: 2, after: first.next })
        assert.deepStrictEqual([rest.clients.length, rest.next], [1, undefined])
        assert.deepStrictEqual(
          [...ids(first), ...ids(rest)],
          (yield* b.hub.clients).map(({ id }) => `${b.nodes.id}/${id}`)
        )
      }).pipe(quiet)
    )

    it.scopedLive("never sends more than 1,000 clients in one answer", () =>
      Effect.gen(function* () {
        const [a, b] = yield* three
        yield* Effect.forEach(Array.from({ length: 1100 }), () => b.connect("/x"))
        const page = yield* a.nodes.clients({ node: b.nodes.id, limit: 10_000 })
        assert.deepStrictEqual([page.matching, page.clients.length], [1100, 1000])
        const rest = yield* a.nodes.clients({ node: b.nodes.id, limit: 10_000, after: page.next })
        assert.deepStrictEqual([rest.clients.length, rest.next], [100, undefined])
      }).pipe(quiet)
    )

    it.scopedLive("a client of any node is disconnected from any other", () =>
      Effect.gen(function* () {
        const [a, b, c] = yield* three
        const client = yield* b.connect("/x")
        const other = yield* c.connect("/x")
        assert.strictEqual(client.id, other.id, "ids are each hub's own")
        assert.isTrue(yield* a.nodes.disconnect(b.nodes.id, client.id))
        assert.strictEqual(yield* client.awaitEnd, "disconnected")
        assert.strictEqual(yield* other.ended, undefined)
        yield* eventually(Effect.map(b.hub.status, ({ clients }) => clients === 0))
        assert.isFalse(yield* a.nodes.disconnect(b.nodes.id, client.id))
        assert.deepInclude(yield* Effect.flip(a.nodes.disconnect("nobody", 1)), { _tag: "UnknownNode", node: "nobody" })
      }).pipe(quiet)
    )

    it.scopedLive("a revocation ends streams on all, and is known to nodes that start later", () =>
      Effect.gen(function* () {
        const [a, b] = yield* three
        const ann = { id: "ann", issuedAt: Date.now() - 1000 }
        const streams = [
          yield* a.connect("/x", { principal: ann }),
          yield* b.connect("/x", { principal: ann }),
          yield* b.connect("/y", { principal: { id: "ann" } })
        ]
        const bob = yield* b.connect("/x", { principal: { id: "bob", issuedAt: 0 } })
        assert.strictEqual(yield* a.hub.revoke("ann", { remember: "2 seconds" }), 3)
        for (const stream of streams) assert.strictEqual(yield* stream.awaitEnd, "revoked")
        assert.strictEqual(yield* bob.ended, undefined)
        assert.deepInclude(yield* Effect.flip(b.connect("/x", { principal: ann })), { _tag: "Refused" })
        // Signed in anew, clearly later: how long ago something was is known to some ms.
        yield* Effect.sleep(300)
        const again = yield* b.connect("/x", { principal: { id: "ann", issuedAt: Date.now() + 1000 } })
        yield* Effect.sleep(100)
        assert.strictEqual(yield* again.ended, undefined, "the next report tells it once more")
      }).pipe(quiet)
    )

    it.scopedLive("a node that starts knows what was revoked, as long as that is remembered", () =>
      Effect.gen(function* () {
        const bus = yield* engine()
        const a = yield* hubOn(bus("a"))
        const old = { id: "ann", issuedAt: Date.now() }
        yield* a.hub.revoke("ann", { remember: "1 hour" })
        yield* a.hub.revoke("short", { remember: "50 millis" })
        // More than are read in one go.
        for (let i = 0; i < 1500; i++) yield* a.hub.revoke(`user ${i}`)
        yield* Effect.sleep(50)
        const b = yield* hubOn(bus("b"))
        assert.deepInclude(yield* Effect.flip(b.connect("/x", { principal: old })), { _tag: "Refused" })
        yield* Effect.flip(b.connect("/x", { principal: { id: "user 1499", issuedAt: 0 } }))
        yield* b.connect("/x", { principal: { id: "short", issuedAt: 0 } })
      }).pipe(quiet)
    )

    it.scopedLive("presence is that of all nodes; when one is gone, its clients have left", () =>
      Effect.gen(function* () {
        const [a, b, c] = yield* three
        yield* a.connect("/rooms/1", { address: "a1" })
        yield* b.connect("/rooms/1", { address: "b1" })
        yield* c.connect("/other", { address: "other" })
        const seen: Array<string> = []
        const name = new Map([a, b, c].map(({ nodes }, i) => [nodes.id, "abc"[i]!]))
        const watch = yield* Effect.fork(
          Stream.runForEach(a.nodes.presence("/rooms"), (one) =>
            Effect.sync(() => {
              const how = one._tag === "Left" ? `- ${one.reason}` : one.wasThere ? "there" : "+"
              seen.push(`${name.get(one.node)} ${one.client.address} ${how}`)
            })
          )
        )
        const sees = (text: string) => eventually(Effect.sync(() => seen.includes(text)))
        yield* sees("b b1 there")
        assert.deepStrictEqual(seen, ["a a1 there", "b b1 there"], "its own first")
        const b2 = yield* b.connect("/rooms/2", { address: "b2" })
        yield* sees("b b2 +")
        yield* b2.disconnect
        yield* sees("b b2 - client-closed")
        yield* c.connect("/rooms/3", { address: "c3" })
        yield* sees("c c3 +")
        yield* a.connect("/rooms/3", { address: "a3" })
        yield* sees("a a3 +")
        // It tells why each of its clients ends before it is gone.
        yield* c.stop
        yield* sees("c c3 - shutdown")
        assert.strictEqual(seen.length, 7)
        yield* Fiber.interrupt(watch)
      }).pipe(quiet)
    )

    it.scopedLive("a node that starts while presence is followed is followed too", () =>
      Effect.gen(function* () {
        const bus = yield* engine()
        const a = yield* hubOn(bus("a"))
        const joined = yield* Effect.fork(Stream.runHead(a.nodes.presence("/rooms")))
        const b = yield* hubOn(bus("b"))
        yield* b.connect("/rooms/1", { address: "b1" })
        const first = yield* Effect.flatten(Fiber.join(joined))
        assert.deepInclude(first, { _tag: "Joined", node: b.nodes.id })
        assert.strictEqual(first.client.address, "b1")
      }).pipe(quiet)
    )
  })
}

describe("presence over a bus that loses messages", () => {
  it.scopedLive(
    "comes to the truth when messages arrive again, with nobody joining or leaving twice",
    () =>
      Effect.promise(() =>
        fc.assert(
          fc.asyncProperty(
            fc.array(
              fc.oneof(
                fc.record({ _tag: fc.constant("join" as const) }),
                fc.record({ _tag: fc.constant("leave" as const), which: fc.nat(2) }),
                fc.record({ _tag: fc.constant("lose" as const), share: fc.constantFrom(0, 0.3, 1) }),
                fc.record({ _tag: fc.constant("wait" as const), millis: fc.integer({ min: 1, max: 30 }) })
              ),
              { minLength: 6, maxLength: 25 }
            ),
            (steps) => Effect.runPromise(lossy(steps).pipe(Effect.scoped, quiet))
          ),
          { numRuns: 100 }
        )
      ),
    60_000
  )
})

type Step =
  | { readonly _tag: "join" }
  | { readonly _tag: "leave"; readonly which: number }
  | { readonly _tag: "lose"; readonly share: number }
  | { readonly _tag: "wait"; readonly millis: number }

const lossy = (steps: ReadonlyArray<Step>) =>
  Effect.gen(function* () {
    let lost = 0
    const bus = yield* NodeBus.makeMemory({ reportEvery: 10, expireAfter: 60_000 })
    const losing: NodeBus.Bus = {
      ...bus,
      join: (id, onMessage) => bus.join(id, (message) => (Math.random() < lost ? undefined : onMessage(message)))
    }
    const a = yield* hubOn(Effect.succeed({ ...losing, name: "a" }))
    const b = yield* hubOn(Effect.succeed({ ...losing, name: "b" }))
    const seen = new Set<number>()
    const watch = yield* Effect.fork(
      Stream.runForEach(a.nodes.presence("/rooms"), ({ _tag, client }) =>
        Effect.sync(() => {
          assert.strictEqual(seen.has(client.id), _tag === "Left")
          if (_tag === "Left") seen.delete(client.id)
          else seen.add(client.id)
        })
      )
    )
    const clients: Array<SseTest.RecordedClient> = []
    for (const step of steps) {
      if (step._tag === "join") clients.push(yield* b.connect("/rooms/1"))
      else if (step._tag === "wait") yield* Effect.sleep(step.millis)
      else if (step._tag === "lose") lost = step.share
      else yield* clients.splice(step.which, 1)[0]?.disconnect ?? Effect.void
    }
    lost = 0
    const expected = clients.map(({ id }) => id).sort()
    yield* eventually(
      Effect.sync(() => watch.unsafePoll() !== null || String(Array.from(seen).sort()) === String(expected))
    )
    // It goes on: nothing was only right for a moment.
    const last = yield* b.connect("/rooms/1")
    yield* eventually(Effect.sync(() => watch.unsafePoll() !== null || seen.has(last.id)))
    assert.strictEqual(seen.size, expected.length + 1)
    assert.isNull(watch.unsafePoll(), "nobody joined or left twice")
  })

/** What can go wrong between nodes on Redis, with a server of its own for each test. */
import { assert, describe, it } from "@effect/vitest"
import { EventLog, NodeBus, Nodes, SseHub, SseTest } from "effect-sse"
import * as RedisBus from "effect-sse/NodeBus/Redis"
import { Context, Duration, Effect, Exit, Layer, Logger, Scope, Stream } from "effect"
import { redisServer, wayTo } from "../support/redis.js"
import { eventually } from "../support/server.js"

const fast = { reportEvery: 30, expireAfter: 400, answerTimeout: 300 } as const

const quiet = Effect.provide(Logger.remove(Logger.defaultLogger))

/** What was logged, and a layer that collects it. */
const logged = () => {
  const lines: Array<string> = []
  return {
    lines,
    layer: Logger.replace(
      Logger.defaultLogger,
      Logger.make(({ message }) => void lines.push(String(message)))
    )
  }
}

const node = (name: string, options: RedisBus.RedisBusOptions) =>
  Effect.gen(function* () {
    const own = yield* Effect.acquireRelease(Scope.make(), (own) => Scope.close(own, Exit.void))
    const layer = SseHub.layerWithLog(SseTest.defaults).pipe(
      Layer.provide([
        Layer.effect(EventLog.EventLog, EventLog.makeMemory()),
        RedisBus.layer({ ...fast, name, ...options })
      ])
    )
    const hub = Context.get(yield* Layer.buildWithScope(layer, own), SseHub.SseHub)
    const others = Effect.map(hub.nodes.status, ({ others }) => others.map(({ name }) => name).join())
    return {
      hub,
      id: hub.nodes.id,
      nodes: hub.nodes,
      knows: (names: string) => eventually(Effect.map(others, (now) => now === names)),
      connect: (path: string, options?: SseTest.ConnectOptions) =>
        Effect.provideService(SseTest.connect(path, options), SseHub.SseHub, hub),
      stop: Scope.close(own, Exit.void)
    }
  })

/** One that reports, as if it were well, and does nothing else. */
const silent = (url: string, like: Nodes.NodeStatus, id = "silent") =>
  Effect.gen(function* () {
    const bus = yield* RedisBus.make({ ...fast, url })
    const member = yield* bus.join(id, () => {})
    return { report: Effect.orDie(member.report(JSON.stringify({ ...like, id, name: id }), "")) }
  })

describe("nodes on Redis, when something fails", () => {
  it.scopedLive(
    "while Redis is away each goes on alone, says so, and what was revoked reaches the others afterwards",
    () => {
      const log = logged()
      return Effect.gen(function* () {
        const server = yield* redisServer("--appendonly", "yes", "--appendfsync", "always")
        const a = yield* node("a", { url: server.url })
        const b = yield* node("b", { url: server.url })
        yield* a.knows("b")
        const principal = { id: "ann", issuedAt: Date.now() - 1000 }
        const mine = yield* a.connect("/x", { principal })
        const theirs = yield* b.connect("/x", { principal })
        yield* server.kill
        for (const one of [a, b]) {
          yield* eventually(Effect.map(one.nodes.status, ({ problem }) => problem !== undefined))
        }
        const status = yield* a.nodes.status
        assert.match(status.problem!.reason, /^Redis: /)
        assert.deepStrictEqual([status.others, Nodes.totals(status).clients], [[], 1])
        assert.deepInclude(yield* Effect.flip(a.nodes.disconnect(b.id, theirs.id)), {
          _tag: "NodeUnreachable",
          kind: "no-connection",
          node: b.id
        })
        const page = yield* a.nodes.clients()
        assert.deepStrictEqual([page.total, page.missing], [1, []])
        const [took, ended] = yield* Effect.timed(a.hub.revoke("ann"))
        assert.strictEqual(ended, 1)
        assert.isBelow(Duration.toMillis(took), 1000)
        assert.strictEqual(yield* mine.awaitEnd, "revoked")
        assert.strictEqual(yield* theirs.ended, undefined)
        // Who comes meanwhile, with a proof from before; and one who signed in again.
        const late = yield* b.connect("/x", { principal })
        // How long ago it was is known to some ms.
        yield* Effect.sleep(300)
        const again = yield* b.connect("/x", { principal: { id: "ann", issuedAt: Date.now() + 10_000 } })
        yield* server.start
        yield* a.knows("b")
        assert.strictEqual(yield* theirs.awaitEnd, "revoked")
        assert.strictEqual(yield* late.awaitEnd, "revoked")
        yield* Effect.sleep(100)
        assert.strictEqual(yield* again.ended, undefined)
        assert.strictEqual((yield* a.nodes.status).problem, undefined)
        assert.isTrue(yield* a.nodes.disconnect(b.id, again.id))
        const lines = (text: string) => log.lines.filter((line) => line.includes(text)).length
        assert.deepStrictEqual([lines("out of reach"), lines("in reach again")], [2, 2], "once by each")
      }).pipe(Effect.provide(log.layer))
    }
  )

  it.scopedLive("a node that reports and does not answer is told from one that is not there, in bounded time", () =>
    Effect.gen(function* () {
      const server = yield* redisServer()
      const a = yield* node("a", { url: server.url })
      const client = yield* a.connect("/x", { principal: { id: "ann" } })
      const { report } = yield* silent(server.url, (yield* a.nodes.status).self)
      yield* report
      const reporting = yield* Effect.forkScoped(Effect.forever(Effect.zipRight(Effect.sleep(30), report)))
      yield* a.knows("silent")
      for (const ask of [
        Effect.asVoid(a.nodes.disconnect("silent", 1)),
        Effect.asVoid(a.nodes.clients({ node: "silent" }))
      ]) {
        const [took, error] = yield* Effect.timed(Effect.flip(ask))
        assert.deepInclude(error, { _tag: "NodeUnreachable", kind: "no-answer", node: "silent" })
        assert.isAtLeast(Duration.toMillis(took), 290)
        assert.isBelow(Duration.toMillis(took), 2000)
      }
      const page = yield* a.nodes.clients()
      assert.deepStrictEqual([page.total, page.missing], [1, ["silent"]])
      const [took, ended] = yield* Effect.timed(a.hub.revoke("ann"))
      assert.strictEqual(ended, 1)
      assert.isBelow(Duration.toMillis(took), 2000)
      assert.strictEqual(yield* client.awaitEnd, "revoked")
      // It is gone when it has been silent for so long.
      yield* reporting.interruptAsFork(reporting.id())
      yield* a.knows("")
      assert.deepInclude(yield* Effect.flip(a.nodes.disconnect("silent", 1)), { _tag: "UnknownNode" })
    }).pipe(quiet)
  )

  it.scopedLive(
    "presence is made up for after messages were lost, and the clients of a node that vanishes have left",
    () =>
      Effect.gen(function* () {
        const server = yield* redisServer()
        const way = yield* wayTo(server.port)
        const a = yield* node("a", { url: server.url })
        const b = yield* node("b", { url: way.url })
        yield* a.knows("b")
        const seen: Array<string> = []
        yield* Effect.forkScoped(
          Stream.runForEach(a.nodes.presence("/"), (one) =>
            Effect.sync(() =>
              seen.push(`${one._tag} ${one.client.address}${one._tag === "Left" ? ` ${one.reason}` : ""}`)
            )
          )
        )
        const sees = (text: string) => eventually(Effect.sync(() => seen.includes(text)))
        const one = yield* b.connect("/x", { address: "1" })
        yield* b.connect("/x", { address: "2" })
        yield* sees("Joined 2")
        // What b says meanwhile is lost, not what it reports behind it.
        yield* Effect.promise(() => server.admin.client("KILL", "TYPE", "pubsub"))
        yield* one.disconnect
        yield* b.connect("/x", { address: "3" })
        yield* sees("Joined 3")
        yield* eventually(Effect.sync(() => seen.some((text) => text.startsWith("Left 1"))))
        yield* b.connect("/x", { address: "4" })
        yield* sees("Joined 4")
        assert.strictEqual(new Set(seen).size, seen.length, "nothing twice")
        way.hold(true)
        yield* sees("Left 4 node-gone")
        assert.includeMembers(seen, ["Left 2 node-gone", "Left 3 node-gone"])
        way.hold(false)
        way.cut()
        yield* eventually(Effect.sync(() => seen.filter((text) => text === "Joined 4").length === 2))
      }).pipe(quiet)
  )

  it.scopedLive("a node starts without Redis, and finds the others later, and what they revoked", () =>
    Effect.gen(function* () {
      const server = yield* redisServer()
      const way = yield* wayTo(1)
      const a = yield* node("a", { url: server.url })
      yield* a.hub.revoke("ann")
      const [took, b] = yield* Effect.timed(node("b", { url: way.url, startTimeout: "200 millis" }))
      assert.isBelow(Duration.toMillis(took), 2000)
      const early = yield* b.connect("/x", { principal: { id: "ann", issuedAt: 0 } })
      assert.isDefined((yield* b.nodes.status).problem)
      assert.strictEqual(yield* b.hub.revoke("bob"), 0)
      way.lead(server.port)
      yield* b.knows("a")
      assert.strictEqual(yield* early.awaitEnd, "revoked")
      yield* a.knows("b")
      yield* eventually(Effect.isFailure(a.hub.checkPrincipal({ id: "bob", issuedAt: 0 })))
    }).pipe(quiet)
  )

  it.scopedLive("what others write there does no harm", () =>
    Effect.gen(function* () {
      const server = yield* redisServer()
      const a = yield* node("a", { url: server.url })
      const b = yield* node("b", { url: server.url })
      yield* a.knows("b")
      const prefix = "{effect-sse}"
      const { admin } = server
      const from = `"from":"${b.id}"`
      for (const text of [
        "",
        "null",
        "{",
        `{"_tag":"Ask",${from}}`,
        `{"_tag":"Ask",${from},"number":1,"operation":{"_tag":"Nothing"}}`,
        `{"_tag":"Answer",${from},"number":1,"value":true}`,
        `{"_tag":"Seen",${from},"session":"x","number":0,"seen":[],"live":true}`,
        `{"_tag":"Quiet",${from},"session":"x","number":0}`
      ]) {
        yield* Effect.promise(() => admin.publish(`${prefix}:nodes`, text))
        yield* Effect.promise(() => admin.publish(`${prefix}:node:${a.id}`, text))
      }
      yield* Effect.promise(() => admin.hset(`${prefix}:nodes`, "x", "9999999999999 {}", "y", "no", "z", "1 {}"))
      const client = yield* b.connect("/x")
      assert.isTrue(yield* a.nodes.disconnect(b.id, client.id))
      assert.deepStrictEqual(
        (yield* a.nodes.status).others.map(({ name }) => name),
        ["b"]
      )
      // Of a wrong type, as long as it is there.
      yield* Effect.promise(() => admin.multi().del(`${prefix}:nodes`).set(`${prefix}:nodes`, "x").exec())
      const { others, problem } = yield* a.nodes.status
      assert.deepStrictEqual(others, [])
      assert.match(problem!.reason, /WRONGTYPE/)
      yield* Effect.promise(() => admin.del(`${prefix}:nodes`))
      yield* a.knows("b")
      yield* b.knows("a")
      // Nothing stays when all are gone.
      yield* a.hub.revoke("ann", { remember: "100 millis" })
      yield* a.stop
      yield* b.stop
      yield* eventually(
        Effect.map(
          Effect.promise(() => admin.keys("*")),
          (keys) => keys.length === 0
        )
      )
    }).pipe(quiet)
  )

  it.scopedLive("those with other prefixes do not know each other", () =>
    Effect.gen(function* () {
      const server = yield* redisServer()
      const a = yield* node("a", { url: server.url, prefix: "one" })
      const b = yield* node("b", { url: server.url, prefix: "two" })
      const c = yield* node("c", { url: server.url, prefix: "one" })
      yield* a.knows("c")
      assert.deepStrictEqual((yield* b.nodes.status).others, [])
      assert.deepInclude(yield* Effect.flip(b.nodes.disconnect(c.id, 1)), { _tag: "UnknownNode" })
    }).pipe(quiet)
  )

  it.effect("options that make no sense are defects", () =>
    Effect.gen(function* () {
      for (const options of [
        { reportEvery: 0 },
        { expireAfter: "1 second", reportEvery: "1 second" },
        { answerTimeout: Duration.infinity }
      ] as ReadonlyArray<NodeBus.NodeOptions>) {
        assert.strictEqual((yield* Effect.exit(NodeBus.makeMemory(options)))._tag, "Failure")
      }
    })
  )
})

/** What can go wrong between a node and its Redis, each with a server of its own. */
import { assert, describe, it } from "@effect/vitest"
import type { EventLog } from "effect-sse"
import { Namespace, SseHub } from "effect-sse"
import * as RedisLog from "effect-sse/EventLog/Redis"
import * as SseServer from "effect-sse/node/SseServer"
import { Duration, Effect, Schedule, Layer, Logger, Redacted } from "effect"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { certificate, privateKey } from "../support/certificate.js"
import { connect, request } from "../support/rawClient.js"
import { freePort, redisServer, type RedisServer, wayTo } from "../support/redis.js"
import { eventually, port } from "../support/server.js"

const entry = (data: string, namespace = "/a"): EventLog.NewEntry => ({
  namespace: Namespace.make(namespace),
  event: { namespace, data },
  text: `data:${data}\n\n`
})

const quiet = Effect.provide(Logger.remove(Logger.defaultLogger))

type Log = EventLog.EventLog["Type"]

/** A node: its log, and all that it was handed, gaps too. */
const node = (options: RedisLog.RedisLogOptions) =>
  Effect.gen(function* () {
    const log: Log = yield* RedisLog.make({ answerTimeout: "300 millis", ...options })
    const seen: Array<string> = []
    const gaps: Array<EventLog.TailGap> = []
    yield* log.tail({
      offer: (entries) => seen.push(...entries.map(({ event }) => String(event.data))),
      gap: (gap) => {
        gaps.push(gap)
        seen.push(gap.reason)
      },
      ready: Effect.void
    })
    return {
      ...log,
      seen,
      gaps,
      say: (...data: ReadonlyArray<string>) => log.append(data.map((one) => entry(one))),
      sees: (data: string) => eventually(Effect.sync(() => seen.includes(data))),
      isDegraded: eventually(Effect.map(log.health, ({ status }) => status === "degraded")),
      isWell: eventually(Effect.map(log.health, ({ status }) => status === "ok"))
    }
  })

const durable = ["--appendonly", "yes", "--appendfsync", "always"] as const

describe("EventLog on Redis, when something fails", () => {
  it.scopedLive(
    "a publish fails at once with publishTimeout 0, and else after that time; nothing is published then",
    () =>
      Effect.gen(function* () {
        const server = yield* redisServer(...durable)
        const hasty = yield* node({ url: server.url, publishTimeout: 0 })
        const patient = yield* node({ url: server.url, publishTimeout: "200 millis" })
        yield* hasty.say("1")
        yield* server.kill
        yield* hasty.isDegraded
        yield* patient.isDegraded
        const [took, error] = yield* Effect.timed(Effect.flip(hasty.say("no")))
        assert.deepInclude(error, { _tag: "EventLogError", operation: "append" })
        assert.isUndefined(error.outcome)
        assert.isBelow(Duration.toMillis(took), 100)
        const [waited, late] = yield* Effect.timed(Effect.flip(patient.say("no")))
        assert.strictEqual(late._tag, "EventLogError")
        assert.isUndefined(late.outcome)
        assert.isAtLeast(Duration.toMillis(waited), 150)
        yield* server.start
        yield* patient.isWell
        yield* hasty.isWell
        yield* patient.say("2")
        yield* hasty.sees("2")
        assert.deepStrictEqual(hasty.seen, ["1", "2"], "it goes on where it was")
        assert.deepStrictEqual(patient.seen, ["1", "2"])
      }).pipe(quiet)
  )

  it.scopedLive("a publish waits for a Redis that is restarted", () =>
    Effect.gen(function* () {
      const server = yield* redisServer(...durable)
      const one = yield* node({ url: server.url })
      yield* one.say("1")
      yield* server.kill
      const waiting = yield* Effect.fork(one.say("2"))
      yield* one.isDegraded
      yield* server.start
      yield* waiting.await
      yield* one.sees("2")
      assert.deepStrictEqual(one.seen, ["1", "2"])
    }).pipe(quiet)
  )

  it.scopedLive("an append whose answer was lost is done once, however often it is sent", () =>
    Effect.gen(function* () {
      const server = yield* redisServer()
      const way = yield* wayTo(server.port)
      const writer = yield* node({ url: way.url, publishTimeout: "10 seconds" })
      const reader = yield* node({ url: server.url })
      yield* writer.say("1")
      way.dropAnswers(true)
      const waiting = yield* Effect.fork(writer.say("2", "3"))
      yield* reader.sees("3")
      yield* writer.isDegraded
      way.dropAnswers(false)
      way.cut()
      const positions = yield* Effect.flatten(waiting.await)
      yield* writer.say("4")
      yield* reader.sees("4")
      yield* writer.sees("4")
      assert.deepStrictEqual(reader.seen, ["1", "2", "3", "4"])
      assert.deepStrictEqual(writer.seen, ["1", "2", "3", "4"])
      const found = yield* reader.history!.locate({ _tag: "After", id: positions[1]! }, positions[1]!, [Namespace.root])
      assert.strictEqual(found, positions[1])
    }).pipe(quiet)
  )

  it.scopedLive("a publish that was given up while it was under way says that its outcome is not known", () =>
    Effect.gen(function* () {
      const server = yield* redisServer()
      const one = yield* node({ url: server.url, publishTimeout: "500 millis" })
      yield* one.say("1")
      server.signal("SIGSTOP")
      const error = yield* Effect.flip(one.say("2"))
      assert.deepInclude(error, { _tag: "EventLogError", outcome: "unknown" })
      assert.include(error.message, "not known")
      yield* one.isDegraded
      server.signal("SIGCONT")
      yield* one.isWell
      yield* one.say("3")
      yield* one.sees("3")
      // What was sent may have been in the server's hands; it is in the order once, or not at all.
      assert.isTrue(["1,3", "1,2,3"].includes(one.seen.join(",")), one.seen.join(","))
    }).pipe(quiet)
  )

  it.scopedLive("connections that are cut lose nothing and double nothing", () =>
    Effect.gen(function* () {
      const server = yield* redisServer()
      const nodes = [yield* node({ url: server.url }), yield* node({ url: server.url })]
      const expected: Array<string> = []
      for (let i = 0; i < 30; i++) {
        expected.push(`${i}a`, `${i}b`)
        if (i % 3 === 0) yield* Effect.promise(() => server.admin.client("KILL", "TYPE", "normal", "SKIPME", "yes"))
        yield* nodes[i % 2]!.say(`${i}a`, `${i}b`)
      }
      for (const one of nodes) {
        yield* one.sees("29b")
        assert.deepStrictEqual(one.seen, expected)
      }
    }).pipe(quiet)
  )

  it.scopedLive("a Redis that was emptied begins a new life of the log, of which all nodes tell", () =>
    Effect.gen(function* () {
      const server = yield* redisServer()
      const nodes = [yield* node({ url: server.url }), yield* node({ url: server.url })]
      const [old] = yield* nodes[0]!.say("1")
      for (const one of nodes) yield* one.sees("1")
      yield* Effect.promise(() => server.admin.flushall())
      const [fresh] = yield* nodes[1]!.say("2")
      for (const one of nodes) {
        yield* one.sees("2")
        assert.deepStrictEqual(one.seen, ["1", "restarted", "2"])
        const { history } = one
        const found = yield* history!.locate({ _tag: "After", id: old! }, fresh!, [Namespace.root])
        assert.deepInclude(found, { _tag: "Gap", reason: "restarted", oldest: fresh })
        assert.deepInclude(
          yield* history!.read({ after: old!, upTo: fresh!, namespaces: [Namespace.root], maxBytes: 262_144 }),
          {
            _tag: "Gap",
            reason: "restarted"
          }
        )
        const page = yield* history!.read({
          after: one.gaps[0]!.position,
          upTo: fresh!,
          namespaces: [Namespace.root],
          maxBytes: 262_144
        })
        assert.strictEqual(page._tag === "Page" ? page.entries.length : -1, 1)
      }
      yield* Effect.promise(() => server.admin.flushall())
      for (const one of nodes)
        yield* eventually(Effect.sync(() => one.seen.at(-1) === "restarted" || one.gaps.length === 1))
    }).pipe(quiet)
  )

  it.scopedLive("one that is restarted empty, too", () =>
    Effect.gen(function* () {
      const server = yield* redisServer()
      const one = yield* node({ url: server.url })
      yield* one.say("1")
      yield* one.sees("1")
      yield* server.kill
      yield* server.start
      yield* one.sees("restarted")
      yield* one.say("2")
      yield* one.sees("2")
      assert.deepStrictEqual(one.seen, ["1", "restarted", "2"])
    }).pipe(quiet)
  )

  it.scopedLive("so does a replica that took over without the last events", () =>
    Effect.gen(function* () {
      const first = yield* redisServer("--repl-diskless-sync-delay", "0")
      const second = yield* redisServer("--replicaof", `127.0.0.1 ${first.port}`)
      const ways = [yield* wayTo(first.port), yield* wayTo(first.port)]
      const nodes = [yield* node({ url: ways[0]!.url }), yield* node({ url: ways[1]!.url })]
      const [kept] = yield* nodes[0]!.say("1")
      yield* eventually(Effect.promise(async () => Number(await second.admin.xlen("{effect-sse}:events")) === 2))
      yield* Effect.promise(() => second.admin.replicaof("NO", "ONE"))
      const [lost] = yield* nodes[0]!.say("2")
      for (const one of nodes) yield* one.sees("2")
      for (const way of ways) {
        way.lead(second.port)
        way.cut()
      }
      for (const one of nodes) yield* one.sees("restarted")
      const [after] = yield* nodes[1]!.say("3")
      for (const one of nodes) {
        yield* one.sees("3")
        assert.deepStrictEqual(one.seen, ["1", "2", "restarted", "3"])
        for (const id of [kept!, lost!]) {
          const found = yield* one.history!.locate({ _tag: "After", id }, after!, [Namespace.root])
          assert.deepInclude(found, { _tag: "Gap", reason: "restarted" })
        }
      }
    }).pipe(quiet)
  )

  it.scopedLive("a node that fell behind what is kept tells it, and goes on with the oldest", () =>
    Effect.gen(function* () {
      const server = yield* redisServer()
      const way = yield* wayTo(server.port)
      const history = { maxEvents: 100, rules: [{ namespace: "/v", keep: "latest" as const }] }
      const slow = yield* node({ url: way.url, history })
      const other = yield* node({ url: server.url, history })
      yield* other.say("first")
      yield* slow.sees("first")
      way.hold(true)
      yield* other.append([entry("value", "/v/1")])
      for (let i = 0; i < 10; i++) yield* other.say(...Array.from({ length: 100 }, (_, j) => `${i}.${j}`))
      way.hold(false)
      way.cut()
      yield* slow.sees("9.99")
      assert.strictEqual(slow.seen[1], "expired")
      assert.strictEqual(slow.seen[2], "value", "what holds is told again")
      const rest = slow.seen.slice(3)
      assert.deepStrictEqual(rest, other.seen.slice(-rest.length), "then all from the oldest on")
      assert.isAtLeast(rest.length, 100)
      const upTo = (yield* other.say("end"))[0]!
      const read = slow.history!.read({
        after: slow.gaps[0]!.position,
        upTo,
        namespaces: [Namespace.root],
        maxBytes: 262_144
      })
      // The connection for commands was cut as well, and fails fast until it is made again.
      const page = yield* Effect.retry(read, Schedule.intersect(Schedule.spaced("50 millis"), Schedule.recurs(100)))
      assert.strictEqual(page._tag, "Page")
    }).pipe(quiet)
  )

  it.scopedLive("a key of another type is an error that says so, until it is gone", () =>
    Effect.gen(function* () {
      const server = yield* redisServer()
      const one = yield* node({ url: server.url, publishTimeout: "300 millis" })
      yield* one.say("1")
      yield* one.sees("1")
      yield* Effect.promise(() => server.admin.set("{effect-sse}:events", "x"))
      const error = yield* Effect.flip(one.say("2"))
      assert.include(error.reason, "WRONGTYPE")
      yield* one.isDegraded
      const health = yield* one.health
      assert.include(health.status === "degraded" ? health.reason : "", "WRONGTYPE")
      yield* Effect.promise(() => server.admin.del("{effect-sse}:events"))
      yield* one.isWell
      yield* one.say("3")
      yield* one.sees("3")
      assert.deepStrictEqual(one.seen, ["1", "restarted", "3"])
    }).pipe(quiet)
  )

  it.scopedLive("a stream that somebody else wrote to begins anew", () =>
    Effect.gen(function* () {
      const server = yield* redisServer()
      const one = yield* node({ url: server.url })
      yield* one.say("1")
      yield* one.sees("1")
      yield* Effect.promise(() => server.admin.xadd("{effect-sse}:events", "*", "some", "thing"))
      yield* one.say("2")
      yield* one.sees("2")
      assert.deepStrictEqual(one.seen, ["1", "restarted", "2"])
    }).pipe(quiet)
  )

  it.scopedLive("a slow Redis delays, and what waits for it is bounded", () =>
    Effect.gen(function* () {
      const server = yield* redisServer()
      const one = yield* node({ url: server.url, answerTimeout: "5 seconds" })
      yield* Effect.promise(() => server.admin.client("PAUSE", 300, "WRITE"))
      const [took] = yield* Effect.timed(one.say("1"))
      assert.isAtLeast(Duration.toMillis(took), 200)
      assert.deepStrictEqual(yield* one.health, { status: "ok" })
      server.signal("SIGSTOP")
      const batch = Array.from({ length: 10_000 }, (_, i) => entry(String(i)))
      const results = yield* Effect.forEach(Array.from({ length: 15 }), () =>
        Effect.fork(Effect.either(one.append(batch)))
      )
      const [last] = yield* Effect.timed(results[14]!.await)
      assert.isBelow(Duration.toMillis(last), 2000, "refused at once")
      server.signal("SIGCONT")
      const answers = yield* Effect.forEach(results, (fiber) => Effect.flatten(fiber.await))
      assert.strictEqual(answers.filter(({ _tag }) => _tag === "Right").length, 10)
      assert.include(
        answers.map((answer) => (answer._tag === "Left" ? answer.left.reason : "")).join(),
        "too much waits"
      )
      yield* eventually(Effect.sync(() => one.seen.length === 100_001))
    }).pipe(quiet)
  )

  it.scopedLive("asks for a password, and keeps it to itself", () =>
    Effect.gen(function* () {
      const server = yield* redisServer("--requirepass", "hunter2")
      const url = (password: string) => server.url.replace("//", `//:${password}@`)
      const one = yield* node({ url: Redacted.make(url("hunter2")) })
      yield* one.say("1")
      const error = yield* Effect.flip(RedisLog.make({ url: url("wrong-guess"), startTimeout: "300 millis" }))
      assert.match(error.reason, /WRONGPASS|password/)
      assert.notInclude(JSON.stringify(error) + String(error), "wrong-guess")
      const none = yield* Effect.flip(RedisLog.make({ url: "redis://127.0.0.1:1", startTimeout: "300 millis" }))
      assert.include(none.reason, "ECONNREFUSED")
    }).pipe(quiet)
  )

  it.scopedLive("talks TLS, and checks who is there", () =>
    Effect.gen(function* () {
      const folder = yield* Effect.acquireRelease(
        Effect.sync(() => mkdtempSync(join(tmpdir(), "effect-sse-tls-"))),
        (folder) => Effect.sync(() => rmSync(folder, { recursive: true, force: true }))
      )
      writeFileSync(join(folder, "cert.pem"), certificate)
      writeFileSync(join(folder, "key.pem"), privateKey)
      const secure = yield* freePort
      const files = ["--tls-cert-file", join(folder, "cert.pem"), "--tls-key-file", join(folder, "key.pem")]
      yield* redisServer("--tls-port", String(secure), "--tls-auth-clients", "no", ...files)
      const url = `rediss://localhost:${secure}`
      const one = yield* node({ url, redis: { tls: { ca: certificate } } })
      yield* one.say("1")
      yield* one.sees("1")
      const error = yield* Effect.flip(RedisLog.make({ url, startTimeout: "300 millis" }))
      assert.match(error.reason, /self.signed/)
    }).pipe(quiet)
  )

  it("refuses bounds and patterns that make no sense", () => {
    const make = (options: RedisLog.RedisLogOptions) => Effect.runPromise(Effect.scoped(RedisLog.make(options)))
    for (const history of [{ maxEvents: 0 }, { maxAge: 0 }, { maxValues: Number.NaN }]) {
      assert.throws(() => Effect.runSync(Effect.scoped(RedisLog.make({ history }))), /must be at least 1/)
    }
    return make({ history: { rules: [{ namespace: "x", keep: "nothing" }] } }).then(
      () => assert.fail("it was made"),
      (error: unknown) => assert.match(String(error), /invalid namespace/)
    )
  })
})

const served = (server: RedisServer, options: RedisLog.RedisLogOptions) =>
  SseServer.layer({ port: 0, publishToken: "secret" }).pipe(
    Layer.provideMerge(SseHub.layerWithLog({ keepalive: "100 millis" })),
    Layer.provide(RedisLog.layer({ url: server.url, answerTimeout: "300 millis", ...options })),
    Layer.orDie
  )

describe("a hub on Redis, when that is away", () => {
  it.scopedLive("refuses publishes with 503, says degraded, and keeps its clients, which miss nothing", () =>
    Effect.gen(function* () {
      const server = yield* redisServer(...durable)
      yield* Effect.gen(function* () {
        const at = yield* port
        const publish = (data: string) =>
          request(at, "/publish/a", { method: "POST", headers: { Authorization: "Bearer secret" }, body: data })
        const client = yield* connect(at, "/subscribe/a")
        yield* client.until((body) => body.includes(":ok"))
        assert.strictEqual((yield* publish("1")).status, 202)
        assert.include((yield* request(at, "/healthz")).body, '"ok"')
        yield* client.until((body) => body.includes("data:1"))
        yield* server.kill
        yield* eventually(Effect.map(request(at, "/healthz"), ({ body }) => body.includes('"degraded"')))
        assert.strictEqual((yield* request(at, "/healthz")).status, 200)
        const refused = yield* publish("2")
        assert.strictEqual(refused.status, 503)
        assert.match(refused.head, /retry-after: \d/i)
        assert.include((yield* request(at, "/admin/status.json")).body, '"log":{"status":"degraded"')
        const before = client.body().length
        yield* client.until((body) => body.slice(before).includes(":keepalive"))
        // Who was away a moment ago is given what this node has; who was away longer comes back later.
        const id = /id:(\S+)\ndata:1/.exec(client.body())![1]!
        const resumed = yield* connect(at, "/subscribe/a", { headers: { "Last-Event-ID": id } })
        yield* resumed.until((body) => body.includes(`id:${id}`))
        const older = yield* request(at, "/subscribe/a", { headers: { "Last-Event-ID": id.replace(/-.*/, "-1-0") } })
        assert.match(older.body, /^retry:\d+\n\n$/)
        yield* server.start
        yield* eventually(Effect.map(request(at, "/healthz"), ({ body }) => body.includes('"ok"')))
        assert.strictEqual((yield* publish("3")).status, 202)
        for (const one of [client, resumed]) {
          const body = yield* one.until((body) => body.includes("data:3"))
          assert.notInclude(body, "sse-reset")
          assert.notInclude(body, "data:2")
        }
      }).pipe(Effect.provide(served(server, { publishTimeout: 0 })))
    }).pipe(quiet)
  )

  it.scopedLive("tells its clients, in order, when what it had is gone", () =>
    Effect.gen(function* () {
      const server = yield* redisServer()
      yield* Effect.gen(function* () {
        const hub = yield* SseHub.SseHub
        const client = yield* connect(yield* port, "/subscribe/a")
        yield* client.until((body) => body.includes(":ok"))
        yield* hub.publish({ namespace: "/a", data: "1" })
        yield* client.until((body) => body.includes("data:1"))
        yield* Effect.promise(() => server.admin.flushall())
        yield* hub.publish({ namespace: "/a", data: "2" })
        const body = yield* client.until((body) => body.includes("data:2"))
        assert.match(
          body.replaceAll(":keepalive\n\n", ""),
          /data:1\n\nevent:sse-reset\ndata:\{"reason":"restarted","requested":"\S+","oldest":null\}\n\nid:\S+\n\nid:\S+\ndata:2\n\n$/
        )
      }).pipe(Effect.provide(served(server, {})))
    }).pipe(quiet)
  )
})

/** Several nodes on one Redis, as processes, while everything goes wrong. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Logger } from "effect"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import * as Http from "node:http"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { command, type Command, node } from "./support/command.js"
import { freePort, redisServer } from "./support/redis.js"
import { resumingClient, type ResumingClient } from "./support/resuming.js"
import { eventually } from "./support/server.js"

/** A server as operators run it. */
const start = (port: number, redis: string, env: Record<string, string> = {}) =>
  Effect.tap(
    node(["dist/bin.js", "serve", "--port", String(port)], {
      SSE_REDIS_URL: redis,
      SSE_PUBLISH_TOKEN: "secret",
      SSE_DRAIN: "100 millis",
      SSE_LOG: "none",
      ...env
    }),
    (server) => server.until(/listens on/)
  )

const agent = new Http.Agent({ keepAlive: true })

/** The status; 0 if there was no answer, and whether it was published is not known. */
const publish = (port: number, data: ReadonlyArray<string>, path = "/n") =>
  Effect.async<{ readonly status: number; readonly body: string }>((resume) => {
    const body = data.map((one) => JSON.stringify({ data: one }) + "\n").join("")
    const headers = { authorization: "Bearer secret", "content-type": "application/x-ndjson" }
    const request = Http.request(
      { port, host: "127.0.0.1", method: "POST", path: `/publish${path}`, headers, agent },
      (response) => {
        let text = ""
        response.setEncoding("utf8")
        response.on("data", (piece: string) => (text += piece))
        response.on("error", () => resume(Effect.succeed({ status: 0, body: "" })))
        response.on("end", () => resume(Effect.succeed({ status: response.statusCode!, body: text })))
      }
    )
    request.on("error", () => resume(Effect.succeed({ status: 0, body: "" })))
    request.end(body)
  })

interface Published {
  /** Events whose publish was acknowledged. */
  readonly acknowledged: Set<string>
  /** Those that must not be there. */
  readonly refused: Set<string>
}

/** Publishes batches on one node after the other, each of its own, to one namespace after the other, so many a second, until told to stop. */
const flood = (
  ports: ReadonlyArray<number>,
  everyMillis: number,
  size: number,
  paths: ReadonlyArray<string> = ["/n"]
) =>
  Effect.gen(function* () {
    const published: Published = { acknowledged: new Set(), refused: new Set() }
    let going = true
    let batch = 0
    const one = Effect.gen(function* () {
      const number = batch++
      const data = Array.from({ length: size }, (_, i) => `${number}.${i}`)
      const { body, status } = yield* publish(ports[number % ports.length]!, data, paths[number % paths.length])
      const set =
        status === 202
          ? published.acknowledged
          : status === 503 && !body.includes("not known")
            ? published.refused
            : undefined
      if (set !== undefined) for (const event of data) set.add(event)
    })
    const loop = yield* Effect.fork(
      Effect.gen(function* () {
        const fibers = []
        while (going) {
          fibers.push(yield* Effect.fork(one))
          yield* Effect.sleep(everyMillis)
        }
        for (const fiber of fibers) yield* fiber.await
      })
    )
    return {
      ...published,
      stop: Effect.suspend(() => {
        going = false
        return loop.await
      })
    }
  })

/** Publishes a last event, waits until all have it, and looks at what they got. */
const check = (clients: ReadonlyArray<ResumingClient>, published: Published, port: number) =>
  Effect.gen(function* () {
    assert.strictEqual((yield* publish(port, ["end"])).status, 202)
    yield* eventually(Effect.sync(() => clients.every(({ data }) => data.at(-1) === "end")))
    const reference = clients[0]!.data.filter((one) => one !== "reset")
    const order = new Map(reference.map((data, i) => [data, i]))
    assert.strictEqual(order.size, reference.length, "nothing twice")
    for (const { data } of clients) {
      const events = data.filter((one) => one !== "reset")
      assert.strictEqual(new Set(events).size, events.length, "nothing twice")
      assert.isTrue(
        events.every((one) => !published.refused.has(one)),
        "nothing that was refused"
      )
      if (data.includes("reset")) continue
      const got = new Set(events)
      const lost = Array.from(published.acknowledged).filter((one) => !got.has(one))
      assert.deepStrictEqual(lost.slice(0, 5), [], `${lost.length} acknowledged events are missing`)
      const places = events.map((one) => order.get(one) ?? -1)
      if (!clients[0]!.data.includes("reset")) assert.deepStrictEqual(events, reference, "one order")
      else
        assert.isTrue(
          places.every((place, i) => i === 0 || place === -1 || place > places[i - 1]!),
          "one order"
        )
    }
    return reference
  })

/** Clients that are connected before anything is published. */
const connectAll = (count: number, ports: ReadonlyArray<number>) =>
  Effect.gen(function* () {
    const clients: Array<ResumingClient> = []
    for (let i = 0; i < count; i++) clients.push(yield* resumingClient(ports, "/subscribe/n", i))
    yield* eventually(Effect.sync(() => clients.every(({ connects }) => connects() > 0)))
    return clients
  })

const three = Effect.all([freePort, freePort, freePort])

describe("several nodes on Redis", () => {
  it.scopedLive("300 clients of 3 nodes see all that is published on any of them once, in one order", () =>
    Effect.gen(function* () {
      const redis = yield* redisServer()
      const ports = yield* three
      yield* Effect.forEach(ports, (port) => start(port, redis.url), { concurrency: 3 })
      const clients = yield* connectAll(300, ports)
      const events = yield* flood(ports, 5, 10)
      yield* Effect.sleep("1 second")
      yield* events.stop
      const seen = yield* check(clients, events, ports[0])
      assert.isAbove(seen.length, 300)
      for (const client of clients) assert.deepStrictEqual(client.data, seen)
    }).pipe(Effect.provide(Logger.remove(Logger.defaultLogger)))
  )

  it.scopedLive(
    "no acknowledged event is lost or doubled while Redis is cut off, stopped, killed, and a node killed",
    () =>
      Effect.gen(function* () {
        const redis = yield* redisServer("--appendonly", "yes", "--appendfsync", "always")
        const ports = yield* three
        const nodes: Array<Command> = yield* Effect.forEach(ports, (port) => start(port, redis.url), { concurrency: 3 })
        const clients = yield* connectAll(60, ports)
        const events = yield* flood(ports, 10, 20)
        yield* Effect.sleep("1 second")
        for (let i = 0; i < 5; i++) {
          yield* Effect.promise(() => redis.admin.client("KILL", "TYPE", "normal", "SKIPME", "yes"))
          yield* Effect.sleep("200 millis")
        }
        redis.signal("SIGSTOP")
        yield* Effect.sleep("1 second")
        redis.signal("SIGCONT")
        yield* Effect.sleep("1 second")
        yield* redis.kill
        yield* Effect.sleep("300 millis")
        yield* redis.start
        yield* Effect.sleep("1500 millis")
        nodes[2]!.process.kill("SIGKILL")
        yield* Effect.sleep("1 second")
        yield* redis.kill
        yield* redis.start
        yield* Effect.sleep("1500 millis")
        yield* events.stop
        yield* check(clients, events, ports[0])
        assert.isAbove(events.acknowledged.size, 6000)
        assert.isTrue(clients.some(({ connects }) => connects() > 1))
      }).pipe(Effect.provide(Logger.remove(Logger.defaultLogger))),
    60_000
  )

  it.scopedLive(
    "no acknowledged event is lost or doubled in shards, wherever clients listen and come back",
    () =>
      Effect.gen(function* () {
        const redis = yield* redisServer("--appendonly", "yes", "--appendfsync", "always")
        const ports = yield* three
        const nodes = yield* Effect.forEach(ports, (port) => start(port, redis.url, { SSE_REDIS_SHARDS: "8" }), {
          concurrency: 3
        })
        const paths = Array.from({ length: 7 }, (_, i) => `/n${i}`)
        const clients: Array<{ readonly paths: ReadonlyArray<string>; readonly seen: ResumingClient }> = []
        for (let i = 0; i < 30; i++) {
          const own = i % 3 === 0 ? paths : [paths[i % 7]!]
          const path = i % 3 === 0 ? "/subscribe/" : `/subscribe${own[0]}`
          clients.push({ paths: own, seen: yield* resumingClient(ports, path, i) })
        }
        yield* eventually(Effect.sync(() => clients.every(({ seen }) => seen.connects() > 0)))
        const events = yield* flood(ports, 10, 20, paths)
        yield* Effect.sleep("500 millis")
        for (let i = 0; i < 3; i++) {
          yield* Effect.promise(() => redis.admin.client("KILL", "TYPE", "normal", "SKIPME", "yes"))
          yield* Effect.sleep("200 millis")
        }
        nodes[2]!.process.kill("SIGKILL")
        yield* Effect.sleep("1 second")
        yield* redis.kill
        yield* redis.start
        yield* Effect.sleep("1500 millis")
        yield* events.stop
        for (const path of paths) assert.strictEqual((yield* publish(ports[0], [`end${path}`], path)).status, 202)
        const has = ({ paths, seen }: (typeof clients)[number]) =>
          paths.every((path) => seen.data.includes(`end${path}`))
        yield* eventually(Effect.sync(() => clients.every(has)))
        const pathOf = (data: string) =>
          data.startsWith("end") ? data.slice(3) : paths[Number(data.split(".")[0]) % paths.length]!
        const orders = new Map(
          paths.map((path) => [path, clients[0]!.seen.data.filter((data) => pathOf(data) === path)])
        )
        for (const client of clients) {
          const { data } = client.seen
          assert.notInclude(data, "reset")
          assert.strictEqual(new Set(data).size, data.length, "nothing twice")
          for (const path of client.paths) {
            const seen = data.filter((one) => pathOf(one) === path)
            assert.deepStrictEqual(seen, orders.get(path), "one order in a shard")
          }
          const lost = Array.from(events.acknowledged).filter(
            (one) => client.paths.includes(pathOf(one)) && !data.includes(one)
          )
          assert.deepStrictEqual(lost.slice(0, 5), [], `${lost.length} acknowledged events are missing`)
        }
        assert.isAbove(events.acknowledged.size, 2000)
        assert.isTrue(clients.some(({ seen }) => seen.connects() > 1))
      }).pipe(Effect.provide(Logger.remove(Logger.defaultLogger))),
    60_000
  )

  it.scopedLive(
    "500 clients behind nginx lose nothing while 3 nodes are restarted one after the other",
    () =>
      Effect.gen(function* () {
        const redis = yield* redisServer()
        const ports = yield* three
        const front = yield* freePort
        const folder = yield* Effect.acquireRelease(
          Effect.sync(() => mkdtempSync(join(tmpdir(), "effect-sse-nginx-"))),
          (folder) => Effect.sync(() => rmSync(folder, { recursive: true, force: true }))
        )
        const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(
          (name) => `${name}_temp_path ${folder}/${name};`
        )
        writeFileSync(
          join(folder, "nginx.conf"),
          `daemon off; master_process off; pid ${folder}/pid; error_log ${folder}/error.log; worker_processes 1;
          events { worker_connections 4096; }
          http {
            access_log off; ${temporary.join(" ")}
            upstream nodes { ${ports.map((port) => `server 127.0.0.1:${port} max_fails=0;`).join(" ")} }
            server {
              listen 127.0.0.1:${front};
              location / { proxy_pass http://nodes; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; proxy_read_timeout 1h; }
            }
          }`
        )
        const nodes = yield* Effect.forEach(ports, (port) => start(port, redis.url), { concurrency: 3 })
        yield* command("nginx", ["-c", join(folder, "nginx.conf"), "-p", folder, "-e", join(folder, "error.log")])
        const clients = yield* connectAll(500, [front])
        const events = yield* flood(ports, 20, 5)
        for (const [i, server] of nodes.entries()) {
          server.process.kill("SIGTERM")
          assert.strictEqual(yield* server.exit, 0)
          yield* start(ports[i]!, redis.url)
          yield* eventually(Effect.sync(() => clients.every(({ connects }) => connects() > 0)))
        }
        yield* Effect.sleep("500 millis")
        yield* events.stop
        yield* check(clients, events, ports[0])
        for (const { data } of clients) assert.notInclude(data, "reset")
        assert.isAbove(events.acknowledged.size, 300)
        assert.isAbove(
          clients.reduce((sum, { connects }) => sum + connects(), 0),
          900
        )
      }).pipe(Effect.provide(Logger.remove(Logger.defaultLogger))),
    60_000
  )
})

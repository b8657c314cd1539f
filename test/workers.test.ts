/** `effect-sse serve --workers`: several processes on one port. */
import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect } from "effect"
import { writeFileSync } from "node:fs"
import { node } from "./support/command.js"
import { bySecret, claims, secret, sign } from "./support/jwt.js"
import { connect, request } from "./support/rawClient.js"
import { redisServer } from "./support/redis.js"
import { resumingClient } from "./support/resuming.js"
import { eventually } from "./support/server.js"
import { certificate, handshake } from "./support/tls.js"

const serve = (env: Record<string, string> = {}, ...args: ReadonlyArray<string>) =>
  Effect.gen(function* () {
    const server = yield* node(["dist/bin.js", "serve", "--port", "0", "--workers", "2", ...args], {
      SSE_PUBLISH_TOKEN: "secret",
      SSE_DRAIN: "100 millis",
      ...env
    })
    const [, port] = yield* server.until(/https?:\/\/127\.0\.0\.1:(\d+)/)
    return { ...server, port: Number(port) }
  })

const publish = (port: number, data: string, tls = false) =>
  request(port, "/publish/n", { tls, method: "POST", headers: { Authorization: "Bearer secret" }, body: data })

/** The workers' process ids, from what they log. */
const children = (parent: number) =>
  Effect.map(
    Effect.promise(() =>
      import("node:fs/promises").then((fs) => fs.readFile(`/proc/${parent}/task/${parent}/children`, "utf8"))
    ),
    (text) => text.trim().split(" ").map(Number)
  )

describe("effect-sse serve --workers", () => {
  for (const [name, engine] of [
    ["on a log of its own", Effect.succeed({ SSE_HISTORY_EVENTS: "10000" })],
    ["on Redis", Effect.map(redisServer(), ({ url }) => ({ SSE_REDIS_URL: url }))]
  ] as const) {
    it.scopedLive(
      `all clients of all workers see one order, ${name}; one that crashes is replaced, and nothing is lost`,
      () =>
        Effect.gen(function* () {
          const server = yield* serve({ SSE_LOG: "none", ...(yield* engine) })
          const clients = yield* Effect.forEach(Array.from({ length: 20 }), () =>
            resumingClient([server.port], "/subscribe/n")
          )
          yield* eventually(Effect.sync(() => clients.every(({ connects }) => connects() > 0)))
          const expected: Array<string> = []
          const say = (data: string) =>
            Effect.gen(function* () {
              expected.push(data)
              assert.strictEqual((yield* publish(server.port, data)).status, 202)
            })
          for (let i = 0; i < 20; i++) yield* say(`a${i}`)
          yield* eventually(Effect.sync(() => clients.every(({ data }) => data.length === 20)))
          const [victim] = yield* children(server.process.pid!)
          process.kill(victim!, "SIGKILL")
          yield* eventually(Effect.sync(() => clients.some(({ connects }) => connects() === 2)))
          for (let i = 0; i < 20; i++) yield* say(`b${i}`)
          yield* eventually(
            Effect.map(children(server.process.pid!), (all) => all.length === 2 && !all.includes(victim!))
          )
          for (let i = 0; i < 20; i++) yield* say(`c${i}`)
          yield* eventually(Effect.sync(() => clients.every(({ data }) => data.at(-1) === "c19")))
          for (const { data } of clients) assert.deepStrictEqual(data, expected)
          server.process.kill("SIGTERM")
          assert.strictEqual(yield* server.exit, 0)
        })
    )
  }

  it.scopedLive("any worker shows the clients of all, and ends them", () =>
    Effect.gen(function* () {
      const server = yield* serve({ SSE_LOG: "none" })
      const clients = yield* Effect.replicateEffect(connect(server.port, "/subscribe/n"), 6)
      interface Status {
        readonly totals: { readonly nodes: number; readonly connections_total: number }
        readonly nodes: ReadonlyArray<{ readonly node: string; readonly pid: number }>
        readonly connections: ReadonlyArray<{ readonly id: number; readonly node_id: string }>
      }
      const status = Effect.map(
        request(server.port, "/admin/status.json?node=all"),
        ({ body }) => JSON.parse(body) as Status
      )
      // Either of them may be asked.
      yield* eventually(
        Effect.map(Effect.all([status, status, status]), (all) =>
          all.every(({ totals }) => totals.nodes === 2 && totals.connections_total === 6)
        )
      )
      const { connections, nodes } = yield* status
      assert.sameMembers(
        nodes.map(({ node }) => node),
        ["worker 0", "worker 1"]
      )
      assert.lengthOf(connections, 6)
      for (const { id, node_id } of connections) {
        const path = `/admin/nodes/${node_id}/clients/${id}`
        assert.strictEqual((yield* request(server.port, path, { method: "DELETE" })).status, 204)
      }
      for (const client of clients) yield* client.ended
      // One that crashes is gone, and another takes its place. Nothing is asked meanwhile: a connection that was just handed
      // to it is lost.
      const [victim] = yield* children(server.process.pid!)
      process.kill(victim!, "SIGKILL")
      yield* eventually(Effect.map(children(server.process.pid!), (all) => all.length === 2 && !all.includes(victim!)))
      yield* eventually(
        Effect.map(status, ({ nodes }) => nodes.length === 2 && nodes.every(({ pid }) => pid !== victim))
      )
      server.process.kill("SIGTERM")
      assert.strictEqual(yield* server.exit, 0)
    })
  )

  it.scopedLive("ends with every stream told when to come back, and prints a token that it made", () =>
    Effect.gen(function* () {
      const server = yield* serve({ SSE_PUBLISH_TOKEN: "" }, "--demo")
      assert.match(server.output(), /Authorization: Bearer [\w-]{24}"/)
      assert.strictEqual(server.output().split("listens on").length, 2, "told once")
      const clients = yield* Effect.replicateEffect(connect(server.port, "/subscribe/time"), 6)
      for (const client of clients) yield* client.until((body) => (body.match(/data:2/g) ?? []).length === 2)
      server.process.kill("SIGTERM")
      for (const client of clients) {
        const { body, clean } = yield* client.ended
        assert.match(body, /retry:\d+\n\n$/)
        assert.isTrue(clean)
      }
      assert.strictEqual(yield* server.exit, 0)
    })
  )

  it.scopedLive("a ticket is taken by any worker, once; what comes again with its key is published once", () =>
    Effect.gen(function* () {
      const server = yield* serve({ SSE_JWT_SECRET: secret })
      const now = Math.floor((yield* Clock.currentTimeMillis) / 1000)
      const Authorization = `Bearer ${yield* sign(bySecret(), claims(now))}`
      // Connections are handed out in turn, so what is asked an odd number of times comes to all of them.
      for (let i = 0; i < 3; i++) {
        const { body } = yield* request(server.port, "/tickets?ns=/pets", {
          method: "POST",
          headers: { Authorization }
        })
        const { ticket } = JSON.parse(body) as { readonly ticket: string }
        const heads = yield* Effect.replicateEffect(
          Effect.flatMap(connect(server.port, `/subscribe/pets?ticket=${ticket}`), ({ head }) => head),
          4
        )
        assert.deepStrictEqual(heads.map((head) => head.slice(9, 12)).sort(), ["200", "401", "401", "401"])
        const answers = yield* Effect.replicateEffect(
          request(server.port, "/publish/pets/dogs", {
            method: "POST",
            headers: { Authorization, "Idempotency-Key": `key-${i}` },
            body: "x"
          }),
          3
        )
        assert.deepStrictEqual(new Set(answers.map(({ body }) => body)).size, 1)
        assert.strictEqual(answers.filter(({ head }) => head.includes("idempotency-replayed: true")).length, 2)
      }
    })
  )

  it.scopedLive("SIGHUP: all workers read the certificate again, and streams go on", () =>
    Effect.gen(function* () {
      const { renew, tls } = yield* certificate
      const server = yield* serve({ SSE_TLS_KEY: tls.key, SSE_TLS_CERT: tls.cert })
      const clients = yield* Effect.replicateEffect(connect(server.port, "/subscribe/n", { tls: true }), 4)
      for (const client of clients) yield* client.until((body) => body !== "")
      renew("second")
      server.process.kill("SIGHUP")
      yield* server.until(/(certificate renewed[^]*){2}/)
      for (let i = 0; i < 4; i++) assert.match(yield* handshake(server.port), /^second /)
      assert.strictEqual((yield* publish(server.port, "still there", true)).status, 202)
      for (const client of clients) yield* client.until((body) => body.endsWith("data:still there\n\n"))
    })
  )

  it.scopedLive("a worker that cannot be replaced now is later, and the others go on", () =>
    Effect.gen(function* () {
      const { renew, tls } = yield* certificate
      const server = yield* serve({ SSE_TLS_KEY: tls.key, SSE_TLS_CERT: tls.cert, SSE_LOG: "json" })
      const before = yield* children(server.process.pid!)
      writeFileSync(tls.cert, "no certificate")
      process.kill(before[0]!, "SIGKILL")
      yield* server.until(/not usable[^]*not usable/)
      assert.strictEqual((yield* request(server.port, "/healthz", { tls: true })).status, 200)
      renew("second")
      yield* eventually(Effect.map(handshake(server.port), (said) => said.startsWith("second ")))
      assert.include(yield* children(server.process.pid!), before[1]!)
      assert.match(server.output(), /^\{.*worker 0 ended.*\}$/m, "logged as the workers log")
      server.process.kill("SIGTERM")
      assert.strictEqual(yield* server.exit, 0)
    })
  )

  it.scopedLive("says once what is wrong, and exits", () =>
    Effect.gen(function* () {
      const taken = yield* serve()
      for (const [args, env, message] of [
        [["--workers", "0"], {}, /--workers takes a number/],
        [["--workers", "2"], { SSE_MAX_CLIENTS: "x" }, /SSE_MAX_CLIENTS/],
        [["--workers", "2", "--port", String(taken.port)], {}, /the port is taken/]
      ] as const) {
        const server = yield* node(["dist/bin.js", "serve", "--port", "0", ...args], env)
        assert.strictEqual(yield* server.exit, 1)
        assert.match(server.output(), message)
      }
    })
  )
})

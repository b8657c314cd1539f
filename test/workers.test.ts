/** `effect-sse serve --workers`: several processes on one port. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { node } from "./support/command.js"
import { connect, request } from "./support/rawClient.js"
import { redisServer } from "./support/redis.js"
import { resumingClient } from "./support/resuming.js"
import { eventually } from "./support/server.js"

const serve = (env: Record<string, string> = {}, ...args: ReadonlyArray<string>) =>
  Effect.gen(function* () {
    const server = yield* node(["dist/bin.js", "serve", "--port", "0", "--workers", "2", ...args], {
      SSE_PUBLISH_TOKEN: "secret",
      SSE_DRAIN: "100 millis",
      ...env
    })
    const [, port] = yield* server.until(/listens on http:\/\/127\.0\.0\.1:(\d+)/)
    return { ...server, port: Number(port) }
  })

const publish = (port: number, data: string) =>
  request(port, "/publish/n", { method: "POST", headers: { Authorization: "Bearer secret" }, body: data })

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
      assert.match(server.output(), /Authorization: Bearer [\w-]{24}'/)
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

/** What operators see and do over HTTP where there are several nodes. */
import { HttpServer } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import { SseHub } from "effect-sse"
import * as RedisLog from "effect-sse/EventLog/Redis"
import * as RedisBus from "effect-sse/NodeBus/Redis"
import * as SseServer from "effect-sse/node/SseServer"
import { Context, Effect, Exit, Layer, Logger, Schema, Scope } from "effect"
import * as Schemas from "../../src/http/schemas.js"
import * as Browser from "../support/chromium.js"
import { node as run } from "../support/command.js"
import { connect, request } from "../support/rawClient.js"
import { redisServer } from "../support/redis.js"
import { eventually, port as portOf } from "../support/server.js"

const decode = Schema.decodeUnknownSync(Schema.parseJson(Schemas.Status), { onExcessProperty: "error" })

const get = (port: number, query = "") =>
  Effect.map(request(port, `/admin/status.json${query}`), ({ body, status }) => {
    assert.strictEqual(status, 200, body)
    return decode(body)
  })

const fast = { reportEvery: 50, expireAfter: 1000, answerTimeout: 500 } as const

/** A server on Redis, in this process, in a scope of its own. */
const serve = (url: string, name: string, options: SseServer.ServerOptions = {}) =>
  Effect.gen(function* () {
    const own = yield* Effect.acquireRelease(Scope.make(), (own) => Scope.close(own, Exit.void))
    const layer = SseServer.layer({ port: 0, publishToken: "secret", node: name, ...options }).pipe(
      Layer.orDie,
      Layer.provideMerge(SseHub.layerWithLog()),
      Layer.provide([Layer.orDie(RedisLog.layer({ url })), RedisBus.layer({ ...fast, url, name })]),
      Layer.provide(Logger.remove(Logger.defaultLogger))
    )
    const context = yield* Layer.buildWithScope(layer, own)
    const hub = Context.get(context, SseHub.SseHub)
    return {
      hub,
      id: hub.nodes.id,
      port: yield* Effect.provideService(portOf, HttpServer.HttpServer, Context.get(context, HttpServer.HttpServer)),
      stop: Scope.close(own, Exit.void)
    }
  })

const refusal = (port: number, path: string, method = "GET", headers: Record<string, string> = {}) =>
  Effect.map(request(port, `/admin${path}`, { method, headers }), ({ body, status }) => [
    status,
    body.startsWith("{") ? (JSON.parse(body) as { readonly error: string }).error : body.trim()
  ])

describe("the admin API of several nodes", () => {
  it.scopedLive("shows nodes, totals and clients of any, and disconnects any client from any node", () =>
    Effect.gen(function* () {
      const { url } = yield* redisServer()
      const a = yield* serve(url, "a")
      const b = yield* serve(url, "b")
      const mine = yield* connect(a.port, "/subscribe/x", { headers: { "User-Agent": "mine" } })
      const theirs = yield* connect(b.port, "/subscribe/x", { headers: { "User-Agent": "theirs" } })
      yield* theirs.until((body) => body.includes(":ok"))
      yield* eventually(Effect.map(get(a.port), ({ totals }) => totals.connections_total === 2))
      yield* a.hub.publish({ namespace: "/x", data: "1" })
      yield* b.hub.publish({ namespace: "/x", data: "2" })
      yield* eventually(Effect.map(get(a.port), ({ totals }) => totals.deliveries_total === 4))

      const status = yield* get(a.port)
      assert.strictEqual(status.node_id, a.id)
      assert.deepStrictEqual([status.connections_total, status.msgs_broadcast], [1, 1], "its own, as ever")
      assert.deepInclude(status.totals, { nodes: 2, connections_total: 2, msgs_broadcast: 2, deliveries_total: 4 })
      assert.deepStrictEqual(
        status.nodes.map(({ connections_total, id, node, self }) => [id, node, self, connections_total]),
        [
          [a.id, "a", true, 1],
          [b.id, "b", false, 1]
        ]
      )
      assert.deepStrictEqual(status.other_nodes, { status: "known" })
      const agents = (query: string) =>
        Effect.map(get(a.port, query), ({ connections }) =>
          connections.map((one) => `${one.node_id} ${one.user_agent}`)
        )
      assert.deepStrictEqual(yield* agents(""), [`${a.id} mine`])
      assert.deepStrictEqual(yield* agents(`?node=${a.id}`), [`${a.id} mine`])
      assert.deepStrictEqual(yield* agents(`?node=${b.id}`), [`${b.id} theirs`])
      assert.deepStrictEqual(yield* agents("?node=all"), [`${a.id} mine`, `${b.id} theirs`])
      assert.deepStrictEqual(yield* agents("?node=all&filter=theirs"), [`${b.id} theirs`])

      const [client] = (yield* get(a.port, `?node=${b.id}`)).connections
      assert.strictEqual(
        (yield* request(a.port, `/admin/nodes/${b.id}/clients/${client!.id}`, { method: "DELETE" })).status,
        204
      )
      yield* theirs.ended
      yield* eventually(Effect.map(get(a.port), ({ totals }) => totals.disconnects.disconnected === 1))
      // Of one's own by either path.
      const own = (yield* get(a.port)).connections[0]!.id
      assert.strictEqual(
        (yield* request(a.port, `/admin/nodes/${a.id}/clients/${own}`, { method: "DELETE" })).status,
        204
      )
      yield* mine.ended
    })
  )

  it.scopedLive("revoking on one node ends streams on another, and the token does not come back", () =>
    Effect.gen(function* () {
      const { url } = yield* redisServer()
      const old = Date.now() - 1000
      const subscribe: SseServer.ServerOptions["subscribe"] = () => Effect.succeed({ id: "ann", issuedAt: old })
      const a = yield* serve(url, "a", { subscribe })
      const b = yield* serve(url, "b", { subscribe })
      yield* eventually(Effect.map(get(a.port), ({ nodes }) => nodes.length === 2))
      const stream = yield* connect(b.port, "/subscribe/x")
      yield* stream.until((body) => body.includes(":ok"))
      assert.strictEqual(yield* a.hub.revoke("ann"), 1)
      yield* stream.ended
      assert.strictEqual((yield* get(b.port)).disconnects.revoked, 1)
      assert.strictEqual((yield* request(b.port, "/subscribe/x")).status, 401)
    })
  )

  it.scopedLive("says what is wrong with what was asked, and lets in whom it let in before", () =>
    Effect.gen(function* () {
      const server = yield* redisServer()
      const a = yield* serve(server.url, "a")
      const b = yield* serve(server.url, "b", { admin: "off" })
      yield* eventually(Effect.map(get(a.port), ({ nodes }) => nodes.length === 2))
      const remove = (path: string, headers?: Record<string, string>) => refusal(a.port, path, "DELETE", headers)
      assert.deepStrictEqual(yield* remove("/nodes/nobody/clients/1"), [404, "UnknownNode"])
      assert.deepStrictEqual(yield* remove(`/nodes/${b.id}/clients/99`), [404, "NotFound"])
      assert.deepStrictEqual(yield* remove("/nodes/nobody/clients/x"), [404, "NotFound"])
      assert.deepStrictEqual(yield* remove("/nodes//clients/1"), [404, "NotFound"])
      assert.deepStrictEqual(yield* refusal(a.port, `/nodes/${b.id}/clients/1`), [405, "MethodNotAllowed"])
      assert.deepStrictEqual(yield* refusal(a.port, "/status.json?node=nobody"), [404, "UnknownNode"])
      assert.deepStrictEqual(yield* refusal(a.port, "/status.json?node=all&after=1"), [400, "InvalidQuery"])
      // A page elsewhere, a proxy, another host, and where the admin page is off.
      const path = `/nodes/${b.id}/clients/1`
      assert.deepStrictEqual(yield* remove(path, { "Sec-Fetch-Site": "cross-site" }), [403, "Forbidden"])
      assert.deepStrictEqual(yield* remove(path, { "X-Forwarded-For": "192.0.2.1" }), [403, "Forbidden"])
      assert.deepStrictEqual(yield* remove(path, { Host: "evil.example" }), [403, "Forbidden"])
      assert.deepStrictEqual(yield* refusal(b.port, `/nodes/${a.id}/clients/1`, "DELETE"), [
        403,
        "403 admin endpoint disabled"
      ])

      // Stopped: it does not answer while it is still known.
      const child = yield* run(["dist/bin.js", "serve", "--port", "0"], { SSE_REDIS_URL: server.url, SSE_LOG: "none" })
      yield* child.until(/listens on/)
      yield* eventually(Effect.map(get(a.port), ({ nodes }) => nodes.length === 3))
      const { id } = (yield* get(a.port)).nodes.find(({ pid }) => pid === child.process.pid)!
      child.process.kill("SIGSTOP")
      assert.deepStrictEqual(yield* remove(`/nodes/${id}/clients/1`), [504, "NodeUnreachable"])
      assert.deepStrictEqual(yield* refusal(a.port, `/status.json?node=${id}`), [504, "NodeUnreachable"])
      assert.deepStrictEqual((yield* get(a.port, "?node=all")).nodes_missing, [id])
      child.process.kill("SIGKILL")

      yield* server.kill
      yield* eventually(Effect.map(get(a.port), ({ other_nodes }) => other_nodes.status === "unknown"))
      assert.lengthOf((yield* get(a.port)).nodes, 1)
      assert.deepStrictEqual(yield* remove(path), [503, "NodeUnreachable"])
      assert.match((yield* request(a.port, `/admin${path}`, { method: "DELETE" })).head, /retry-after: 5/i)
      assert.deepStrictEqual(yield* remove("/clients/99"), [404, "NotFound"], "one's own all the same")
    })
  )

  it.scopedLive(
    "three processes: totals, disconnect from another one, and one that is killed is gone",
    () =>
      Effect.gen(function* () {
        const { url } = yield* redisServer()
        const start = Effect.gen(function* () {
          const server = yield* run(["dist/bin.js", "serve", "--port", "0"], {
            SSE_REDIS_URL: url,
            SSE_REDIS_PREFIX: "three",
            SSE_PUBLISH_TOKEN: "secret",
            SSE_LOG: "none"
          })
          const [, port] = yield* server.until(/listens on http:\/\/[^:]+:(\d+)/)
          return { ...server, port: Number(port) }
        })
        const servers = yield* Effect.all([start, start, start], { concurrency: 3 })
        const [a, b, c] = servers
        const clients = yield* Effect.forEach(servers, ({ port }) =>
          Effect.forEach([1, 2], () =>
            Effect.tap(connect(port, "/subscribe/x"), ({ until }) => until((body) => body.includes(":ok")))
          )
        )
        for (const { port } of servers) {
          yield* request(port, "/publish/x", { method: "POST", headers: { Authorization: "Bearer secret" }, body: "1" })
        }
        for (const { port } of servers) {
          yield* eventually(
            Effect.map(get(port), ({ totals }) => {
              const { connections_total, deliveries_total, msgs_broadcast, nodes } = totals
              return nodes === 3 && connections_total === 6 && msgs_broadcast === 3 && deliveries_total === 18
            })
          )
        }
        const { nodes } = yield* get(a.port)
        assert.sameMembers(
          nodes.map(({ pid }) => pid),
          servers.map(({ process }) => process.pid!)
        )
        const idOf = (server: (typeof servers)[number]) => nodes.find(({ pid }) => pid === server.process.pid)!.id
        const [first] = (yield* get(a.port, `?node=${idOf(c)}`)).connections
        const path = `/admin/nodes/${idOf(c)}/clients/${first!.id}`
        assert.strictEqual((yield* request(a.port, path, { method: "DELETE" })).status, 204)
        yield* Effect.raceAll(clients[2]!.map(({ ended }) => ended))
        yield* eventually(Effect.map(get(c.port), ({ disconnects }) => disconnects.disconnected === 1))
        yield* eventually(Effect.map(get(b.port), ({ totals }) => totals.connections_total === 5))
        // Killed, it is known for 5 seconds; ended, it is gone at once.
        b.process.kill("SIGKILL")
        yield* eventually(Effect.map(get(a.port), ({ nodes }) => nodes.length === 2))
        assert.deepInclude((yield* get(a.port)).totals, { nodes: 2, connections_total: 3 })
        assert.deepStrictEqual(yield* refusal(a.port, `/nodes/${idOf(b)}/clients/1`, "DELETE"), [404, "UnknownNode"])
        c.process.kill("SIGTERM")
        assert.strictEqual(yield* c.exit, 0)
        assert.deepInclude((yield* get(a.port)).totals, { nodes: 1, connections_total: 2 })
      }),
    60_000
  )
})

describe.skipIf(!Browser.canRun)("the admin page of several nodes in Chromium", () => {
  it.scopedLive(
    "shows all nodes and their clients, and disconnects one of another node",
    () =>
      Effect.gen(function* () {
        const server = yield* redisServer()
        const a = yield* serve(server.url, "a.example")
        const context = yield* Browser.browser
        const page = yield* Effect.promise(() => context.newPage())
        const problems: Array<string> = []
        page.on("console", (message) => message.type() === "error" && problems.push(message.text()))
        page.on("pageerror", (error) => problems.push(String(error)))
        const visible = (selector: string) =>
          Effect.promise(() => page.locator(selector).first().waitFor({ timeout: 10_000 }))
        const cell = (row: string, label: string) =>
          page.locator("#nodes tr").filter({ hasText: row }).locator(`td[data-label="${label}"]`)
        const reads = (row: string, label: string, text: string) =>
          Effect.promise(() =>
            cell(row, label)
              .filter({ hasText: new RegExp(`^${text}$`) })
              .waitFor({ timeout: 10_000 })
          )
        yield* Effect.promise(() => page.goto(`http://localhost:${a.port}/admin/`))
        yield* visible("#badge.live")
        assert.isFalse(yield* Effect.promise(() => page.locator("#nodes-section").isVisible()), "it is alone")

        const b = yield* serve(server.url, "b.example")
        yield* connect(a.port, "/subscribe/x", { headers: { "User-Agent": "mine" } })
        const theirs = yield* connect(b.port, "/subscribe/x", { headers: { "User-Agent": "theirs" } })
        yield* connect(b.port, "/subscribe/y", { headers: { "User-Agent": "other" } })
        yield* reads("all 2", "Clients", "3")
        yield* reads("a.example, this one", "Clients", "1")
        yield* reads("b.example", "Clients", "2")
        yield* reads("b.example", "State", "ok")
        // The cards stay those of this node, the table is of all.
        yield* visible(`[data-card="Clients"] strong >> text=/^1$/`)
        yield* visible("#clients tr:nth-child(3)")
        assert.sameMembers(
          yield* Effect.promise(() => page.locator('#clients td[data-label="User agent"]').allTextContents()),
          ["mine", "theirs", "other"]
        )
        yield* Effect.promise(() => page.locator("#of").selectOption({ label: "this one, a.example" }))
        yield* Effect.promise(() => page.locator("#clients tr:nth-child(2)").waitFor({ state: "detached" }))
        yield* Effect.promise(() => page.locator("#of").selectOption({ label: "b.example" }))
        yield* visible("#clients >> text=theirs")
        yield* Effect.promise(() => page.getByLabel("Filter").fill("theirs"))
        yield* visible("text=1 that match, of 2")
        yield* Effect.promise(() => page.getByRole("button", { name: /^disconnect client/ }).click())
        yield* visible("#ask >> text=of b.example")
        yield* Effect.promise(() => page.locator("#ask button[value=yes]").click())
        yield* visible("text=/client \\d+ was disconnected/")
        yield* theirs.ended
        yield* reads("all 2", "Clients", "2")

        // Nothing stands out to the side on a phone.
        yield* Effect.promise(() => page.setViewportSize({ width: 390, height: 844 }))
        const [inner, outer] = yield* Effect.promise(() =>
          page.evaluate(() => [document.documentElement.scrollWidth, window.innerWidth] as const)
        )
        assert.isAtMost(inner, outer)

        yield* server.kill
        yield* visible("#nodes-note >> text=/the others are not known: Redis/")
        yield* server.start
        yield* reads("all 2", "Clients", "2")
        yield* b.stop
        yield* reads("all 1", "Clients", "1")
        assert.strictEqual(
          yield* Effect.promise(() => page.locator("#of").inputValue()),
          "all",
          "the one that was chosen is gone"
        )
        assert.deepStrictEqual(
          problems.filter((problem) => !/404|50[34]/.test(problem)),
          []
        )
      }),
    60_000
  )
})

import { assert, describe, it } from "@effect/vitest"
import { Namespace, SseError, SseHub, SseLayer, SseRoutes, Tickets } from "effect-sse"
import * as Jwt from "effect-sse/Authorize/Jwt"
import { Effect, Layer, Option, TestClock } from "effect"
import { EventSource } from "eventsource"
import { bySecret, claims, secret, sign } from "./support/jwt.js"
import { request } from "./support/rawClient.js"
import { eventually, port, serverLayer } from "./support/server.js"
import { bearer, handlerOf, json, reader, said, type Send } from "./support/web.js"

const grant: Tickets.Grant = { principal: { id: "ann" }, namespaces: [Namespace.make("/pets")] }

const routes = (options: Pick<SseRoutes.RoutesOptions, "tickets" | "ticketLifetime"> = {}) =>
  handlerOf(SseRoutes.router({ ...Jwt.make({ secret }), ...options }))

const token = (more?: object) => sign(bySecret(), claims(0, { ...more }))

const ask = (send: Send, query: string, token: string) => send(`/tickets${query}`, { ...bearer(token), method: "POST" })

const ticket = (send: Send, query = "?ns=/pets") =>
  Effect.gen(function* () {
    const response = yield* ask(send, query, yield* token())
    assert.strictEqual(response.status, 201)
    assert.strictEqual(response.headers.get("cache-control"), "no-store")
    const { expiresIn, ticket } = yield* json(response)
    assert.strictEqual(expiresIn, 30)
    assert.match(String(ticket), /^[\w-]{43}$/)
    return String(ticket)
  })

const use = (send: Send, ticket: string, path = "/pets", init?: RequestInit) =>
  send(`/subscribe${path}?ticket=${ticket}`, init)

describe("Tickets", () => {
  it.scoped("one opens one stream, for who got it, and never again", () =>
    Effect.gen(function* () {
      const hub = yield* SseHub.SseHub
      const send = yield* routes()
      const one = yield* ticket(send)
      const until = reader(yield* use(send, one))
      yield* until((body) => body !== "")
      assert.deepInclude((yield* hub.clients)[0], {
        principal: "ann",
        expiresAt: 60_000,
        requestPath: "/subscribe/pets"
      })
      for (let i = 0; i < 3; i++) {
        assert.strictEqual(yield* said(yield* use(send, one)), "401 Unauthorized")
        // The ticket is what counts where there is one.
        assert.strictEqual(yield* said(yield* use(send, one, "/pets", bearer(yield* token()))), "401 Unauthorized")
      }
      assert.strictEqual((yield* hub.clients).length, 1)
      yield* TestClock.adjust("60 seconds")
      yield* until(() => false)
      assert.strictEqual(
        (yield* hub.status).ended.expired,
        1,
        "the stream ends when the token does that the ticket was for"
      )
    }).pipe(Effect.provide(SseLayer))
  )

  it.scoped("of many that come with the same at once, one gets in", () =>
    Effect.gen(function* () {
      const hub = yield* SseHub.SseHub
      const send = yield* routes()
      const one = yield* ticket(send)
      const answers = yield* Effect.all(
        Array.from({ length: 20 }, () => use(send, one)),
        { concurrency: "unbounded" }
      )
      assert.deepStrictEqual(answers.map(({ status }) => status).sort(), [
        200,
        ...Array.from({ length: 19 }, () => 401)
      ])
      assert.strictEqual((yield* hub.clients).length, 1)
    }).pipe(Effect.provide(SseLayer))
  )

  it.scoped("works for its time, and for what it names and below", () =>
    Effect.gen(function* () {
      const hub = yield* SseHub.SseHub
      const send = yield* routes()
      const [intime, late] = [yield* ticket(send), yield* ticket(send)]
      yield* TestClock.adjust(29_999)
      assert.strictEqual((yield* use(send, intime, "/pets/dogs")).status, 200)
      yield* TestClock.adjust(1)
      assert.strictEqual(yield* said(yield* use(send, late)), "401 Unauthorized")

      const several = yield* ticket(send, "?ns=/pets/dogs&ns=/rooms/7/alerts")
      assert.strictEqual((yield* use(send, several, "/rooms/7/alerts/x")).status, 200)
      // Though the token would do.
      const narrow = yield* ticket(send, "?ns=/pets/dogs")
      assert.strictEqual(yield* said(yield* use(send, narrow, "/pets")), "403 Forbidden")
      assert.strictEqual(yield* said(yield* use(send, narrow, "/pets/dogs")), "401 Unauthorized", "it was used up")
      const badly = yield* ticket(send)
      assert.strictEqual(yield* said(yield* use(send, badly, "/%zz")), "400 InvalidNamespace")
      assert.strictEqual((yield* use(send, badly)).status, 200, "that did not use it up")
      assert.strictEqual((yield* hub.clients).length, 3)
    }).pipe(Effect.provide(SseLayer))
  )

  it.scoped("is given to who may subscribe, and to nobody else", () =>
    Effect.gen(function* () {
      const send = yield* routes()
      const good = yield* token()
      const check = (response: Effect.Effect<Response>, expected: string) =>
        Effect.map(Effect.flatMap(response, said), (text) => assert.strictEqual(text, expected))
      yield* check(send("/tickets?ns=/pets", { method: "POST" }), "401 Unauthorized")
      yield* check(ask(send, "?ns=/", good), "403 Forbidden")
      yield* check(ask(send, "?ns=/pets&ns=/time", good), "403 Forbidden")
      yield* check(ask(send, "", good), "400 BadRequest")
      yield* check(ask(send, `?${"ns=/pets&".repeat(101)}`, good), "400 LimitReached")
      yield* check(ask(send, "?ns=pets", good), "400 InvalidNamespace")
      yield* check(send("/tickets?ns=/pets", bearer(good)), "405 MethodNotAllowed")
      yield* check(send("/tickets/x?ns=/pets", { ...bearer(good), method: "POST" }), "404 NotFound")
      // A ticket gives no further ones.
      const one = yield* ticket(send)
      yield* check(send(`/tickets?ns=/pets&ticket=${one}`, { method: "POST" }), "401 Unauthorized")
      yield* check(ask(send, "?ns=/pets", yield* token({ exp: -1 })), "401 Unauthorized")
      const hub = yield* SseHub.SseHub
      yield* hub.revoke("ann")
      yield* check(ask(send, "?ns=/pets", good), "401 Unauthorized")
      yield* check(use(send, one), "401 Unauthorized")
      assert.deepStrictEqual(yield* hub.clients, [])
    }).pipe(Effect.provide(SseLayer))
  )

  it.scoped("takes the namespaces as JSON, too", () =>
    Effect.gen(function* () {
      const send = yield* routes()
      const authorization = `Bearer ${yield* token()}`
      const post = (body: string, query = "") =>
        send(`/tickets${query}`, {
          method: "POST",
          body,
          headers: { authorization, "content-type": "application/json" }
        })
      const response = yield* post('{"namespaces":["/pets/dogs","/pets/cats"]}')
      assert.strictEqual(response.status, 201)
      const { ticket } = yield* json(response)
      assert.strictEqual((yield* use(send, String(ticket), "/pets/cats")).status, 200)
      const both = yield* json(yield* post('{"namespaces":["/pets/cats"]}', "?ns=/pets/dogs"))
      assert.strictEqual(
        (yield* use(send, String(both["ticket"]), "/pets/dogs")).status,
        200,
        "those of the query as well"
      )
      for (const bad of ["", "[]", '{"namespaces":"/pets"}', '{"namespaces":[]}', '{"namespaces":[1]}', "{"]) {
        assert.strictEqual(yield* said(yield* post(bad)), "400 BadRequest", bad)
      }
      assert.strictEqual(yield* said(yield* post(" ".repeat(70_000))), "413 BodyTooLarge")
    }).pipe(Effect.provide(SseLayer))
  )

  it.scoped("what was never a ticket is refused", () =>
    Effect.gen(function* () {
      const send = yield* routes()
      for (const bad of ["", "x", "a".repeat(43), "%00", "é", "a".repeat(5000)]) {
        assert.strictEqual(yield* said(yield* use(send, bad)), "401 Unauthorized", bad)
      }
      const head = yield* use(send, yield* ticket(send), "/pets", { method: "HEAD" })
      assert.strictEqual(head.status, 200)
    }).pipe(Effect.provide(SseLayer))
  )

  it.scoped("none are given where they are off, or nobody needs one", () =>
    Effect.gen(function* () {
      const off = yield* routes({ tickets: false })
      assert.strictEqual(yield* said(yield* ask(off, "?ns=/pets", yield* token())), "404 NotFound")
      const open = yield* handlerOf(SseRoutes.router())
      assert.strictEqual(yield* said(yield* open("/tickets?ns=/pets", { method: "POST" })), "404 NotFound")
      assert.throws(() => SseRoutes.router({ ...Jwt.make({ secret }), ticketLifetime: 10 }), /1 second to 1 hour/)
    }).pipe(Effect.provide(SseLayer))
  )

  describe("the store", () => {
    it.scoped("of one's own gets digests, and what each stands for", () => {
      const kept = new Map<string, readonly [grant: Tickets.Grant, millis: number]>()
      const store: Tickets.Tickets["Type"] = {
        put: (key, grant, millis) => Effect.sync(() => void kept.set(key, [grant, millis])),
        take: (key) => Effect.sync(() => Option.map(Option.fromNullable(kept.get(key)), ([grant]) => grant))
      }
      return Effect.gen(function* () {
        const send = yield* routes({ tickets: store, ticketLifetime: "30 seconds" })
        const one = yield* ticket(send)
        const [[key, [grant, millis]]] = Array.from(kept) as [[string, readonly [Tickets.Grant, number]]]
        assert.match(key, /^[0-9a-f]{64}$/)
        assert.notInclude(JSON.stringify([...kept]), one)
        assert.deepStrictEqual(grant.namespaces, [Namespace.make("/pets")])
        assert.deepInclude(grant.principal, { id: "ann", expiresAt: 60_000 })
        assert.strictEqual(millis, 30_000)
        assert.strictEqual((yield* use(send, one)).status, 200)
      }).pipe(Effect.provide(SseLayer))
    })

    it.scoped("that cannot tell now brings subscribers back", () =>
      Effect.gen(function* () {
        const down = () => new SseError.Refused({ kind: "unavailable", reason: "no store" })
        const send = yield* routes({ tickets: { put: down, take: down } })
        assert.strictEqual(yield* said(yield* ask(send, "?ns=/pets", yield* token())), "503 Unavailable")
        const stream = yield* use(send, "x")
        assert.match(yield* Effect.promise(() => stream.text()), /^retry:\d+\n\n$/)
      }).pipe(Effect.provide(SseLayer))
    )

    it.effect("in memory gives each once, for its time, and is bounded", () =>
      Effect.gen(function* () {
        const store = yield* Tickets.Tickets
        yield* store.put("a", grant, 1000)
        assert.deepStrictEqual(yield* store.take("a"), Option.some(grant))
        assert.deepStrictEqual(yield* store.take("a"), Option.none())
        assert.deepStrictEqual(yield* store.take("b"), Option.none())
        yield* store.put("short", grant, 10)
        yield* store.put("long", grant, 2000)
        assert.deepInclude(yield* Effect.flip(store.put("more", grant, 1000)), { kind: "unavailable" })
        yield* TestClock.adjust(10)
        assert.deepStrictEqual(yield* store.take("short"), Option.none())
        yield* store.put("more", grant, 1000)
        assert.deepInclude(yield* Effect.flip(store.put("again", grant, 1000)), { kind: "unavailable" })
        yield* TestClock.adjust(2000)
        yield* store.put("c", grant, 1000)
        yield* store.put("d", grant, 1000)
        assert.deepStrictEqual(yield* store.take("long"), Option.none())
      }).pipe(Effect.provide(Tickets.layerMemory({ max: 2 })))
    )
  })

  it.scopedLive("a page with an EventSource renews its ticket when its stream is refused for good", () =>
    Effect.gen(function* () {
      const hub = yield* SseHub.SseHub
      const base = `http://127.0.0.1:${yield* port}`
      const now = Math.floor((yield* Effect.clockWith((clock) => clock.currentTimeMillis)) / 1000)
      const authorization = `Bearer ${yield* sign(bySecret(), claims(now))}`
      const got: Array<string> = []
      let tickets = 0
      let last = ""
      let closed = false
      let source: EventSource | undefined
      // What the README shows.
      const open = async (): Promise<void> => {
        const answer = await fetch(`${base}/tickets?ns=/pets`, { method: "POST", headers: { authorization } })
        const { ticket } = (await answer.json()) as { ticket: string }
        tickets++
        source = new EventSource(`${base}/subscribe/pets?ticket=${ticket}&last_event_id=${last}`)
        source.addEventListener("message", ({ data, lastEventId }) => {
          last = lastEventId
          got.push(String(data))
        })
        source.addEventListener("error", () => {
          if (source?.readyState === EventSource.CLOSED && !closed) void open()
        })
      }
      yield* Effect.acquireRelease(Effect.promise(open), () =>
        Effect.sync(() => {
          closed = true
          source?.close()
        })
      )
      yield* eventually(Effect.map(hub.clients, (clients) => clients.length === 1))
      yield* hub.publish({ namespace: "/pets", data: "one" })
      yield* eventually(Effect.sync(() => got.length === 1))
      yield* hub.disconnect((yield* hub.clients)[0]!.id)
      yield* eventually(Effect.map(hub.clients, (clients) => clients.length === 0))
      yield* hub.publish({ namespace: "/pets", data: "two, while it is away" })
      // It comes back by itself with the used ticket, is refused, and the page gets another one.
      yield* eventually(Effect.map(hub.clients, (clients) => clients.length === 1))
      yield* hub.publish({ namespace: "/pets", data: "three" })
      yield* eventually(Effect.sync(() => got.length === 3))
      assert.deepStrictEqual(got, ["one", "two, while it is away", "three"])
      assert.strictEqual(tickets, 2)
    }).pipe(Effect.provide(serverLayer({ subscribe: Jwt.make({ secret }).subscribe }, { history: { maxEvents: 10 } })))
  )

  it.scoped("is refused over a socket with a reason, and the connection is an ordinary one", () =>
    Effect.gen(function* () {
      const answer = yield* request(yield* port, "/subscribe/pets?ticket=used")
      assert.strictEqual(answer.status, 401)
      assert.match(answer.head, /\r\nwww-authenticate: Bearer\r\n/i)
      assert.strictEqual((JSON.parse(answer.body) as { error: string }).error, "Unauthorized")
      assert.notInclude(answer.head + answer.body, "ticket=")
    }).pipe(Effect.provide(Layer.fresh(serverLayer({ subscribe: Jwt.make({ secret }).subscribe }))))
  )
})

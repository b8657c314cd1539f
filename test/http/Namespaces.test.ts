import { assert, describe, it } from "@effect/vitest"
import { Authorize, SseHub } from "effect-sse"
import { Effect } from "effect"
import { connect, request } from "../support/rawClient.js"
import { port, serverLayer } from "../support/server.js"

const subscribed = Effect.flatMap(SseHub.SseHub, (hub) =>
  Effect.map(hub.clients, (clients) => clients.map(({ namespaces }) => namespaces.join(" ")))
)

const json = { "Content-Type": "application/json" }
const list = (...namespaces: ReadonlyArray<string>) => JSON.stringify({ namespaces })

describe("many namespaces over HTTP", () => {
  for (const connection of ["auto", "portable"] as const) {
    it.scopedLive(`a stream of those in the path, the query and the body; ${connection}`, () =>
      Effect.gen(function* () {
        const hub = yield* SseHub.SseHub
        const at = yield* port
        const open = (path: string, body?: string) =>
          Effect.gen(function* () {
            const before = (yield* hub.clients).length
            const client = yield* connect(at, path, body === undefined ? {} : { method: "POST", headers: json, body })
            yield* client.until((text) => text.startsWith(":ok\n\n"))
            return { client, namespaces: (yield* subscribed)[before] }
          })
        for (const [path, namespaces, body] of [
          ["/subscribe?ns=/pets/dogs&ns=/time", "/pets/dogs /time"],
          ["/subscribe/?ns=/time", "/time"],
          ["/subscribe/pets?ns=/time", "/pets /time"],
          ["/subscribe/pets?ns=/pets/dogs&x=y&ns=/pets", "/pets"],
          ["/subscribe/rooms/*/alerts", "/rooms/*/alerts"],
          ["/subscribe/rooms/%2A", "/rooms/%2A"],
          ["/subscribe?ns=/rooms/*&ns=%2Fcaf%C3%A9", "/café /rooms/*"],
          // A query is decoded once, and then read as a path is.
          ["/subscribe?ns=/rooms/%252A&ns=/a%252Fb", "/a%2Fb /rooms/%2A"],
          ["/subscribe", "/pets/dogs /rooms/*", list("/rooms/*", "/pets/dogs", "/rooms/7")],
          ["/subscribe/time?ns=/a", "/a /b /time", list("/b")]
        ] as const) {
          const { client, namespaces: shown } = yield* open(path, body)
          assert.strictEqual(shown, namespaces, path)
          if (body === undefined) continue
          // The stream that answers a POST is as good as any other.
          yield* hub.publish({ namespace: "/nobody", data: "no" })
          yield* hub.publish({ namespace: namespaces.split(" ")[0]!, data: path })
          assert.strictEqual(yield* client.until((text) => text.includes("data:")), `:ok\n\ndata:${path}\n\n`)
        }
        const both = yield* open("/subscribe?ns=/rooms/*/alerts&ns=/*/7")
        yield* hub.publishAll([
          { namespace: "/rooms/7/alerts", data: "once" },
          { namespace: "/rooms/8", data: "no" },
          { namespace: "/rooms/7", data: "last" }
        ])
        yield* both.client.until((text) => text.includes("last"))
        assert.strictEqual(both.client.body(), ":ok\n\ndata:once\n\ndata:last\n\n")
      }).pipe(Effect.provide(serverLayer({ connection })))
    )
  }

  it.scopedLive("refuses what is wrong with a reason, and registers nobody", () =>
    Effect.gen(function* () {
      const at = yield* port
      const many = Array.from({ length: 4 }, (_, i) => `ns=/n${i}`).join("&")
      const post = (body: string, headers: Record<string, string> = json) => ({ method: "POST", headers, body })
      for (const [path, status, error, said, options] of [
        ["/subscribe?ns=", 400, "InvalidNamespace", "no-leading-slash"],
        ["/subscribe?ns=pets", 400, "InvalidNamespace", "no-leading-slash"],
        ["/subscribe?ns=/a&ns=/%2e%2e", 400, "InvalidNamespace", "dot-segment"],
        ["/subscribe/*//a", 400, "InvalidNamespace", "/*//a"],
        [`/subscribe?${many}`, 400, "LimitReached", "maxNamespacesPerClient"],
        [`/subscribe/x?ns=/1&ns=/2&ns=/3`, 400, "LimitReached", "maxNamespacesPerClient is 3"],
        ["/subscribe", 415, "UnsupportedMediaType", "application/json", post("/pets", {})],
        ["/subscribe", 415, "UnsupportedMediaType", "", post(list("/a"), { "Content-Type": "application/jsonp" })],
        ["/subscribe", 400, "BadRequest", "the body is not", post("[]")],
        ["/subscribe", 400, "BadRequest", "name a namespace", post(list())],
        ["/subscribe", 400, "InvalidNamespace", "empty-segment", post(list("/a", "//"))],
        ["/subscribe", 400, "LimitReached", "", post(list("/1", "/2", "/3", "/4"))],
        ["/subscribe", 413, "BodyTooLarge", "65536", post(list("/" + "x".repeat(70_000)))]
      ] as const) {
        const answer = yield* request(at, path, options)
        assert.strictEqual(answer.status, status, path)
        assert.strictEqual((JSON.parse(answer.body.replace(/^[^{]*|[^}]*$/g, "")) as { error: string }).error, error)
        assert.include(answer.body, said)
      }
      assert.deepStrictEqual(yield* subscribed, [])
    }).pipe(Effect.provide(serverLayer({}, { maxNamespacesPerClient: 3 })))
  )

  it.scopedLive("asks for all of them at once, and a wildcard is more than any one", () =>
    Effect.gen(function* () {
      const at = yield* port
      const headers = { Authorization: "Bearer one" }
      const status = (path: string, body?: string) =>
        Effect.gen(function* () {
          const client = yield* connect(at, `/subscribe${path}`, {
            headers: { ...headers, ...(body === undefined ? {} : json) },
            ...(body === undefined ? {} : { method: "POST", body })
          })
          return Number((yield* client.head).split(" ")[1])
        })
      assert.strictEqual(yield* status("/rooms/1"), 200)
      assert.strictEqual(yield* status("?ns=/rooms/1&ns=/time/*"), 200)
      assert.strictEqual(yield* status("", list("/rooms/1/x", "/time/*/x")), 200)
      for (const path of ["/rooms/*", "/*/1", "/*", "/", "/time", "?ns=/rooms/1&ns=/rooms/*", "/rooms/1?ns=/"]) {
        assert.strictEqual(yield* status(path), 403, path)
      }
      assert.strictEqual(yield* status("", list("/rooms/1", "/rooms/2")), 403)
      assert.strictEqual((yield* subscribed).length, 3)
    }).pipe(
      Effect.provide(
        serverLayer({ subscribe: Authorize.tokens({ ann: { token: "one", namespaces: ["/rooms/1", "/time/*"] } }) })
      )
    )
  )
})

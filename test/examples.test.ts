import { assert, describe, it } from "@effect/vitest"
import { SseHub } from "effect-sse"
import { Effect } from "effect"
import { createServer, type Server } from "node:http"
import type { AddressInfo } from "node:net"
import { node } from "./support/command.js"
import { connect } from "./support/rawClient.js"
import { eventually, port, serverLayer } from "./support/server.js"

/** Runs an example as a user would, on a free port. */
const example = (name: string, env: Record<string, string> = {}) =>
  Effect.map(node(["--import", "tsx", `examples/${name}.ts`], { PORT: "0", ...env }), (command) => ({
    ...command,
    port: Effect.map(command.until(/http:\/\/127\.0\.0\.1:(\d+)/), ([, port]) => Number(port))
  }))

const text = (port: number, path: string, init?: RequestInit) =>
  Effect.promise(() => fetch(`http://127.0.0.1:${port}${path}`, init).then((response) => response.text()))

describe("examples", () => {
  it.scopedLive("clock shows the time on a page", () =>
    Effect.gen(function* () {
      const port = yield* (yield* example("clock")).port
      assert.include(yield* text(port, "/"), `new EventSource("/subscribe/time")`)
      const client = yield* connect(port, "/subscribe/time")
      yield* client.until((body) => /data:.*\d:\d\d.*\n\n/.test(body))
    })
  )

  it.scopedLive("petstore broadcasts to parents and children, and ends on SIGTERM with a stream open", () =>
    Effect.gen(function* () {
      const petstore = yield* example("petstore")
      const port = yield* petstore.port
      assert.include(yield* text(port, "/"), "/pets/dogs")
      const [pets, dogs] = yield* Effect.all([connect(port, "/subscribe/pets"), connect(port, "/subscribe/pets/dogs")])
      yield* pets.until((body) => body.includes("event:new-dog\n") && body.includes("event:new-cat\n"))
      yield* dogs.until((body) => body.includes("event:new-dog\n"))
      assert.notInclude(dogs.body(), "new-cat")
      petstore.process.kill("SIGTERM")
      assert.strictEqual(yield* petstore.exit, 0)
    })
  )

  it.scopedLive("mount adds live updates to an app", () =>
    Effect.gen(function* () {
      const port = yield* (yield* example("mount")).port
      const client = yield* connect(port, "/live/subscribe/orders")
      yield* client.until((body) => body !== "")
      assert.strictEqual(yield* text(port, "/"), "an app\n")
      assert.strictEqual(yield* text(port, "/orders/42", { method: "POST" }), `{"id":42}`)
      yield* client.until((body) => body.includes(`event:placed\ndata:{"id":42}\n\n`))
    })
  )

  it.scopedLive("chat brings what fits its schema to a room, and to a listener of all", () =>
    Effect.gen(function* () {
      const chat = yield* example("chat")
      const port = yield* chat.port
      assert.include(yield* text(port, "/"), `addEventListener("said"`)
      const [here, elsewhere] = yield* Effect.all([
        connect(port, "/subscribe/rooms/a%2Fb"),
        connect(port, "/subscribe/rooms/lobby")
      ])
      yield* Effect.all([here.until((body) => body !== ""), elsewhere.until((body) => body !== "")])
      const say = (line: unknown, room = "a%2Fb") =>
        text(port, `/rooms/${room}`, { method: "POST", body: JSON.stringify(line) })
      assert.include(yield* say({ from: " ", text: "hello" }), "from")
      assert.include(yield* say({ from: "Ann", text: "hello" }, "%0A"), "control characters")
      assert.strictEqual(yield* say({ from: " Ann ", text: "hello" }), "")
      yield* here.until((body) => body.endsWith(`event:said\ndata:{"from":"Ann","text":"hello"}\n\n`))
      yield* chat.until(/a\/b: Ann says hello/)
      yield* say({ from: "Ben", text: "hi" }, "lobby")
      yield* elsewhere.until((body) => body.endsWith("\n\n") && body.includes("Ben"))
      assert.notInclude(elsewhere.body(), "Ann")
      assert.notInclude(here.body(), "Ben")
    })
  )

  it.scopedLive("client tells what it gets, and when its server goes away", () =>
    Effect.gen(function* () {
      const hub = yield* SseHub.SseHub
      const client = yield* example("client", { SSE_URL: `http://127.0.0.1:${yield* port}/subscribe/pets` })
      yield* client.until(/online/)
      yield* hub.publish({ namespace: "/pets/dogs", event: "new-dog", data: "Corgi" })
      yield* client.until(/new-dog: Corgi/)
      yield* hub.shutdown
      yield* client.until(/offline \(ended\), again in \d+ ms/)
    }).pipe(Effect.provide(serverLayer()))
  )

  it.scopedLive("telemetry sends the metrics, and a short span for each publish and connect, to a collector", () =>
    Effect.gen(function* () {
      const received: Array<string> = []
      const collector = yield* Effect.acquireRelease(
        Effect.async<Server>((resume) => {
          const server = createServer((request, response) => {
            let body = ""
            request.setEncoding("utf8")
            request.on("data", (data: string) => (body += data))
            request.on("end", () => {
              received.push(`${request.url} ${body}`)
              response.end("{}")
            })
          }).listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
        }),
        (server) => Effect.sync(() => server.close())
      )
      const { port: collecting } = collector.address() as AddressInfo
      const port = yield* (yield* example("telemetry", { OTLP_URL: `http://127.0.0.1:${collecting}` })).port
      const client = yield* connect(port, "/subscribe/time")
      yield* client.until((body) => body.includes("data:tick"))
      const sent = (path: string, ...texts: ReadonlyArray<string>) =>
        eventually(
          Effect.sync(() =>
            texts.every((text) => received.some((body) => body.startsWith(path) && body.includes(`"${text}"`)))
          )
        )
      yield* sent("/v1/metrics", "sse_connections", "sse_publishes_total", "sse_publish_to_write_seconds")
      yield* sent("/v1/traces", "sse.publish", "sse.connect", "/time/ticks")
    })
  )

  it.scopedLive("toWebHandler answers requests without a server", () =>
    Effect.gen(function* () {
      const program = yield* example("toWebHandler")
      assert.strictEqual(yield* program.exit, 0)
      assert.include(program.output(), "200 text/event-stream")
      assert.include(program.output(), "event:new-dog\ndata:Corgi")
    })
  )
})

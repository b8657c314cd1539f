/** The client in a browser: bundled for it, and run by Chromium against a hub. */
import { assert, describe, it } from "@effect/vitest"
import { SseHub } from "effect-sse"
import { Effect } from "effect"
import { build } from "esbuild"
import * as Browser from "./support/chromium.js"
import { root } from "./support/command.js"
import { eventually, port as portOf, serverLayer } from "./support/server.js"

/** What a page would load: it shows each element as a line, and stops when it is clicked on. */
const program = `
  import { FetchHttpClient, HttpClient } from "@effect/platform"
  import * as SseClient from "effect-sse/SseClient"
  import { Effect, Fiber, Schedule, Stream } from "effect"

  const show = (line) => Effect.sync(() => {
    const item = document.createElement("p")
    item.textContent = line
    document.body.append(item)
  })
  const { url, lastEventId } = Object.fromEntries(new URLSearchParams(location.search))
  const options = { schedule: Schedule.spaced("50 millis"), maxEventBytes: 100_000, lastEventId }
  const fiber = SseClient.streamAll(url, options).pipe(
    Stream.runForEach((signal) => show(signal._tag === "Event" ? signal.event + "=" + signal.data : signal._tag)),
    Effect.catchAll((error) => show(error._tag)),
    Effect.updateService(HttpClient.HttpClient, HttpClient.withTracerPropagation(false)),
    Effect.provide(FetchHttpClient.layer),
    Effect.runFork
  )
  addEventListener("click", () => Effect.runFork(Fiber.interrupt(fiber)))
`

/** Fails where anything of Node's is imported. */
const bundle = Effect.promise(() =>
  build({
    stdin: { contents: program, resolveDir: root, loader: "js" },
    alias: { "effect-sse/SseClient": `${root}src/SseClient.ts` },
    bundle: true,
    platform: "browser",
    write: false
  })
).pipe(Effect.map(({ outputFiles }) => outputFiles[0]!.text))

describe("SseClient in a browser", () => {
  it.scopedLive("is bundled without anything of Node's", () =>
    Effect.gen(function* () {
      assert.include(yield* bundle, "text/event-stream")
    })
  )

  describe.skipIf(!Browser.canRun)("Chromium", () => {
    it.scopedLive("gets events, comes back, stops when it is told to, and says what is wrong", () =>
      Effect.gen(function* () {
        const hub = yield* SseHub.SseHub
        const port = yield* portOf
        const script = yield* bundle
        const context = yield* Browser.browser
        // A page that the hub does not serve counts as one of the wide world. Older browsers do not know this permission.
        yield* Effect.promise(() => context.grantPermissions(["local-network-access"]).catch(() => undefined))
        const clients = (count: number) => eventually(Effect.map(hub.clients, (clients) => clients.length === count))

        /** Loads the page from the hub's origin or from another; the hub itself does not serve it. */
        const open = (host: string, query: Record<string, string>) =>
          Effect.promise(async () => {
            const page = await context.newPage()
            const origin = `http://${host}:${port}`
            await page.route(`${origin}/page*`, (route) =>
              route.fulfill({
                contentType: "text/html",
                body: `<!doctype html><script src="/script.js" defer></script>`
              })
            )
            await page.route(`${origin}/script.js`, (route) =>
              route.fulfill({ contentType: "text/javascript; charset=utf-8", body: script })
            )
            await page.goto(`${origin}/page?${new URLSearchParams(query).toString()}`)
            return page
          })
        type Page = Effect.Effect.Success<ReturnType<typeof open>>
        const shows = (page: Page, ...lines: ReadonlyArray<string>) =>
          Effect.promise(async () => {
            await page.waitForFunction((count) => document.querySelectorAll("p").length >= count, lines.length)
            assert.deepStrictEqual(await page.locator("p").allTextContents(), lines)
          })

        const page = yield* open("127.0.0.1", { url: "/subscribe/pets" })
        yield* shows(page, "Connected")
        yield* hub.publish({ namespace: "/pets/dogs", event: "new-dog", data: "Corgi é€😀" })
        yield* shows(page, "Connected", "new-dog=Corgi é€😀")
        for (const { id } of yield* hub.clients) yield* hub.disconnect(id)
        yield* shows(page, "Connected", "new-dog=Corgi é€😀", "Disconnected", "Connected")
        yield* hub.publish({ namespace: "/pets", data: "again" })
        yield* shows(page, "Connected", "new-dog=Corgi é€😀", "Disconnected", "Connected", "message=again")
        yield* Effect.promise(() => page.click("body", { force: true, position: { x: 1, y: 1 } }))
        yield* clients(0)

        // From another origin, and with an id, upon which the browser asks the hub first.
        const url = `http://127.0.0.1:${port}/subscribe/pets`
        const other = yield* open("localhost", { url, lastEventId: "e-1" })
        yield* shows(other, "Connected")
        yield* hub.publish({ namespace: "/pets", data: "x".repeat(200_000) })
        yield* shows(other, "Connected", "EventTooLarge")
        yield* clients(0)

        const refused = yield* open("127.0.0.1", { url: "/subscribe/a//b" })
        yield* shows(refused, "RequestRefused")
      }).pipe(Effect.provide(serverLayer()))
    )
  })
})

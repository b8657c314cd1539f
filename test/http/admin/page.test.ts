import { assert, describe, it } from "@effect/vitest"
import { HttpServer } from "@effect/platform"
import { SseHub } from "effect-sse"
import { Context, Effect, Exit, Layer, Scope } from "effect"
import { mkdirSync } from "node:fs"
import type { Page } from "playwright-core"
import * as Browser from "../../support/chromium.js"
import { root } from "../../support/command.js"
import { connect } from "../../support/rawClient.js"
import { eventually, port as portOf, serverLayer } from "../../support/server.js"

const attack = `<img src=x onerror="document.title='owned'"><script>document.title='owned'</script>`

/** Where the screenshots go. */
const pictures = `${root}/dist/pictures`

const start = (port: number) =>
  Effect.gen(function* () {
    const scope = yield* Effect.acquireRelease(Scope.make(), (scope) => Scope.close(scope, Exit.void))
    const context = yield* Layer.buildWithScope(serverLayer({ port, node: "demo.example" }), scope)
    return {
      hub: Context.get(context, SseHub.SseHub),
      port: yield* Effect.provideService(portOf, HttpServer.HttpServer, Context.get(context, HttpServer.HttpServer)),
      stop: Scope.close(scope, Exit.void)
    }
  })

const card = (page: Page, name: string) => page.locator(`[data-card="${name}"] strong`)

describe.skipIf(!Browser.canRun)("the admin page in Chromium", () => {
  it.scopedLive(
    "shows the hub as it is, live, and what is hostile as text",
    () =>
      Effect.gen(function* () {
        const server = yield* start(0)
        const { hub, port } = server
        const origin = `http://localhost:${port}`
        const open = (path: string, userAgent: string) =>
          connect(port, `/subscribe${path}`, { headers: { "User-Agent": userAgent }, keep: () => "" })
        for (let i = 0; i < 198; i++) yield* open(`/pets/${i % 2 === 0 ? "dogs" : "cats"}`, `reader ${i}`)
        yield* open("/pets", attack)
        yield* open(`/${encodeURIComponent(attack)}`, "reader")
        yield* eventually(Effect.map(hub.clients, (clients) => clients.length === 200))
        yield* Effect.forkScoped(
          Effect.forever(
            Effect.zipRight(
              hub.publish({ namespace: "/pets/dogs", event: "new-dog", data: "Corgi" }),
              Effect.sleep("50 millis")
            )
          )
        )

        const context = yield* Browser.browser
        const page = yield* Effect.promise(() => context.newPage())
        const problems: Array<string> = []
        page.on("console", (message) => message.type() === "error" && problems.push(message.text()))
        page.on("pageerror", (error) => problems.push(String(error)))
        page.on("dialog", (dialog) => problems.push(dialog.message()))
        page.on("request", (request) => {
          const url = request.url()
          if (!url.startsWith(`${origin}/admin/`) && !url.startsWith("data:")) problems.push(`asked for ${url}`)
        })
        const visible = (selector: string, timeout = 10_000) =>
          Effect.promise(() => page.locator(selector).first().waitFor({ timeout }))
        const reads = (locator: ReturnType<typeof card>, text: string) =>
          Effect.promise(() => locator.filter({ hasText: new RegExp(`^${text}$`) }).waitFor({ timeout: 10_000 }))
        yield* Effect.promise(() => page.goto(`${origin}/admin/`))

        // Counts agree with the API.
        yield* reads(card(page, "Clients"), "200")
        const status = yield* Effect.promise(
          () =>
            fetch(`${origin}/admin/status.json`).then((response) => response.json()) as Promise<{
              connections_total: number
            }>
        )
        assert.strictEqual(status.connections_total, 200)
        yield* visible("text=the first 100 of 200")
        yield* visible(`[data-key="/pets/dogs"] >> text=99 listening`)

        // What is new shows within two seconds.
        yield* hub.publish({ namespace: "/fresh/one", data: "first" })
        yield* visible(`[data-key="/fresh/one"]`, 2000)
        yield* Effect.promise(() => page.getByRole("button", { name: "watch /fresh", exact: true }).click())
        yield* visible("text=watching /fresh")
        yield* hub.publish({ namespace: "/fresh/one", event: "news", data: attack })
        yield* visible("#watched li", 2000)
        assert.strictEqual(yield* Effect.promise(() => page.locator("#watched li pre").first().textContent()), attack)

        // Hostile names and user agents are text.
        assert.strictEqual(
          yield* Effect.promise(() => page.locator("#tree .name").filter({ hasText: "onerror" }).first().textContent()),
          attack.replaceAll("/", "%2F")
        )
        yield* Effect.promise(() => page.getByLabel("Filter").fill("onerror"))
        yield* visible("text=2 that match, of 200")
        assert.strictEqual(
          yield* Effect.promise(() => page.locator('#clients td[data-label="User agent"]').first().textContent()),
          attack
        )
        assert.strictEqual(yield* Effect.promise(() => page.title()), "effect-sse")

        // Disconnect asks first, by keyboard.
        yield* Effect.promise(() => page.getByLabel("Filter").fill("reader 42"))
        yield* visible("text=1 that match, of 200")
        const button = page.getByRole("button", { name: /^disconnect client/ })
        let deletes = 0
        page.on("request", (request) => request.method() === "DELETE" && deletes++)
        yield* Effect.promise(() => button.press("Enter"))
        yield* Effect.promise(() => page.locator("#ask").waitFor())
        yield* Effect.promise(() => page.keyboard.press("Escape"))
        yield* Effect.promise(() => page.locator("#ask").waitFor({ state: "hidden" }))
        yield* Effect.promise(() => button.press("Enter"))
        yield* Effect.promise(() => page.keyboard.press("Tab"))
        yield* Effect.promise(() => page.keyboard.press("Enter"))
        yield* visible("text=/client \\d+ was disconnected/")
        yield* reads(card(page, "Clients"), "199")
        yield* visible("#reasons >> text=disconnected")
        assert.strictEqual((yield* hub.status).ended.disconnected, 1)
        assert.strictEqual(deletes, 1, "none by Escape")

        // A tree of any shape that clients ask for can be drawn.
        const deep = yield* connect(port, `/subscribe/${"a/".repeat(1020)}`, { keep: () => "" })
        for (let i = 0; i < 60; i++) yield* hub.publish({ namespace: `/deep/${`${i}/`.repeat(60)}`, data: "x" })
        yield* visible(`[data-key="/deep"]`)
        yield* visible(`[data-key="/a"]`)
        deep.socket.destroy()

        // Pictures for people.
        yield* Effect.promise(() => page.getByLabel("Filter").fill(""))
        yield* Effect.promise(() => page.getByRole("button", { name: "watch /pets", exact: true }).click())
        yield* visible("text=the first 100 of 199")
        yield* visible("#watched >> text=Corgi")
        mkdirSync(pictures, { recursive: true })
        for (const [name, width, height, colorScheme] of [
          ["desktop", 1280, 1000, "light"],
          ["dark", 1280, 1000, "dark"],
          ["phone", 390, 844, "light"]
        ] as const) {
          yield* Effect.promise(() => page.emulateMedia({ colorScheme }))
          yield* Effect.promise(() => page.setViewportSize({ width, height }))
          yield* Effect.promise(() => page.evaluate(() => window.scrollTo(0, 0)))
          yield* Effect.promise(() => page.screenshot({ path: `${pictures}/${name}.png` }))
          // Nothing stands out to the side.
          const [inner, outer] = yield* Effect.promise(() =>
            page.evaluate(() => [document.documentElement.scrollWidth, window.innerWidth] as const)
          )
          assert.isAtMost(inner, outer, name)
        }

        // A lost server is told, and one that comes back is picked up.
        assert.deepStrictEqual(problems, [])
        yield* server.stop
        yield* visible("#badge.lost")
        const again = yield* start(port)
        for (let i = 0; i < 3; i++) yield* open("/again", "reader")
        yield* visible("#badge.live", 20_000)
        yield* reads(card(page, "Clients"), "3")
        yield* again.hub.publish({ namespace: "/again", data: "x" })
        yield* visible(`[data-key="/again"]`)
        // The watch pane as well.
        yield* visible("text=watching /pets")
        yield* again.hub.publish({ namespace: "/pets/dogs", data: "a dog after the restart" })
        yield* visible("#watched >> text=a dog after the restart")
        // A refused connection is the only thing that may have gone wrong meanwhile.
        assert.deepStrictEqual(
          problems.filter(
            (problem) => !/ERR_CONNECTION_REFUSED|ERR_INCOMPLETE_CHUNKED|ERR_CONNECTION_RESET/.test(problem)
          ),
          []
        )
      }),
    60_000
  )

  // With SSE_PICTURES=1: the README's picture, after two minutes in which something goes on.
  const draw = process.env["SSE_PICTURES"] === "1" ? it.scopedLive : () => {}
  draw(
    "is drawn for the README",
    () =>
      Effect.gen(function* () {
        const { hub, port } = yield* start(0)
        const names = ["/pets", "/pets/dogs", "/pets/cats", "/time", "/rooms/1", "/rooms/2", "/rooms/1/alerts"]
        const agents = ["Firefox/140.0", "Chrome/142.0", "Safari/26.0", "curl/8.14"]
        const busy = Effect.forEach(
          Array.from({ length: 400 }, (_, i) => i),
          (i) =>
            Effect.zipRight(
              Effect.sleep(`${i * 200} millis`),
              connect(port, `/subscribe${names[i % names.length]}`, {
                headers: { "User-Agent": agents[(i * 7) % agents.length]! },
                keep: () => ""
              })
            ),
          { concurrency: "unbounded" }
        )
        yield* Effect.forkScoped(busy)
        yield* Effect.forkScoped(
          Effect.iterate(0, {
            while: () => true,
            body: (i) =>
              hub
                .publish({ namespace: names[i % names.length]!, event: "new-dog", data: `event ${i}` })
                .pipe(
                  Effect.zipRight(Effect.sleep(`${Math.round(30 + 25 * Math.sin(i / 150))} millis`)),
                  Effect.as(i + 1)
                )
          })
        )
        yield* Effect.sleep("2 minutes")
        const context = yield* Browser.browser
        const page = yield* Effect.promise(() => context.newPage())
        yield* Effect.promise(() => page.setViewportSize({ width: 1280, height: 1000 }))
        yield* Effect.promise(() => page.goto(`http://localhost:${port}/admin/`))
        yield* Effect.promise(() => page.getByRole("button", { name: "watch /pets", exact: true }).click())
        yield* Effect.sleep("3 seconds")
        yield* Effect.promise(() => page.screenshot({ path: `${root}/test/http/admin/desktop.png` }))
      }),
    200_000
  )
})

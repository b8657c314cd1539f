/** A real browser: the machine's Chromium. */
import { Effect, type Scope } from "effect"
import { accessSync, constants, mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { delimiter, join } from "node:path"
import { type BrowserContext, chromium } from "playwright-core"

const find = (): string | undefined => {
  for (const program of ["chromium", "chromium-browser", "google-chrome"]) {
    for (const folder of (process.env["PATH"] ?? "").split(delimiter)) {
      try {
        accessSync(join(folder, program), constants.X_OK)
        return join(folder, program)
      } catch {
        // Not here.
      }
    }
  }
  return undefined
}

export const executable = find()

/** With `CI=true` the tests run, and fail, where the browser is missing. */
export const canRun = executable !== undefined || process.env["CI"] === "true"

if (executable === undefined) {
  process.stderr.write(
    "chromium is missing: tests of the admin page wait for it (on Debian: apt-get install chromium)\n"
  )
}

const args = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--disable-dev-shm-usage"
]

/** A browser with a profile of its own, closed with the scope. */
export const browserWith = (options: {
  readonly ignoreHTTPSErrors?: boolean
}): Effect.Effect<BrowserContext, never, Scope.Scope> =>
  Effect.gen(function* () {
    if (executable === undefined) throw new Error("chromium is missing; on Debian: apt-get install chromium")
    const profile = yield* Effect.acquireRelease(
      Effect.sync(() => mkdtempSync(join(tmpdir(), "effect-sse-chromium-"))),
      (folder) => Effect.sync(() => rmSync(folder, { recursive: true, force: true }))
    )
    return yield* Effect.acquireRelease(
      Effect.promise(() =>
        chromium.launchPersistentContext(profile, { executablePath: executable, args, headless: true, ...options })
      ),
      (context) => Effect.promise(() => context.close())
    )
  })

export const browser = browserWith({})

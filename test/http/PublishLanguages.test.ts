/** The programs of the README that publish from other languages, where there is something to run them. */
import { assert, describe, it } from "@effect/vitest"
import { SseTest } from "effect-sse"
import { Effect } from "effect"
import { execFile, execFileSync } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { root } from "../support/command.js"
import { port, serverLayer } from "../support/server.js"

const readme = readFileSync(`${root}README.md`, "utf8")
const section = readme.slice(readme.indexOf("## Publishing from other systems"), readme.indexOf("\n## Resume"))

const program = (language: string): string => {
  const code = new RegExp("```" + language + "\\n([^]*?)```").exec(section)?.[1]
  if (code === undefined) throw new Error(`no program in ${language}`)
  return code
}

const has = (command: string, ...args: ReadonlyArray<string>): boolean => {
  try {
    execFileSync(command, args, { stdio: "ignore" })
    return true
  } catch {
    return false
  }
}

const folder = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "effect-sse-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
)

const run = (command: string, args: ReadonlyArray<string>, env: Record<string, string> = {}) =>
  Effect.async<string>((resume) => {
    const child = execFile(
      command,
      args,
      { env: { ...process.env, ...env }, timeout: 60_000 },
      (error, stdout, stderr) =>
        resume(error === null ? Effect.succeed(stdout) : Effect.die(`${error.message}\n${stderr}`))
    )
    return Effect.sync(() => child.kill())
  })

const hub = { keepalive: false } as const

describe("README: publishing from other systems", () => {
  it.scopedLive.runIf(has("curl", "--json", "x", "--version"))("curl", () =>
    Effect.gen(function* () {
      const all = yield* SseTest.connect("/")
      const command = program("sh").replace("localhost:8001", `127.0.0.1:${yield* port}`)
      const [first, second] = [yield* run("sh", ["-c", command], env), yield* run("sh", ["-c", command], env)]
      assert.match(first, /^\{"positions":\["[^"]+","[^"]+"\]\}$/)
      assert.strictEqual(second, first)
      assert.deepStrictEqual(yield* all.events, [
        { event: "paid", data: '{"amount":12.5}' },
        { event: "message", data: "3 left" }
      ])
    }).pipe(Effect.provide(serverLayer({}, hub)))
  )

  it.scopedLive.runIf(has("python3", "--version"))("Python", () =>
    Effect.gen(function* () {
      const all = yield* SseTest.connect("/")
      const url = `http://127.0.0.1:${yield* port}/publish`
      const call = `print(len(publish("${url}", "secret", [{"namespace": "/a", "data": "é"}, {"namespace": "/b", "json": [1]}])))`
      assert.strictEqual(yield* run("python3", ["-c", `${program("python")}\n${call}`]), "2\n")
      assert.deepStrictEqual(
        (yield* all.events).map(({ data }) => data),
        ["é", "[1]"]
      )
    }).pipe(Effect.provide(serverLayer({}, hub)))
  )

  it.scopedLive.runIf(has("go", "version"))(
    "Go",
    () =>
      Effect.gen(function* () {
        const all = yield* SseTest.connect("/")
        const file = join(yield* folder, "main.go")
        const url = `http://127.0.0.1:${yield* port}/publish`
        writeFileSync(
          file,
          `package main
import ("fmt"; "io"; "net/http"; neturl "net/url"; "os"; "strings")
${program("go")}
func main() {
	if err := publish("${url}", "secret", "/a/b", "new & hot", "é\\nx"); err != nil { fmt.Println(err); os.Exit(1) }
	fmt.Println(publish("${url}", "wrong", "/a", "", ""))
}`
        )
        assert.include(yield* run("go", ["run", file], { GOFLAGS: "-mod=mod", GOPROXY: "off" }), "403 Forbidden")
        assert.deepStrictEqual(yield* all.events, [{ event: "new & hot", data: "é\nx" }])
      }).pipe(Effect.provide(serverLayer({}, hub))),
    60_000
  )
})

const env = { SSE_PUBLISH_TOKEN: "secret" }

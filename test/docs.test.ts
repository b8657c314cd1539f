/** The documentation: every public export has it, and every program in it compiles. */
import { assert, describe, it } from "@effect/vitest"
import { execFileSync } from "node:child_process"
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { root } from "./support/command.js"

const sources = readdirSync(`${root}src`, { recursive: true, encoding: "utf8" })
  .filter((file) => file.endsWith(".ts"))
  .map((file) => ({ file: `src/${file}`, text: readFileSync(`${root}src/${file}`, "utf8") }))

/** Files of the public surface: the others are closed by package.json, or say that they are internal. */
const isPublic = ({ file, text }: { readonly file: string; readonly text: string }) =>
  !file.startsWith("src/internal/") && !/^(#!.*\n)?\/\*\*(?:(?!\*\/)[^])*@internal/.test(text)

describe("docs", () => {
  it("every public export is documented", () => {
    const missing: Array<string> = []
    for (const { file, text } of sources.filter(isPublic)) {
      for (const match of text.matchAll(
        /^(?: {2})?export (?:abstract )?(?:const|type|interface|class|function|\*|\{).*/gm
      )) {
        const doc = /\/\*\*((?:(?!\*\/)[^])*)\*\/\s*$/.exec(text.slice(0, match.index))?.[1]
        const reexport =
          /^export (type )?\{$/.test(match[0]) && /\/\*\*/.test(text.slice(match.index, match.index + 40))
        if (!reexport && (doc === undefined || !/@since|@internal/.test(doc)))
          missing.push(`${file}: ${match[0].slice(0, 80)}`)
      }
    }
    assert.deepStrictEqual(missing, [])
  })

  it("every member of the hub is documented", () => {
    const hub = sources.find(({ file }) => file === "src/SseHub.ts")!.text
    const service = /Context\.Tag\("effect-sse\/SseHub"\)<\s*SseHub,\s*\{([^]*?)\n {2}\}\n>/.exec(hub)![1]!
    const members = service.match(/^ {4}readonly \w+/gm) ?? []
    assert.isAbove(members.length, 5)
    assert.strictEqual(service.match(/\*\/\s*\n {4}readonly \w+/g)?.length, members.length)
  })

  it("every program compiles", () => {
    const blocks: Array<{ readonly from: string; readonly code: string }> = []
    const readme = readFileSync(`${root}README.md`, "utf8")
    for (const [, code] of readme.matchAll(/```ts\n([^]*?)```/g)) blocks.push({ from: "README.md", code: code! })
    for (const { file, text } of sources) {
      for (const [, code] of text.matchAll(/^[ ]*\* ```ts\n([^]*?)\* ```/gm)) {
        blocks.push({ from: file, code: code!.replace(/^[ ]*\* ?/gm, "") })
      }
    }
    assert.isAbove(blocks.length, 8)
    const folder = `${root}node_modules/.cache/effect-sse-docs`
    rmSync(folder, { recursive: true, force: true })
    mkdirSync(folder, { recursive: true })
    blocks.forEach(({ code, from }, i) => {
      // The export makes each a module, as a user's file is.
      writeFileSync(`${folder}/${String(i).padStart(3, "0")}.ts`, `// ${from}\n${code}\nexport {}\n`)
    })
    writeFileSync(
      `${folder}/tsconfig.json`,
      JSON.stringify({
        extends: "../../../tsconfig.json",
        compilerOptions: { noUnusedLocals: false, noUnusedParameters: false, rootDir: "../../.." },
        include: ["*.ts"]
      })
    )
    try {
      execFileSync(process.execPath, [`${root}node_modules/typescript/bin/tsc`, "-p", folder], { encoding: "utf8" })
    } catch (error) {
      assert.fail(String((error as { readonly stdout?: string }).stdout))
    }
  })
})

import { fileURLToPath } from "node:url"
import { defineConfig } from "vitest/config"

const src = fileURLToPath(new URL("./src/", import.meta.url))

export default defineConfig({
  resolve: {
    alias: [
      { find: /^effect-sse$/, replacement: `${src}index.ts` },
      { find: /^effect-sse\/(.*)$/, replacement: `${src}$1.ts` }
    ]
  },
  test: {
    // CI reads the counts from a file.
    reporters: process.env["VITEST_JSON"] === undefined ? ["default"] : ["default", "json"],
    outputFile: { json: process.env["VITEST_JSON"] ?? "" },
    include: ["test/**/*.test.ts"],
    testTimeout: 30_000,
    hookTimeout: 30_000,
    pool: "forks",
    poolOptions: { forks: { execArgv: ["--expose-gc"] } }
  }
})

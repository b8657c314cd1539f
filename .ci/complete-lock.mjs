// Completes package-lock.json after an install from a registry that does not hold the binaries of other platforms: npm
// then leaves them out, and `npm ci` refuses the lock file. Run it after each `npm install` that changes the lock file.
import { readFileSync, writeFileSync } from "node:fs"

const file = new URL("../package-lock.json", import.meta.url)
const lock = JSON.parse(readFileSync(file, "utf8"))
const systems = ["darwin", "linux", "win32", "android", "freebsd", "openbsd", "netbsd", "openharmony", "sunos", "aix"]
const processors = ["x64", "arm64", "arm", "ia32", "ppc64", "riscv64", "s390x", "loong64", "mips64el"]

for (const parent of Object.values(lock.packages)) {
  for (const [name, version] of Object.entries(parent.optionalDependencies ?? {})) {
    const words = name.split("/").pop().split(/[-.]/)
    const os = systems.find((system) => words.includes(system))
    const cpu = processors.find((processor) => words.includes(processor))
    const path = `node_modules/${name}`
    // Only exact versions of what names its platform: anything else is for npm to resolve.
    if (lock.packages[path] !== undefined || os === undefined || cpu === undefined || !/^\d/.test(version)) continue
    const libc = words.some((word) => word.startsWith("musl"))
      ? { libc: ["musl"] }
      : words.some((word) => word.startsWith("gnu") || word === "glibc") && os === "linux"
        ? { libc: ["glibc"] }
        : {}
    lock.packages[path] = { version, cpu: [cpu], dev: true, optional: true, os: [os], ...libc }
  }
}
const sorted = Object.entries(lock.packages).sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0))
lock.packages = Object.fromEntries(sorted)
writeFileSync(file, `${JSON.stringify(lock, null, 2)}\n`)

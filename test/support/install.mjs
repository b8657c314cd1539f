/**
 * Before the tests: installs what some of them need and a fresh machine lacks, where that is possible without asking: as
 * root on Debian or Ubuntu. Elsewhere it says what is missing. It never fails; the tests that need the thing say so
 * themselves, and fail when `CI=true`.
 */
import { spawnSync } from "node:child_process"
import { accessSync, constants } from "node:fs"
import { delimiter, join } from "node:path"

const needed = [
  { package: "chromium", programs: ["chromium", "chromium-browser", "google-chrome"], tests: "of the admin page" },
  { package: "redis-server", programs: ["redis-server", "valkey-server"], tests: "on Redis" },
  { package: "nghttp2-client", programs: ["h2load"], tests: "of HTTP/2" },
  { package: "curl", programs: ["curl"], tests: "of programs of the README" },
  { package: "python3", programs: ["python3"], tests: "of programs of the README" },
  { package: "openssl", programs: ["openssl"], tests: "of TLS" },
  { package: "nginx-light", programs: ["nginx"], tests: "of a rolling restart" }
]

const has = (program) =>
  (process.env.PATH ?? "").split(delimiter).some((folder) => {
    try {
      accessSync(join(folder, program), constants.X_OK)
      return true
    } catch {
      return false
    }
  })

const missing = () => needed.filter(({ programs }) => !programs.some(has))

if (missing().length > 0 && process.platform === "linux" && process.getuid?.() === 0 && has("apt-get")) {
  const apt = (...args) =>
    spawnSync("apt-get", ["-qq", "-o", "Acquire::Retries=3", ...args], {
      env: { ...process.env, DEBIAN_FRONTEND: "noninteractive" },
      stdio: ["ignore", "ignore", "inherit"]
    })
  const packages = missing().map((need) => need.package)
  process.stdout.write(`installing ${packages.join(" and ")} for the tests\n`)
  apt("update")
  apt("install", "-y", "--no-install-recommends", ...packages)
}

for (const { package: name, tests } of missing()) {
  process.stdout.write(`${name} is missing: the tests ${tests} wait for it (on Debian: apt-get install ${name})\n`)
}

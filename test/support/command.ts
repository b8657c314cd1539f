/** A program in a process of its own, killed with the scope. */
import { Effect, type Scope } from "effect"
import { type ChildProcess, spawn } from "node:child_process"
import { fileURLToPath } from "node:url"

export const root = fileURLToPath(new URL("../..", import.meta.url))

export interface Command {
  readonly process: ChildProcess
  /** What it wrote so far, to either stream. */
  readonly output: () => string
  /** Waits until the output matches. */
  readonly until: (text: RegExp) => Effect.Effect<RegExpExecArray>
  /** Waits for the end; gives the exit code or the signal. */
  readonly exit: Effect.Effect<number | NodeJS.Signals | null>
}

/** Runs Node with these arguments in the project's root. */
export const node = (args: ReadonlyArray<string>, env?: Record<string, string>) => command(process.execPath, args, env)

/** Runs a program with these arguments in the project's root. */
export const command = (
  program: string,
  args: ReadonlyArray<string>,
  env: Record<string, string> = {}
): Effect.Effect<Command, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const child = spawn(program, args, { cwd: root, env: { PATH: process.env["PATH"], ...env } })
      let output = ""
      const listeners = new Set<() => void>()
      const add = (data: Buffer) => {
        output += data.toString()
        listeners.forEach((listener) => listener())
      }
      child.stdout.on("data", add)
      child.stderr.on("data", add)
      const exited = new Promise<number | NodeJS.Signals | null>((resolve) =>
        child.once("close", (code, signal) => resolve(code ?? signal))
      )
      return {
        process: child,
        output: () => output,
        until: (text: RegExp) =>
          Effect.async<RegExpExecArray>((resume) => {
            const check = () => {
              const match = text.exec(output)
              if (match === null) return
              listeners.delete(check)
              resume(Effect.succeed(match))
            }
            listeners.add(check)
            check()
          }),
        exit: Effect.promise(() => exited)
      }
    }),
    ({ process }) => Effect.sync(() => process.kill("SIGKILL"))
  )

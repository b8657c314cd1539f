/** A client on a bare socket: it sees every byte, and can stop reading, vanish, or send what no library would. */
import { Data, Effect, type Scope } from "effect"
import * as Net from "node:net"

/** The connection could not be made, or ended before what was waited for came. */
export class Disconnected extends Data.TaggedError("Disconnected")<{ readonly message: string }> {}

export interface RawClient {
  readonly socket: Net.Socket
  /** The response's head, once it is whole. */
  readonly head: Effect.Effect<string, Disconnected>
  /** The body so far, without chunk framing. */
  readonly body: () => string
  /** Waits until the body satisfies the predicate; fails when the connection ends before. */
  readonly until: (predicate: (body: string) => boolean) => Effect.Effect<string, Disconnected>
  /** Waits for the end of the body; `clean` tells whether it was whole. */
  readonly ended: Effect.Effect<{ readonly body: string; readonly clean: boolean }>
}

export interface RawOptions {
  readonly method?: string
  readonly headers?: Record<string, string>
  readonly body?: string
  readonly httpVersion?: "1.0" | "1.1"
  /** Keeps of the body what this leaves of each piece. */
  readonly keep?: (piece: string) => string
  /** Do not read the answer. */
  readonly paused?: boolean
  readonly host?: string
}

export const rawRequest = (path: string, options: RawOptions = {}): string => {
  const headers = {
    Host: "localhost",
    ...(options.body === undefined ? {} : { "Content-Length": String(Buffer.byteLength(options.body)) }),
    ...options.headers
  }
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`)
  return `${options.method ?? "GET"} ${path} HTTP/${options.httpVersion ?? "1.1"}\r\n${lines.join("")}\r\n${options.body ?? ""}`
}

export const connect = (
  port: number,
  path: string,
  options: RawOptions = {}
): Effect.Effect<RawClient, Disconnected, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.async<Net.Socket, Disconnected>((resume) => {
      const socket = Net.connect(port, options.host ?? "127.0.0.1", () => resume(Effect.succeed(socket)))
      socket.once("error", (error) => resume(Effect.fail(new Disconnected(error))))
    }),
    (socket) => Effect.sync(() => socket.destroy())
  ).pipe(
    Effect.map((socket) => {
      const client = watch(socket, options.keep ?? ((piece) => piece))
      if (options.paused === true) socket.pause()
      socket.write(rawRequest(path, options))
      return client
    })
  )

const watch = (socket: Net.Socket, keep: (piece: string) => string): RawClient => {
  let raw = Buffer.alloc(0)
  let head: string | undefined
  let body = ""
  let closed = false
  let clean = false
  const decoder = new TextDecoder()
  const listeners = new Set<() => void>()
  const notify = () => listeners.forEach((listener) => listener())

  const read = () => {
    if (head === undefined) {
      const end = raw.indexOf("\r\n\r\n")
      if (end === -1) return
      head = raw.subarray(0, end).toString()
      raw = raw.subarray(end + 4)
    }
    if (!/transfer-encoding: chunked/i.test(head)) {
      body += keep(decoder.decode(raw, { stream: true }))
      raw = Buffer.alloc(0)
      return
    }
    for (;;) {
      const line = raw.indexOf("\r\n")
      if (line === -1) return
      const size = Number.parseInt(raw.subarray(0, line).toString(), 16)
      if (raw.length < line + 2 + size + 2) return
      if (size === 0) clean = true
      body += keep(decoder.decode(raw.subarray(line + 2, line + 2 + size), { stream: true }))
      raw = raw.subarray(line + 2 + size + 2)
    }
  }
  socket.on("data", (data) => {
    raw = Buffer.concat([raw, data])
    read()
    notify()
  })
  socket.on("error", () => {})
  socket.on("close", () => {
    closed = true
    notify()
  })

  const waitFor = <A>(look: () => A | undefined): Effect.Effect<A, Disconnected> =>
    Effect.async((resume) => {
      const check = () => {
        const found = look()
        if (found === undefined && !closed) return
        listeners.delete(check)
        resume(
          found === undefined
            ? Effect.fail(new Disconnected({ message: `connection closed; head: ${head ?? ""}; body: ${body}` }))
            : Effect.succeed(found)
        )
      }
      listeners.add(check)
      check()
      return Effect.sync(() => listeners.delete(check))
    })

  return {
    socket,
    head: waitFor(() => head),
    body: () => body,
    until: (predicate) => waitFor(() => (predicate(body) ? body : undefined)),
    ended: Effect.orDie(waitFor(() => (closed || clean ? { body, clean } : undefined)))
  }
}

/** Asks once, and gives the whole answer. */
export const request = (
  port: number,
  path: string,
  options: RawOptions = {}
): Effect.Effect<
  { readonly status: number; readonly head: string; readonly body: string },
  Disconnected,
  Scope.Scope
> =>
  Effect.gen(function* () {
    const client = yield* connect(port, path, { ...options, headers: { Connection: "close", ...options.headers } })
    const head = yield* client.head
    const { body } = yield* client.ended
    return { status: Number(head.split(" ")[1]), head, body }
  })

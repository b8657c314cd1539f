/** Certificates made for a test, and an HTTP/2 client that sees each stream. */
import { Effect, type Scope } from "effect"
import { execFileSync } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import * as Http2 from "node:http2"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Tls from "node:tls"
import { eventually } from "./server.js"

export interface Certificate {
  /** Of the files. */
  readonly tls: { readonly key: string; readonly cert: string }
  readonly pem: () => { readonly key: string; readonly cert: string }
  /** Puts another key and certificate in the files, for this name. */
  readonly renew: (name: string) => void
}

/** A key and a certificate for localhost in files of their own. */
export const certificate: Effect.Effect<Certificate, never, Scope.Scope> = Effect.gen(function* () {
  const folder = yield* Effect.acquireRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), "effect-sse-tls-"))),
    (folder) => Effect.sync(() => rmSync(folder, { recursive: true, force: true }))
  )
  const tls = { key: join(folder, "key.pem"), cert: join(folder, "cert.pem") }
  const renew = (name: string) =>
    void execFileSync(
      "openssl",
      ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"].concat(
        ["-keyout", tls.key, "-out", tls.cert, "-subj", `/CN=${name}`],
        ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
      ),
      { stdio: "ignore" }
    )
  renew("first")
  return { tls, pem: () => ({ key: readFileSync(tls.key, "utf8"), cert: readFileSync(tls.cert, "utf8") }), renew }
})

/** The names of the certificate and the protocol that a new connection gets. */
export const handshake = (port: number, options: Tls.ConnectionOptions = {}) =>
  Effect.async<string, Error>((resume) => {
    const socket = Tls.connect({ port, host: "127.0.0.1", rejectUnauthorized: false, ...options }, () => {
      const said = `${socket.getPeerCertificate().subject.CN} ${socket.alpnProtocol} ${socket.getProtocol()}`
      socket.destroy()
      resume(Effect.succeed(said))
    })
    socket.on("error", (error) => resume(Effect.fail(error)))
  })

export interface Http2Stream {
  readonly stream: Http2.ClientHttp2Stream
  readonly head: () => Http2.IncomingHttpHeaders & Http2.IncomingHttpStatusHeader
  readonly body: () => string
  /** Waits until the body satisfies the predicate. */
  readonly until: (predicate: (body: string) => boolean) => Effect.Effect<string>
  /** Waits for the end; `code` is that of RST_STREAM, 0 without one. */
  readonly ended: Effect.Effect<{ readonly body: string; readonly code: number | undefined }>
}

export interface Http2Client {
  readonly session: Http2.ClientHttp2Session
  readonly get: (
    path: string,
    options?: { readonly paused?: boolean; readonly keep?: (data: string) => string }
  ) => Http2Stream
}

/** A connection to a server over TLS, whoever it is. */
export const http2 = (
  port: number,
  options: Http2.SecureClientSessionOptions = {}
): Effect.Effect<Http2Client, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.async<Http2.ClientHttp2Session>((resume) => {
      const session = Http2.connect(`https://127.0.0.1:${port}`, { rejectUnauthorized: false, ...options }, () =>
        resume(Effect.succeed(session))
      )
      session.on("error", (error) => resume(Effect.die(error)))
    }),
    (session) => Effect.sync(() => session.destroy())
  ).pipe(
    Effect.map((session) => ({
      session,
      get: (path, { keep = (data: string) => data, paused = false } = {}) =>
        watch(session.request({ ":path": path }), paused, keep)
    }))
  )

export const watch = (
  stream: Http2.ClientHttp2Stream,
  paused = false,
  keep: (data: string) => string = (data) => data
): Http2Stream => {
  let head: ReturnType<Http2Stream["head"]> = {}
  let body = ""
  let closed = false
  stream.on("response", (headers) => (head = headers))
  stream.on("error", () => {})
  stream.on("close", () => (closed = true))
  stream.setEncoding("utf8")
  if (!paused) stream.on("data", (data: string) => (body += keep(data)))
  return {
    stream,
    head: () => head,
    body: () => body,
    until: (predicate) =>
      eventually(
        Effect.sync(() => {
          if (!predicate(body) && closed) throw new Error(`the stream ended: ${stream.rstCode} ${body.slice(0, 200)}`)
          return predicate(body)
        })
      ).pipe(Effect.map(() => body)),
    ended: eventually(Effect.sync(() => closed)).pipe(Effect.map(() => ({ body, code: stream.rstCode })))
  }
}

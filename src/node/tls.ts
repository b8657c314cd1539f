/**
 * A Node server for HTTP/2 and HTTP/1.1 over TLS, with the bounds that Node leaves open.
 *
 * @internal
 */
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import type * as Scope from "effect/Scope"
import { X509Certificate } from "node:crypto"
import { readFile } from "node:fs/promises"
import type * as Http from "node:http"
import * as Http2 from "node:http2"
import type * as Net from "node:net"
import { createSecureContext } from "node:tls"
import { TlsError } from "../SseError.js"
import * as NodeConnection from "./NodeConnection.js"

/**
 * The server's private key and certificate, each as the path of a PEM file or as PEM.
 *
 * @internal
 */
export interface TlsOptions {
  readonly key: string
  readonly cert: string
}

/**
 * Times in ms.
 *
 * @internal
 */
export interface Limits {
  readonly requestTimeout: number
  readonly headersTimeout: number
  readonly connectionsCheckingInterval: number
  readonly maxHeaderSize: number
  readonly maxStreamsPerConnection: number
}

/** @internal */
export interface Listener {
  readonly server: Http.Server
  /**
   * Tells all HTTP/2 clients that the server takes no more requests on their connection (RFC 9113 section 6.8). A connection
   * closes when its last stream has ended.
   */
  readonly goAway: () => void
}

/**
 * Makes it.
 *
 * Files are read again on SIGHUP, for as long as the scope is open. What is wrong then is logged, and changes nothing.
 *
 * @internal
 */
export const make = (tls: TlsOptions, limits: Limits): Effect.Effect<Listener, TlsError, Scope.Scope> =>
  Effect.gen(function* () {
    const server = Http2.createSecureServer({
      ...(yield* load(tls)),
      ...secure,
      allowHTTP1: true,
      // For HTTP/1.1; Node sets it on HTTP/2 connections.
      noDelay: true,
      handshakeTimeout: limits.headersTimeout,
      settings: { maxConcurrentStreams: limits.maxStreamsPerConnection, maxHeaderListSize: limits.maxHeaderSize }
    })
    // Not options of this server, but it asks for them where it speaks HTTP/1.1. They are the defaults of Node's HTTP server.
    Object.assign(server, limits, { keepAliveTimeout: 5000, requireHostHeader: true })

    const sockets = new Set<Net.Socket>()
    server.on("connection", (socket: Net.Socket) => {
      sockets.add(socket)
      socket.once("close", () => sockets.delete(socket))
    })
    const sessions = new Set<Http2.ServerHttp2Session>()
    server.on("session", (session) => {
      sessions.add(session)
      session.once("close", () => sessions.delete(session))
      closeWhenIdle(session, limits.requestTimeout)
    })
    server.on("stream", (stream, headers) => {
      if (sizeOf(headers) > limits.maxHeaderSize) {
        // Node sees to it only when the client has acknowledged the setting.
        stream.close(Http2.constants.NGHTTP2_ENHANCE_YOUR_CALM)
        stream.destroy()
      } else if (!stream.endAfterHeaders) limitRequest(stream, limits.requestTimeout)
    })
    if (!isPem(tls.key) || !isPem(tls.cert)) yield* renewOnHangup(server, tls)

    return {
      // Its compatibility API is that of HTTP/1, but for this; the types of Node do not say so.
      server: Object.assign(server, {
        closeAllConnections: () => sockets.forEach((socket) => socket.destroy())
      }) as unknown as Http.Server,
      goAway: () => sessions.forEach((session) => session.close())
    }
  })

const secure = { minVersion: "TLSv1.2" } as const

/** As SETTINGS_MAX_HEADER_LIST_SIZE counts (RFC 9113 section 6.5.2). */
const sizeOf = (headers: Http2.IncomingHttpHeaders): number => {
  let size = 0
  for (const name in headers) size += name.length + String(headers[name]).length + 32
  return size
}

/** Node keeps a connection without streams for ever; with none for so long, it goes. */
const closeWhenIdle = (session: Http2.ServerHttp2Session, millis: number): void => {
  const close = () => {
    session.close()
    NodeConnection.destroy(session, false)
  }
  const wait = () => setTimeout(close, millis).unref()
  let timer = wait()
  let open = 0
  const closed = () => {
    if (--open === 0 && !session.destroyed) timer = wait()
  }
  session.on("stream", (stream) => {
    if (open++ === 0) clearTimeout(timer)
    stream.once("close", closed)
  })
  session.once("close", () => clearTimeout(timer))
}

/** Ends a request whose body does not arrive in time, as Node does on HTTP/1.1. */
const limitRequest = (stream: Http2.ServerHttp2Stream, millis: number): void => {
  const timer = setTimeout(() => {
    if (!stream.headersSent) stream.respond({ ":status": 408 }, { endStream: true })
    // The response may be whole while the request is not (RFC 9113 section 8.1).
    stream.close(Http2.constants.NGHTTP2_NO_ERROR)
  }, millis).unref()
  const arrived = () => clearTimeout(timer)
  stream.once("end", arrived)
  stream.once("close", arrived)
}

const isPem = (text: string): boolean => text.includes("-----BEGIN")

const load = (tls: TlsOptions): Effect.Effect<{ readonly key: string; readonly cert: string }, TlsError> =>
  Effect.all({ key: read("key", tls.key), cert: read("cert", tls.cert) }).pipe(
    Effect.tap((pair) =>
      Effect.try({
        try: () => createSecureContext({ ...pair, ...secure }),
        catch: (error) => new TlsError({ reason: `the key or the certificate is not usable: ${reasonOf(error)}` })
      })
    )
  )

const read = (name: keyof TlsOptions, source: string): Effect.Effect<string, TlsError> =>
  isPem(source)
    ? Effect.succeed(source)
    : Effect.tryPromise({
        try: () => readFile(source, "utf8"),
        // Without the path: should it be a mistake, it is a key.
        catch: (error) => new TlsError({ reason: `the file of the ${names[name]}: ${reasonOf(error).split(", ")[0]}` })
      })

const names = { key: "key", cert: "certificate" }

const reasonOf = (error: unknown): string => (error instanceof Error ? error.message : String(error))

const renewOnHangup = (server: Http2.Http2SecureServer, tls: TlsOptions): Effect.Effect<void, never, Scope.Scope> =>
  Effect.gen(function* () {
    // One that comes while the files are read has them read once more.
    const asked = yield* Queue.sliding<void>(1)
    yield* Effect.acquireRelease(
      Effect.sync(() => {
        const ask = () => void asked.unsafeOffer()
        process.on("SIGHUP", ask)
        return ask
      }),
      (ask) => Effect.sync(() => process.off("SIGHUP", ask))
    )
    const renew = Effect.gen(function* () {
      const pair = yield* load(tls)
      // Connections that are open keep theirs.
      server.setSecureContext({ ...pair, ...secure })
      yield* Effect.logInfo("certificate renewed").pipe(
        Effect.annotateLogs("validTo", new X509Certificate(pair.cert).validTo)
      )
    })
    yield* Queue.take(asked).pipe(
      Effect.zipRight(renew),
      Effect.catchAll((error) => Effect.logError(`certificate not renewed: ${error.message}`)),
      Effect.forever,
      Effect.forkScoped
    )
  })

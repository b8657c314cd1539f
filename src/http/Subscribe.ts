/**
 * `GET /subscribe/<namespace>`: the stream.
 *
 * @internal
 */
import * as HttpApp from "@effect/platform/HttpApp"
import * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Effect from "effect/Effect"
import * as Scope from "effect/Scope"
import * as Connection from "../Connection.js"
import * as Namespace from "../Namespace.js"
import * as NodeConnection from "../node/NodeConnection.js"
import { SseHub } from "../SseHub.js"
import * as Refusal from "./Refusal.js"
import { splitUrl } from "./url.js"

export interface SubscribeOptions {
  readonly clientAddress: (request: HttpServerRequest.HttpServerRequest) => string
  readonly connection: "auto" | "portable"
}

/** Any page may read, as with the Go server; no credentials are allowed with `*`. */
const cors = { "access-control-allow-origin": "*" }

const allow = "GET, HEAD, OPTIONS"

const head = {
  ...cors,
  // A transforming proxy would hold events back to compress them.
  "cache-control": "no-cache, no-transform",
  "x-accel-buffering": "no",
  "x-content-type-options": "nosniff"
}

const contentType = "text/event-stream"

/** @param path the raw path behind `/subscribe`, without the query */
export const handle = (
  path: string,
  options: SubscribeOptions
): Effect.Effect<
  HttpServerResponse.HttpServerResponse,
  never,
  SseHub | HttpServerRequest.HttpServerRequest | Scope.Scope
> =>
  Effect.gen(function* () {
    const request = yield* HttpServerRequest.HttpServerRequest
    if (request.method === "OPTIONS") {
      return HttpServerResponse.empty({
        headers: {
          ...cors,
          allow,
          "access-control-allow-methods": allow,
          "access-control-allow-headers": "last-event-id, cache-control",
          "access-control-max-age": "86400"
        }
      })
    }
    if (request.method !== "GET" && request.method !== "HEAD") return Refusal.methodNotAllowed(allow)
    const hub = yield* SseHub
    const namespace = yield* Namespace.parse(path === "" ? "/" : path, { maxBytes: hub.maxNamespaceBytes })
    if (request.method === "HEAD") {
      return HttpServerResponse.empty({ status: 200, headers: { ...head, "content-type": contentType } })
    }
    const connection = open(request, options.connection, hub)
    const connected = hub.connect({
      namespaces: [namespace],
      connection,
      requestPath: splitUrl(request.originalUrl)[0],
      address: options.clientAddress(request),
      userAgent: request.headers["user-agent"]
    })
    const scope = yield* Effect.scope
    // The scope's own finalizer and not Effect.acquireRelease, which costs more than all the rest of a connect: it compares
    // all fiber refs.
    const release = Scope.addFinalizer(
      scope,
      Effect.sync(() => connection.close())
    )
    yield* Effect.uninterruptible(Effect.zipRight(connected, release))
    if ("respond" in connection) {
      // The last thing before the answer is sent, with the headers that middleware has set.
      yield* HttpApp.appendPreResponseHandler((_, response) =>
        Effect.sync(() => {
          connection.respond(response)
          return response
        })
      )
    }
    return HttpServerResponse.stream(connection.stream, { contentType, headers: head })
  }).pipe(
    Effect.catchTags({
      InvalidNamespace: (error) => Effect.succeed(Refusal.invalidNamespace(error)),
      // A browser that is answered anything but 200 never comes back. This one is told when to.
      HubClosed: () =>
        Effect.gen(function* () {
          const hub = yield* SseHub
          return HttpServerResponse.uint8Array(yield* hub.farewell, { contentType, headers: head })
        })
    })
  )

const open = (
  request: HttpServerRequest.HttpServerRequest,
  kind: SubscribeOptions["connection"],
  hub: SseHub["Type"]
): NodeConnection.NodeConnection | Connection.PortableConnection => {
  const response = NodeConnection.responseOf(request)
  if (response !== undefined && kind === "auto" && NodeConnection.canTakeOver(response)) {
    return NodeConnection.make(response)
  }
  const connection = Connection.makePortable({
    keepalive: hub.keepalive,
    // The fiber that writes the body waits for a client that does not read; only the end of the response frees it.
    onAbrupt: () => response?.destroy()
  })
  return connection
}

/**
 * `GET /subscribe/<namespace>`: the stream.
 *
 * @internal
 */
import * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
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
    const address = options.clientAddress(request)
    const connection = open(request, options.connection, hub)
    yield* Effect.acquireRelease(
      hub.connect({
        namespaces: [namespace],
        connection,
        requestPath: splitUrl(request.originalUrl)[0],
        address,
        userAgent: request.headers["user-agent"]
      }),
      () => Effect.sync(connection.close)
    )
    return HttpServerResponse.stream(connection.stream, { contentType, headers: head })
  }).pipe(
    Effect.catchTags({
      InvalidNamespace: (error) => Effect.succeed(Refusal.invalidNamespace(error)),
      HubClosed: (error) => Effect.succeed(Refusal.unavailable(error.message))
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
  // A response that never got the socket, as it is pipelined behind another one, does not hear of the socket's end.
  if (response?.socket === null) response.req.socket?.once("close", connection.close)
  return connection
}

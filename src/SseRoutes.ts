/**
 * The HTTP side: the stream and the publish API, as a router value and as a router layer over the same handlers.
 *
 * @since 0.1.0
 */
import * as HttpLayerRouter from "@effect/platform/HttpLayerRouter"
import * as HttpRouter from "@effect/platform/HttpRouter"
import * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import type * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import * as ClientAddress from "./http/ClientAddress.js"
import * as Pipelining from "./http/Pipelining.js"
import * as Publish from "./http/Publish.js"
import * as Subscribe from "./http/Subscribe.js"
import { splitUrl } from "./http/url.js"
import { SseHub } from "./SseHub.js"

/**
 * Options of the routes.
 *
 * @since 0.1.0
 * @category models
 */
export interface RoutesOptions extends ClientAddress.ClientAddressOptions {
  /** What publishers send as `Authorization: Bearer <token>`. Default: none, and publishing over HTTP is refused (403). */
  readonly publishToken?: Redacted.Redacted<string> | string | undefined
  /** The largest body of a publish, in bytes; a larger one is refused (413). Default: 1 MiB. */
  readonly maxBodyBytes?: number | undefined
  /**
   * `auto`: where the server is Node's, streams are written straight to the socket, at a fraction of the cost.
   * `portable`: always as a `Stream` through the `HttpServer`. The bytes are the same. Default: `auto`.
   */
  readonly connection?: "auto" | "portable" | undefined
}

type Handler = Effect.Effect<
  HttpServerResponse.HttpServerResponse,
  never,
  SseHub | HttpServerRequest.HttpServerRequest | Scope.Scope
>

const handlers = (options: RoutesOptions = {}) => {
  const subscribe: Subscribe.SubscribeOptions = {
    clientAddress: ClientAddress.make(options),
    connection: options.connection ?? "auto"
  }
  const publish: Publish.PublishOptions = {
    token: typeof options.publishToken === "string" ? Redacted.make(options.publishToken) : options.publishToken,
    maxBodyBytes: options.maxBodyBytes ?? 1024 * 1024
  }
  if (publish.token !== undefined && Redacted.value(publish.token) === "") throw new Error("publishToken is empty")
  /** @param prefix what stands before the namespace in the URL the handler sees */
  return (prefix: { readonly subscribe: string; readonly publish: string }) => ({
    subscribe: at(prefix.subscribe, (path) => Subscribe.handle(path, subscribe)),
    publish: at(prefix.publish, (path) => Publish.handle(path, publish))
  })
}

// The raw URL is used, not the router's parameter, which is decoded: in it "%2F" would look like a slash.
const at = (prefix: string, handle: (path: string) => Handler): Handler =>
  Effect.flatMap(
    HttpServerRequest.HttpServerRequest,
    (request) =>
      Pipelining.refuse(request) ?? Effect.interruptible(handle(splitUrl(request.url)[0].slice(prefix.length)))
  )

/**
 * `/subscribe/*` and `/publish/*` as an `HttpRouter`, to be served, or mounted in a router of your own under any prefix.
 *
 * | route | answers |
 * |---|---|
 * | `GET /subscribe/<namespace>` | 200 and the stream; `/subscribe/` is everything |
 * | `HEAD /subscribe/<namespace>` | the same head; nobody is registered |
 * | `POST /publish/<namespace>?event=&id=&retry=` | 202 `{"position":"..."}`; the body is the data |
 * | the same with `content-type: application/x-ndjson` | 202 `{"positions":[...]}`; all lines are published or none |
 *
 * A refusal has a JSON body `{"error","message"}`: 400 bad input, 401 or 403 token, 405 method, 413 body too large, 415
 * media type, 503 publishing while shutting down.
 *
 * @throws Error if the options make no sense (see {@link RoutesOptions})
 * @since 0.1.0
 * @category routes
 * @example
 * ```ts
 * import { HttpRouter, HttpServerResponse } from "@effect/platform"
 * import { SseRoutes } from "effect-sse"
 *
 * const app = HttpRouter.empty.pipe(
 *   HttpRouter.get("/", HttpServerResponse.text("hello")),
 *   HttpRouter.mount("/live", SseRoutes.router({ publishToken: "secret" }))
 * )
 * ```
 */
export const router = (options?: RoutesOptions): HttpRouter.HttpRouter<never, SseHub> => {
  // Mounted as apps and not as routes: a route would be looked up by its decoded path, and one that cannot be decoded
  // would be 404 instead of saying what is wrong with it.
  const { publish, subscribe } = handlers(options)({ subscribe: "", publish: "" })
  return HttpRouter.empty.pipe(HttpRouter.mountApp("/subscribe", subscribe), HttpRouter.mountApp("/publish", publish))
}

/**
 * The same routes as a layer for `HttpLayerRouter`. When the layer is released, before the server is, the hub is shut
 * down, so that open streams end and the server can close.
 *
 * @throws Error if the options make no sense (see {@link RoutesOptions})
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { HttpLayerRouter } from "@effect/platform"
 * import { NodeHttpServer } from "@effect/platform-node"
 * import { SseLayer, SseRoutes } from "effect-sse"
 * import { Layer } from "effect"
 * import { createServer } from "node:http"
 *
 * const ServerLayer = HttpLayerRouter.serve(SseRoutes.layer({ publishToken: "secret" })).pipe(
 *   Layer.provide(SseLayer),
 *   Layer.provide(NodeHttpServer.layer(createServer, { port: 8001 }))
 * )
 * ```
 */
export const layer = (options?: RoutesOptions): Layer.Layer<never, never, HttpLayerRouter.HttpRouter | SseHub> => {
  const { publish, subscribe } = handlers(options)({ subscribe: "/subscribe", publish: "/publish" })
  return HttpLayerRouter.use((router) =>
    Effect.gen(function* () {
      const hub = yield* SseHub
      yield* Effect.addFinalizer(() => hub.shutdown)
      for (const [path, handler] of [
        ["/subscribe", subscribe],
        ["/publish", publish]
      ] as const) {
        const provided = Effect.provideService(handler, SseHub, hub)
        yield* router.add("*", path, provided)
        yield* router.add("*", `${path}/*`, provided)
      }
    })
  )
}

/** What the types promise. They are checked by `npm run types`; run, these tests only keep the file in the suite. */
import type {
  HttpClient,
  HttpLayerRouter,
  HttpRouter,
  HttpServer,
  HttpServerError,
  HttpServerRequest
} from "@effect/platform"
import { describe, expectTypeOf, it } from "@effect/vitest"
import {
  type Authorize,
  Connection,
  type EventLog,
  SseClient,
  SseConfig,
  type SseError,
  SseHub,
  SseLayer,
  SseRoutes
} from "effect-sse"
import * as Jwt from "effect-sse/Authorize/Jwt"
import * as SseServer from "effect-sse/node/SseServer"
import { type ConfigError, Context, Effect, type Layer, type Scope, type Stream } from "effect"

describe("types", () => {
  it("SseLayer needs nothing and cannot fail", () => {
    expectTypeOf(SseLayer).toEqualTypeOf<Layer.Layer<SseHub.SseHub>>()
    expectTypeOf(SseHub.layer).returns.toEqualTypeOf<Layer.Layer<SseHub.SseHub>>()
    expectTypeOf(SseHub.layerWithLog).returns.toEqualTypeOf<Layer.Layer<SseHub.SseHub, never, EventLog.EventLog>>()
    expectTypeOf(SseHub.layerConfig(SseConfig.hubFromEnv)).toEqualTypeOf<
      Layer.Layer<SseHub.SseHub, ConfigError.ConfigError>
    >()
  })

  it("the routes need the hub, and no error is left", () => {
    expectTypeOf(SseRoutes.router()).toEqualTypeOf<HttpRouter.HttpRouter<never, SseHub.SseHub>>()
    expectTypeOf(SseRoutes.layer()).toEqualTypeOf<
      Layer.Layer<never, never, HttpLayerRouter.HttpRouter | SseHub.SseHub>
    >()
    expectTypeOf(SseServer.layer()).toEqualTypeOf<
      Layer.Layer<HttpServer.HttpServer, HttpServerError.ServeError, SseHub.SseHub>
    >()
  })

  it("what a hook needs, the routes need; what each request has, they do not", () => {
    class A extends Context.Tag("A")<A, string>() {}
    class B extends Context.Tag("B")<B, string>() {}
    const a: Authorize.Authorize<A | HttpServerRequest.HttpServerRequest | Scope.Scope> = () =>
      Effect.map(A, (id) => ({ id }))
    const b: Authorize.Authorize<B> = () => Effect.map(B, (id) => ({ id }))
    const routes = () => SseRoutes.router({ subscribe: a, publish: b, admin: "off" })
    expectTypeOf(routes).returns.toEqualTypeOf<HttpRouter.HttpRouter<never, SseHub.SseHub | A | B>>()
    const layer = () => SseRoutes.layer({ subscribe: (request, namespaces) => a(request, namespaces), metrics: b })
    expectTypeOf(layer).returns.toEqualTypeOf<
      Layer.Layer<never, never, HttpLayerRouter.HttpRouter | SseHub.SseHub | A | B>
    >()
    const server = () => SseServer.layer({ publish: b, subscribe: "open" })
    expectTypeOf(server).returns.toEqualTypeOf<
      Layer.Layer<HttpServer.HttpServer, HttpServerError.ServeError, SseHub.SseHub | B>
    >()
    const plain = () => SseRoutes.router({ ...Jwt.make({ secret: "" }), admin: "loopback" })
    expectTypeOf(plain).returns.toEqualTypeOf<HttpRouter.HttpRouter<never, SseHub.SseHub>>()
    // @ts-expect-error a misspelt hook would let everyone in
    const misspelt = () => SseRoutes.router({ subscribes: b })
    // @ts-expect-error a hook says who it is, or refuses
    const silent = () => SseRoutes.router({ subscribe: () => Effect.succeed(true) })
    expectTypeOf([misspelt, silent]).toBeArray()
  })

  it("bodies cannot fail", () => {
    expectTypeOf(Connection.makePortable).returns.toHaveProperty("stream").toEqualTypeOf<Stream.Stream<Uint8Array>>()
  })

  it("a publisher meets only errors it can act on", () => {
    expectTypeOf<SseHub.SseHub["Type"]["publish"]>().returns.toEqualTypeOf<
      Effect.Effect<string, SseError.InvalidEvent | SseError.HubClosed | SseError.EventLogError>
    >()
  })

  it("a client needs an HttpClient, and fails with what another attempt does not mend", () => {
    expectTypeOf(SseClient.stream).returns.toEqualTypeOf<
      Stream.Stream<SseClient.Event, SseError.SseClientError, HttpClient.HttpClient>
    >()
    expectTypeOf<SseClient.Event>().toExtend<{ event: string; data: string; id: string }>()
    expectTypeOf<SseClient.Signal["_tag"]>().toEqualTypeOf<"Connected" | "Event" | "Reset" | "Disconnected">()
  })
})

/**
 * `GET /subscribe` straight from Node's server, where it is ours and no hook is to be asked: the fiber, scope, router and
 * services that the platform gives each request cost twice what the connect does, and after a restart all clients come at
 * once. What is not a plain success is left to the router.
 *
 * @internal
 */
import type * as Headers from "@effect/platform/Headers"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as FiberId from "effect/FiberId"
import * as Option from "effect/Option"
import * as Runtime from "effect/Runtime"
import type * as Http from "node:http"
import * as ClientAddress from "../http/ClientAddress.js"
import * as Cors from "../http/Cors.js"
import * as Refusal from "../http/Refusal.js"
import * as Subscribe from "../http/Subscribe.js"
import { splitUrl } from "../http/url.js"
import * as Immediate from "../internal/immediate.js"
import { SseHub } from "../SseHub.js"
import type { RoutesOptions } from "../SseRoutes.js"
import * as NodeConnection from "./NodeConnection.js"

/** @returns whether it takes the request */
export type Take = (request: Http.IncomingMessage, response: Http.ServerResponse) => boolean

type Options = ClientAddress.ClientAddressOptions & Pick<RoutesOptions<unknown>, "connection" | "cors" | "subscribe">

export const make = (options: Options): Effect.Effect<Take, never, SseHub> => {
  const { connection = "auto", subscribe = "open" } = options
  if (connection !== "auto" || subscribe !== "open") return Effect.succeed(() => false)
  const cors = Cors.make(options.cors)
  const settings = { clientAddress: ClientAddress.make(options) }
  return Effect.map(Effect.all([SseHub, Effect.runtime(), Effect.clock]), ([hub, runtime, clock]) =>
    taker(hub, Runtime.runFork(runtime), cors, settings, new Heads(clock))
  )
}

const taker =
  (
    hub: SseHub["Type"],
    fork: <A>(effect: Effect.Effect<A>) => Fiber.RuntimeFiber<A>,
    cors: Cors.Cors,
    settings: Pick<Subscribe.SubscribeOptions<never>, "clientAddress">,
    heads: Heads
  ): Take =>
  (source, response) => {
    if (source.method !== "GET" || !NodeConnection.canTakeOver(response)) return false
    const path = pathOf(source.url!)
    if (path === undefined) return false
    const request = new Request(source)
    const send = (head: HttpServerResponse.HttpServerResponse) => answer(response, cors.onto(request, head))
    try {
      if (cors.refusal(request) !== undefined) return false
      const wanted = Subscribe.readUrl(path, request, hub)
      if (HttpServerResponse.isServerResponse(wanted)) return false
      const connection = NodeConnection.make(response)
      const registered = Subscribe.register(wanted, request, connection, settings, hub)
      const exit = Immediate.unsafeRun(registered)
      if (exit !== undefined && Exit.isSuccess(exit)) {
        const head = cors.onto(request, Subscribe.headOf(exit.value, hub))
        const written = heads.of(head, response)
        if (written === undefined) {
          answer(response, head)
          heads.keep(head, response)
        } else {
          connection.takeOver(written)
        }
        return true
      }
      const fiber = fork(
        Subscribe.answer(exit ?? registered, connection, hub).pipe(
          Effect.catchAllDefect(Refusal.failed),
          Effect.map(send)
        )
      )
      // It may wait for the log.
      if (fiber.unsafePoll() === null) response.once("close", () => fiber.unsafeInterruptAsFork(FiberId.none))
    } catch (defect) {
      fork(Effect.map(Refusal.failed(defect), send))
    }
    return true
  }

/**
 * The head that Node wrote last. To write it is a tenth of what a connect costs, and within a second all clients of a kind get
 * the same.
 */
class Heads {
  private last:
    | { readonly head: HttpServerResponse.HttpServerResponse; readonly second: number; readonly written: string }
    | undefined

  constructor(private readonly clock: Clock.Clock) {}

  /** The text of this head; `undefined`: Node has to write it. */
  of(head: HttpServerResponse.HttpServerResponse, response: Http.ServerResponse): string | undefined {
    return this.last?.head === head && this.last.second === this.second && isPlain(response)
      ? this.last.written
      : undefined
  }

  keep(head: HttpServerResponse.HttpServerResponse, response: Http.ServerResponse): void {
    const written = "_header" in response ? response._header : undefined
    if (isPlain(response) && typeof written === "string") this.last = { head, second: this.second, written }
  }

  /** Of a time with the seconds of the header `Date`. */
  private get second(): number {
    return Math.floor(this.clock.unsafeCurrentTimeMillis() / 1000)
  }
}

/** Those of other kinds get other heads. */
const isPlain = ({ req, shouldKeepAlive }: Http.ServerResponse): boolean => shouldKeepAlive && req.httpVersion === "1.1"

const prefix = "/subscribe"

/** What stands behind `/subscribe`; `undefined` if that is not where the URL leads. */
const pathOf = (url: string): string | undefined => {
  if (!url.startsWith(prefix)) return undefined
  const path = splitUrl(url)[0].slice(prefix.length)
  return path === "" || path.startsWith("/") ? path : undefined
}

class Request implements Subscribe.Request {
  readonly method = "GET"
  readonly url: string
  readonly headers: Headers.Headers
  constructor(private readonly source: Http.IncomingMessage) {
    this.url = source.url!
    this.headers = source.headers as Headers.Headers
  }
  get originalUrl(): string {
    return this.url
  }
  get remoteAddress(): Option.Option<string> {
    return Option.fromNullable(this.source.socket.remoteAddress)
  }
}

const answer = (
  response: Http.ServerResponse,
  { body, headers, status }: HttpServerResponse.HttpServerResponse
): void => {
  if (response.writableEnded) return
  response.writeHead(status, headers)
  response.end(body._tag === "Uint8Array" ? body.body : undefined)
}

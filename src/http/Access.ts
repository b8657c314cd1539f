/**
 * Who may subscribe, publish, see the admin page and the metrics: a word for the plain rules, or a hook.
 *
 * @since 0.1.0
 */
import * as HttpBody from "@effect/platform/HttpBody"
import * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import type { Authorize } from "../Authorize.js"
import type { Principal } from "../HubClient.js"
import { root } from "../Namespace.js"
import type { NamespacePattern } from "../NamespacePattern.js"
import { Refused } from "../SseError.js"
import { SseHub } from "../SseHub.js"
import * as ClientAddress from "./ClientAddress.js"
import * as Refusal from "./Refusal.js"

/**
 * Who may.
 *
 * - `loopback`: requests from this machine. Not believed: a request that came through a proxy that is not trusted (it has a
 *   forwarding header), and one for another host name than this machine's, which is how a web page elsewhere would reach
 *   the browser's own machine (DNS rebinding).
 * - `open`: everyone.
 * - `off`: nobody; 403. For the admin page with the body `403 admin endpoint disabled`, as the Go server answers.
 * - a hook: whoever it lets in.
 *
 * @since 0.1.0
 * @category models
 */
export type Access<R = never> = "loopback" | "open" | "off" | Authorize<R>

/**
 * The rule as a hook; `undefined` if everyone may.
 *
 * @param name what is reached
 * @param disabled the answer when it is off
 * @internal
 */
export const toHook = <R>(
  access: Access<R>,
  name: "subscribe" | "publish" | "admin" | "metrics",
  proxies: ClientAddress.ClientAddressOptions,
  disabled: HttpServerResponse.HttpServerResponse = HttpServerResponse.text(`403 ${name} endpoint disabled\n`, {
    status: 403
  })
): Authorize<R> | undefined => {
  if (access === "open") return undefined
  if (access === "off") return () => Effect.fail(disabled)
  if (access !== "loopback") return access
  const resolve = ClientAddress.resolver(proxies)
  const refuse = (why: string) => {
    const option = name === "admin" || name === "metrics" ? ` (SSE_${name.toUpperCase()})` : ""
    return new Refused({ kind: "forbidden", reason: `${why}; ${name} can be opened to others${option}` })
  }
  return (request) =>
    Effect.suspend(() => {
      const peer = Option.getOrElse(request.remoteAddress, () => "")
      const { address, vouched } = resolve(request)
      if (!isLoopbackAddress(ClientAddress.normalize(peer) ?? "") || !isLoopbackAddress(address)) {
        return refuse("only requests from this machine are answered")
      }
      if (!vouched && forwarding.some((header) => header in request.headers)) {
        return refuse("this request came through a proxy, and no trusted one says that it is from this machine")
      }
      const host = request.headers["host"] ?? request.headers[":authority"]
      return host === undefined || isLoopbackHost(host)
        ? Effect.succeed({ id: "loopback" })
        : refuse("only requests for localhost are answered, and this one was for another host")
    })
}

/**
 * Lets a hook look at a request. Gives who it is, or fails with the answer.
 *
 * @internal
 */
export const check = <R>(
  hook: Authorize<R>,
  request: HttpServerRequest.HttpServerRequest,
  namespaces: ReadonlyArray<NamespacePattern>,
  hub: SseHub["Type"]
): Effect.Effect<Principal, Refused | HttpServerResponse.HttpServerResponse, R> =>
  Effect.tap(hook(request, namespaces), hub.checkPrincipal)

/**
 * The answer to a request that was refused.
 *
 * @internal
 */
export const answer = (
  refused: Refused | HttpServerResponse.HttpServerResponse
): HttpServerResponse.HttpServerResponse => (refused instanceof Refused ? Refusal.refused(refused) : refused)

/**
 * Runs the handler for those who may see everything. A stream that it answers with ends when they may no longer.
 *
 * @internal
 */
export const guard = <E, R, R2>(
  hook: Authorize<R> | undefined,
  handler: Effect.Effect<HttpServerResponse.HttpServerResponse, E, R2>
): Effect.Effect<HttpServerResponse.HttpServerResponse, E, R | R2 | SseHub | HttpServerRequest.HttpServerRequest> =>
  hook === undefined
    ? handler
    : Effect.gen(function* () {
        const request = yield* HttpServerRequest.HttpServerRequest
        const hub = yield* SseHub
        const checked = yield* Effect.either(check(hook, request, [root], hub))
        return Either.isLeft(checked) ? answer(checked.left) : endWith(checked.right, yield* handler, hub)
      })

const endWith = (
  principal: Principal,
  response: HttpServerResponse.HttpServerResponse,
  hub: SseHub["Type"]
): HttpServerResponse.HttpServerResponse => {
  const { body } = response
  if (body._tag !== "Stream") return response
  const over = Effect.ignore(Effect.repeat(hub.checkPrincipal(principal), Schedule.spaced("1 second")))
  return HttpServerResponse.setBody(
    response,
    HttpBody.stream(Stream.interruptWhen(body.stream, over), body.contentType)
  )
}

const forwarding = ["x-forwarded-for", "forwarded", "x-real-ip", "via"]

const isLoopbackAddress = (address: string): boolean => address === "::1" || /^127\.\d+\.\d+\.\d+$/.test(address)

const isLoopbackHost = (host: string): boolean =>
  /^(?:(?:[\w-]+\.)*localhost|127\.\d{1,3}\.\d{1,3}\.\d{1,3}|\[::1\])(?::\d{1,5})?$/i.test(host)

/**
 * The refusal of a request that changes something and was sent by a page of another site, which the browser may have let
 * in with what it knows of the user. Programs that are no browsers send neither header.
 *
 * @internal
 */
export const crossSite = (
  request: Pick<HttpServerRequest.HttpServerRequest, "headers">
): HttpServerResponse.HttpServerResponse | undefined => {
  const site = request.headers["sec-fetch-site"]
  const origin = request.headers["origin"]
  const host = request.headers["host"] ?? request.headers[":authority"]
  // What the browser says of the site counts: a proxy may have changed the host that was asked for.
  const same =
    site === undefined
      ? origin === undefined || /^https?:\/\/(.*)$/i.exec(origin)?.[1] === host
      : site === "same-origin" || site === "none"
  return same ? undefined : Refusal.refuse(403, "Forbidden", "this request was sent by a page of another site")
}

/**
 * Who may see the admin page and the metrics.
 *
 * @since 0.1.0
 */
import * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as ClientAddress from "./ClientAddress.js"
import * as Refusal from "./Refusal.js"

/**
 * Who may.
 *
 * - `loopback`: requests from this machine. Not believed: a request that came through a proxy that is not trusted (it has a
 *   forwarding header), and one for another host name than this machine's, which is how a web page elsewhere would reach
 *   the browser's own machine (DNS rebinding).
 * - `open`: everyone.
 * - `off`: nobody; 403 with the body `403 admin endpoint disabled`, as the Go server answers.
 * - an effect: whoever it says `true` for, by the request. Others get 403, or the response that it gives instead of `false`,
 *   such as a 401 that asks who they are.
 *
 * @since 0.1.0
 * @category models
 */
export type Access =
  | "loopback"
  | "open"
  | "off"
  | Effect.Effect<boolean | HttpServerResponse.HttpServerResponse, never, HttpServerRequest.HttpServerRequest>

/**
 * Gives the refusal of the current request, or `undefined` if it may pass.
 *
 * @param name of the option, and of what is reached
 * @internal
 */
export const make = (
  access: Access,
  name: "admin" | "metrics",
  proxies: ClientAddress.ClientAddressOptions
): Effect.Effect<HttpServerResponse.HttpServerResponse | undefined, never, HttpServerRequest.HttpServerRequest> => {
  if (access === "open") return Effect.succeed(undefined)
  if (access === "off")
    return Effect.succeed(HttpServerResponse.text(`403 ${name} endpoint disabled\n`, { status: 403 }))
  if (access !== "loopback") {
    return Effect.map(access, (answer) =>
      answer === true ? undefined : answer === false ? forbidden("not allowed") : answer
    )
  }
  const resolve = ClientAddress.resolver(proxies)
  const refuse = (why: string) => forbidden(`${why}; ${name} can be opened to others (SSE_${name.toUpperCase()})`)
  return Effect.map(HttpServerRequest.HttpServerRequest, (request) => {
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
      ? undefined
      : refuse("only requests for localhost are answered, and this one was for another host")
  })
}

const forbidden = (message: string) => Refusal.refuse(403, "Forbidden", message)

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
  request: HttpServerRequest.HttpServerRequest
): HttpServerResponse.HttpServerResponse | undefined => {
  const site = request.headers["sec-fetch-site"]
  const origin = request.headers["origin"]
  const host = request.headers["host"] ?? request.headers[":authority"]
  // What the browser says of the site counts: a proxy may have changed the host that was asked for.
  const same =
    site === undefined
      ? origin === undefined || /^https?:\/\/(.*)$/i.exec(origin)?.[1] === host
      : site === "same-origin" || site === "none"
  return same ? undefined : forbidden("this request was sent by a page of another site")
}

/**
 * Requests pipelined behind another one on the same HTTP/1.1 connection (RFC 9112 section 9.3.2).
 *
 * Behind a stream such a request is never answered, and the platform keeps its fiber for ever, so that anyone could fill
 * the memory. No browser pipelines; a client that does must be ready for the connection to close, which is what it gets.
 *
 * @internal
 */
import type * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Effect from "effect/Effect"
import { responseOf } from "../node/NodeConnection.js"

/** Closes the connection, and gives an answer that goes nowhere, if the request came before the one ahead was answered. */
export const refuse = (
  request: HttpServerRequest.HttpServerRequest
): Effect.Effect<HttpServerResponse.HttpServerResponse> | undefined => {
  const response = responseOf(request)
  if (response === undefined || response.req.httpVersionMajor !== 1 || response.socket !== null) return undefined
  response.req.socket.destroy()
  return Effect.succeed(HttpServerResponse.empty({ status: 400 }))
}

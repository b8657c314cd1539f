/**
 * The namespaces that a request names: in its path, in `?ns=`, or as a JSON list in its body.
 *
 * @internal
 */
import type * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import type * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Schema from "effect/Schema"
import * as NamespacePattern from "../NamespacePattern.js"
import { LimitReached } from "../SseError.js"
import type { SseHub } from "../SseHub.js"
import { readBody } from "./body.js"
import * as Refusal from "./Refusal.js"
import { splitUrl } from "./url.js"

/** Bytes of a body that lists namespaces. */
const maxBodyBytes = 64 * 1024

/** What is listened to: at least one. */
export type Patterns = readonly [NamespacePattern.NamespacePattern, ...ReadonlyArray<NamespacePattern.NamespacePattern>]

/** The paths in the query, decoded once as any value of a query is: what is left is read as a path is. */
export const inQuery = (request: Pick<HttpServerRequest.HttpServerRequest, "url">): ReadonlyArray<string> => {
  const query = splitUrl(request.url)[1]
  return query === "" ? [] : new URLSearchParams(query).getAll("ns")
}

export const isJson = (request: HttpServerRequest.HttpServerRequest): boolean =>
  /^application\/json\s*(?:;|$)/i.test(request.headers["content-type"] ?? "")

const decodeBody = Schema.decodeUnknownEither(
  Schema.parseJson(Schema.Struct({ namespaces: Schema.Array(Schema.String) }))
)

/** The list in a JSON body `{"namespaces":["/pets"]}`. */
export const inBody = (
  request: HttpServerRequest.HttpServerRequest
): Effect.Effect<ReadonlyArray<string>, HttpServerResponse.HttpServerResponse> =>
  readBody(request, maxBodyBytes).pipe(
    Effect.mapError(({ response }) => response),
    Effect.flatMap((body) =>
      Either.match(decodeBody(new TextDecoder().decode(body)), {
        // What is wrong with it is not said: it may hold what it should not.
        onLeft: () => Effect.fail(invalid('the body is not {"namespaces":["/pets"]}')),
        onRight: ({ namespaces }) => Effect.succeed(namespaces)
      })
    )
  )

/** Reads what was named, or says what is wrong with it. */
export const parse = (
  paths: ReadonlyArray<string>,
  hub: SseHub["Type"]
): Either.Either<Patterns, HttpServerResponse.HttpServerResponse> => {
  const max = hub.maxNamespacesPerClient
  // Before they are looked at: they may be very many.
  if (paths.length > max) {
    return Either.left(Refusal.tooManyNamespaces(new LimitReached({ limit: "maxNamespacesPerClient", max })))
  }
  const patterns: Array<NamespacePattern.NamespacePattern> = []
  for (const path of paths) {
    const pattern = NamespacePattern.parse(path, { maxBytes: hub.maxNamespaceBytes })
    if (Either.isLeft(pattern)) return Either.left(Refusal.invalidNamespace(pattern.left))
    patterns.push(pattern.right)
  }
  const [first, ...rest] = patterns
  return first === undefined
    ? Either.left(invalid('name a namespace: ?ns=/pets&ns=/time, or {"namespaces":["/pets"]}'))
    : Either.right([first, ...rest])
}

const invalid = (message: string) => Refusal.refuse(400, "BadRequest", message)

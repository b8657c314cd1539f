/**
 * `GET /openapi.json`: what other systems publish with and operators look at, as OpenAPI 3.1, made of the schemas that the
 * handlers use.
 *
 * Not by `HttpApi`: that would describe a server of its own, which answers what does not fit with an error of its own.
 *
 * @internal
 */
import * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Effect from "effect/Effect"
import * as JSONSchema from "effect/JSONSchema"
import type * as Schema from "effect/Schema"
import { version } from "../internal/version.js"
import * as Refusal from "./Refusal.js"
import * as Schemas from "./schemas.js"
import { splitUrl } from "./url.js"

type Json = Readonly<Record<string, unknown>>

const refusals = {
  400: "what was sent is not valid; the message says what is wrong with what",
  401: "nothing says who it is",
  403: "this one may not",
  404: "there is no such thing",
  409: "a request with this idempotency key is being worked on",
  413: "the body is too large",
  415: "this media type is not taken",
  422: "the idempotency key was used for another request",
  429: "events come faster than this server takes them; Retry-After says when there is room",
  502: "the node that was asked could not do it",
  503: "not now: the server closes, or its log, or the other nodes, are out of reach",
  504: "the node that was asked did not answer, and may do it yet"
} as const

const make = (url: string): Json => {
  const schemas: Record<string, JSONSchema.JsonSchema7> = {}
  const of = (schema: Schema.Schema.All): Json => ({
    ...JSONSchema.fromAST(schema.ast, {
      definitions: schemas,
      definitionPath: "#/components/schemas/",
      target: "openApi3.1"
    })
  })
  const json = (description: string, schema: Schema.Schema.All): Json => ({
    description,
    content: { "application/json": { schema: of(schema) } }
  })
  const refused = (...statuses: ReadonlyArray<keyof typeof refusals>): Json =>
    Object.fromEntries(statuses.map((status) => [status, json(refusals[status], Schemas.Refusal)]))
  const parameter = (
    where: "path" | "query" | "header",
    name: string,
    description: string,
    schema: Json = text
  ): Json => ({
    name,
    in: where,
    required: where === "path",
    description,
    schema
  })
  const text = { type: "string" }
  const lines = {
    schema: { type: "string", description: "one Event in each line, as JSON; all are published, or none" }
  }
  const key = parameter(
    "header",
    "Idempotency-Key",
    "1 to 255 visible ASCII characters. What comes again with its key is answered as it was, and published once."
  )
  const client = parameter("path", "id", "the id of a connection in the status", { type: "integer" })
  const publishing = refused(400, 401, 403, 409, 413, 415, 422, 429, 503)
  const security = [{}, { bearer: [] }]

  const paths = {
    "/publish": {
      post: {
        operationId: "publishBatch",
        summary: "Publish events to any namespaces, one behind the other, all or none",
        security,
        parameters: [key],
        requestBody: {
          required: true,
          content: { "application/json": { schema: of(Schemas.Batch) }, "application/x-ndjson": lines }
        },
        responses: { 202: json("they are published", Schemas.Positions), ...publishing }
      }
    },
    "/publish/{namespace}": {
      post: {
        operationId: "publish",
        summary: "Publish one event, whose data is the body, or several as NDJSON",
        security,
        parameters: [
          parameter("path", "namespace", "segments with / between, each percent-encoded"),
          parameter("query", "event", "the name that listeners are called by; not with NDJSON"),
          parameter("query", "id", "an id of your own: 1 to 128 visible ASCII characters; not with NDJSON"),
          parameter("query", "retry", "ms after which clients come back; not with NDJSON", {
            type: "integer",
            minimum: 0,
            maximum: 2_147_483_647
          }),
          key
        ],
        requestBody: {
          required: true,
          content: {
            "text/plain": { schema: text },
            "application/json": { schema: {} },
            "application/octet-stream": { schema: { type: "string", description: "UTF-8" } },
            "application/x-ndjson": lines
          }
        },
        responses: {
          202: {
            description: "it is published, or all are",
            content: {
              "application/json": { schema: { anyOf: [of(Schemas.Position), of(Schemas.Positions)] } }
            }
          },
          ...publishing
        }
      }
    },
    "/admin/status.json": {
      get: {
        operationId: "status",
        summary: "The hub, its namespaces and its clients",
        security,
        parameters: [
          parameter(
            "query",
            "node",
            "whose connections: the id of a node, or all; not given: of the node that answers"
          ),
          parameter("query", "limit", "connections that are shown", { type: "integer", minimum: 1, maximum: 10_000 }),
          parameter("query", "after", "the next of an earlier answer", { type: "integer" }),
          parameter("query", "namespace", "only what is there or below; * is any one segment"),
          parameter("query", "filter", "only connections with this text in what is shown of them"),
          parameter("query", "sort", "the order of the connections", {
            type: "string",
            enum: ["age", "msgs_sent", "pending_bytes"]
          })
        ],
        responses: { 200: json("as it is now", Schemas.Status), ...refused(400, 401, 403, 404, 502, 503, 504) }
      }
    },
    "/admin/clients/{id}": {
      delete: {
        operationId: "disconnect",
        summary: "End the connection of a client of the node that answers",
        security,
        parameters: [client],
        responses: { 204: { description: "it ends" }, ...refused(401, 403, 404) }
      }
    },
    "/admin/nodes/{node}/clients/{id}": {
      delete: {
        operationId: "disconnectOnNode",
        summary: "End the connection of a client of any node",
        security,
        parameters: [parameter("path", "node", "the node_id of a connection in the status"), client],
        responses: { 204: { description: "it ends" }, ...refused(401, 403, 404, 502, 503, 504) }
      }
    }
  }
  return {
    openapi: "3.1.0",
    info: { title: "effect-sse", version },
    servers: [{ url }],
    paths,
    // Filled by what is above.
    components: { schemas, securitySchemes: { bearer: { type: "http", scheme: "bearer" } } }
  }
}

export const handle: Effect.Effect<HttpServerResponse.HttpServerResponse, never, HttpServerRequest.HttpServerRequest> =
  Effect.map(HttpServerRequest.HttpServerRequest, (request) => {
    if (request.method !== "GET" && request.method !== "HEAD") return Refusal.methodNotAllowed("GET, HEAD")
    // What the routes are mounted under.
    const url = splitUrl(request.originalUrl)[0].replace(/\/openapi\.json\/?$/, "") || "/"
    // Effect gives what is unknown an $id, the same everywhere, which an id must not be.
    const text = JSON.stringify(make(url), (name, value: unknown) => (name === "$id" ? undefined : value))
    return HttpServerResponse.text(text, { contentType: "application/json", headers: { "cache-control": "no-store" } })
  })

import { HttpApp, HttpRouter } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import { Authorize, Namespace, SseHub, SseRoutes, SseTest } from "effect-sse"
import { Effect } from "effect"
import { RecordedConnection } from "../support/recorded.js"

type Json = Readonly<Record<string, unknown>>

/** The keywords of JSON Schema that may stand in the document, and what each wants. Another one is an error. */
const errors = (document: Json, schema: Json, value: unknown, at = "$"): ReadonlyArray<string> => {
  const inside = (schema: unknown, value: unknown, where = at) => errors(document, schema as Json, value, where)
  const isObject = typeof value === "object" && value !== null && !Array.isArray(value)
  const given = (isObject ? value : {}) as Json
  const properties = (schema["properties"] ?? {}) as Json
  return Object.entries(schema).flatMap(([keyword, wanted]): ReadonlyArray<string> => {
    const check = (holds: boolean) => (holds ? [] : [`${at}: ${keyword} ${JSON.stringify(wanted)}`])
    switch (keyword) {
      case "$ref":
        return inside(lookUp(document, wanted as string), value)
      case "type":
        return check(
          wanted === "object"
            ? isObject
            : wanted === "array"
              ? Array.isArray(value)
              : wanted === "null"
                ? value === null
                : wanted === "integer"
                  ? Number.isInteger(value)
                  : typeof value === wanted
        )
      case "enum":
        return check((wanted as ReadonlyArray<unknown>).includes(value))
      case "minItems":
        return check(!Array.isArray(value) || value.length >= (wanted as number))
      case "items":
        return Array.isArray(value) ? value.flatMap((one, i) => inside(wanted, one, `${at}.${i}`)) : []
      case "required":
        return check(!isObject || (wanted as ReadonlyArray<string>).every((name) => name in given))
      case "properties":
        return Object.entries(properties).flatMap(([name, one]) =>
          name in given ? inside(one, given[name], `${at}.${name}`) : []
        )
      case "additionalProperties":
        return check(wanted !== false || Object.keys(given).every((name) => name in properties))
      case "anyOf":
        return check((wanted as ReadonlyArray<Json>).some((one) => inside(one, value).length === 0))
      case "oneOf":
        return check((wanted as ReadonlyArray<Json>).filter((one) => inside(one, value).length === 0).length === 1)
      case "allOf":
        return (wanted as ReadonlyArray<Json>).flatMap((one) => inside(one, value))
      case "title":
      case "description":
        return check(typeof wanted === "string")
      default:
        return [`${at}: the keyword ${keyword} is not known`]
    }
  })
}

const lookUp = (document: Json, ref: string): unknown => {
  assert.match(ref, /^#\//)
  return ref
    .slice(2)
    .split("/")
    .reduce((place: unknown, name) => (place as Json | undefined)?.[name], document)
}

const collect = (value: unknown, name: string): ReadonlyArray<unknown> =>
  typeof value !== "object" || value === null
    ? []
    : Object.entries(value).flatMap(([key, one]) => [...(key === name ? [one] : []), ...collect(one, name)])

const setUp = Effect.gen(function* () {
  const router = HttpRouter.empty.pipe(
    HttpRouter.mount(
      "/live",
      SseRoutes.router({
        publish: Authorize.tokens({ shop: { token: "shop", namespaces: ["/orders"] } }),
        admin: "open",
        maxBodyBytes: 1000
      })
    )
  )
  const handler = HttpApp.toWebHandlerRuntime(yield* Effect.runtime<SseHub.SseHub>())(router)
  const send = (method: string, path: string, body?: string, headers: Record<string, string> = {}) =>
    Effect.promise(async () => {
      const response = await handler(
        new Request(`http://localhost/live${path}`, {
          method,
          headers: { authorization: "Bearer shop", "content-type": "application/json", ...headers },
          ...(body === undefined ? {} : { body })
        })
      )
      const text = await response.text()
      return { status: response.status, body: text === "" ? undefined : (JSON.parse(text) as Json) }
    })
  const { body: document } = yield* send("GET", "/openapi.json")
  return { send, document: document! }
})

describe("GET /openapi.json", () => {
  it.scoped("is OpenAPI 3.1, whole in itself, and says where the routes are", () =>
    Effect.gen(function* () {
      const { document, send } = yield* setUp
      assert.strictEqual(document["openapi"], "3.1.0")
      assert.deepStrictEqual(document["servers"], [{ url: "/live" }])
      for (const ref of collect(document, "$ref")) assert.isDefined(lookUp(document, ref as string), String(ref))
      assert.deepStrictEqual(collect(document, "$id"), [])
      const ids = collect(document["paths"], "operationId")
      assert.deepStrictEqual(ids, ["publishBatch", "publish", "status", "disconnect", "disconnectOnNode"])
      for (const [path, methods] of Object.entries(document["paths"] as Record<string, Record<string, Json>>)) {
        for (const operation of Object.values(methods)) {
          const parameters = operation["parameters"] as ReadonlyArray<Json>
          const inPath = parameters
            .filter((parameter) => parameter["in"] === "path")
            .map(({ name }) => `{${String(name)}}`)
          assert.deepStrictEqual(inPath, path.match(/\{\w+\}/g) ?? [])
          for (const parameter of parameters) {
            assert.containsAllKeys(parameter, ["name", "in", "required", "schema", "description"])
          }
          const responses = Object.entries(operation["responses"] as Record<string, Json>)
          assert.isTrue(responses.every(([status, { description }]) => /^\d{3}$/.test(status) && description !== ""))
        }
      }
      for (const [path, method] of [
        ["/publish", "GET"],
        ["/openapi.json", "POST"]
      ] as const) {
        assert.strictEqual((yield* send(method, path)).status, 405)
      }
    }).pipe(Effect.provide(SseTest.layer()))
  )

  it.scoped("tells of events what the server takes", () =>
    Effect.gen(function* () {
      const { document, send } = yield* setUp
      const batch = lookUp(document, "#/components/schemas/Batch") as Json
      for (const event of [
        { namespace: "/orders", data: "x" },
        { namespace: "/orders", json: [1], event: "e", id: "i", retry: 1 },
        { namespace: "/orders" },
        { namespace: "/orders", data: "x", json: 1 },
        { namespace: "/orders", data: "x", x: 1 },
        { namespace: 1, data: "x" },
        { data: "x" },
        undefined
      ]) {
        const body = { events: event === undefined ? [] : [event] }
        const { status } = yield* send("POST", "/publish", JSON.stringify(body))
        assert.strictEqual(errors(document, batch, body).length === 0, status === 202, JSON.stringify(body))
      }
    }).pipe(Effect.provide(SseTest.layer()))
  )

  it.scoped("tells what is really answered", () =>
    Effect.gen(function* () {
      const { document, send } = yield* setUp
      const hub = yield* SseHub.SseHub
      const connection = new RecordedConnection()
      const principal = { id: "ann", metadata: { role: ["reader", null] } }
      yield* hub.connect({ namespaces: [Namespace.make("/orders")], connection, principal })
      const gone = new RecordedConnection()
      yield* hub.connect({ namespaces: [Namespace.make("/x")], connection: gone })
      gone.close()
      const check = (operation: string, expected: number, ...[method, path, body, headers]: Parameters<typeof send>) =>
        Effect.gen(function* () {
          const answer = yield* send(method, path, body, headers)
          assert.strictEqual(answer.status, expected, JSON.stringify(answer.body))
          const described = (document["paths"] as Record<string, Record<string, Json>>)[operation]![
            method.toLowerCase()
          ]!
          const response = (described["responses"] as Record<string, Json>)[String(expected)]
          assert.isDefined(response, `${expected} is not in the document`)
          const content = response!["content"] as Record<string, { readonly schema: Json }> | undefined
          if (content === undefined) return assert.isUndefined(answer.body)
          assert.deepStrictEqual(errors(document, content["application/json"]!.schema, answer.body), [])
        })
      const list = (namespace: string) => JSON.stringify({ events: [{ namespace, data: "x" }] })
      const key = { "idempotency-key": "k" }
      yield* check("/publish", 202, "POST", "/publish", list("/orders"), key)
      yield* check("/publish", 422, "POST", "/publish", list("/orders/1"), key)
      yield* check("/publish", 400, "POST", "/publish", "{}")
      yield* check("/publish", 401, "POST", "/publish", "{}", { authorization: "" })
      yield* check("/publish", 403, "POST", "/publish", list("/"))
      yield* check("/publish", 413, "POST", "/publish", " ".repeat(2000))
      yield* check("/publish/{namespace}", 202, "POST", "/publish/orders/1", "x")
      const ndjson = { "content-type": "application/x-ndjson" }
      yield* check("/publish/{namespace}", 202, "POST", "/publish/orders/1", '{"data":"x"}', ndjson)
      yield* check("/publish/{namespace}", 400, "POST", "/publish/orders/%2e%2e", "x")
      yield* check("/publish/{namespace}", 415, "POST", "/publish/orders", "x", { "content-type": "image/png" })
      yield* check("/publish/{namespace}", 400, "POST", "/publish/orders?id=%0a", "x")
      yield* SseTest.settled
      yield* check("/admin/status.json", 200, "GET", "/admin/status.json")
      yield* check("/admin/status.json", 400, "GET", "/admin/status.json?limit=x")
      const [client] = yield* hub.clients
      yield* check("/admin/clients/{id}", 404, "DELETE", "/admin/clients/99")
      yield* check("/admin/clients/{id}", 204, "DELETE", `/admin/clients/${client!.id}`)
      yield* hub.shutdown
      yield* check("/admin/status.json", 200, "GET", "/admin/status.json")
      yield* check("/publish", 503, "POST", "/publish", list("/orders"))
    }).pipe(Effect.provide(SseTest.layer()))
  )
})

import { assert, describe, it } from "@effect/vitest"
import { SseEvent } from "effect-sse"
import { Either, FastCheck as fc } from "effect"
import { createParser, type EventSourceMessage } from "eventsource-parser"
import { eventFields, wellFormed } from "./support/events.js"

const wire = (event: Partial<SseEvent.SseEvent>) =>
  Either.getOrThrow(SseEvent.encode({ namespace: "/", data: "", ...event }))
const refusal = (event: Partial<SseEvent.SseEvent>) => {
  const encoded = SseEvent.encode({ namespace: "/", data: "", ...event })
  return Either.isLeft(encoded) ? encoded.left.field : "accepted"
}

const parse = (stream: string): ReadonlyArray<EventSourceMessage> => {
  const events: Array<EventSourceMessage> = []
  const parser = createParser({ onEvent: (event) => events.push(event) })
  parser.feed(stream)
  return events
}

describe("SseEvent", () => {
  it("writes what the Go server's documentation shows", () => {
    assert.strictEqual(wire({ event: "new-dog", data: "Corgi" }), "event:new-dog\ndata:Corgi\n\n")
    assert.strictEqual(wire({ data: "Corgi" }), "data:Corgi\n\n")
  })

  it("writes every field", () => {
    assert.strictEqual(wire({ id: "7", retry: 100, event: "e", data: "d" }), "id:7\nretry:100\nevent:e\ndata:d\n\n")
  })

  it("starts a data line at each kind of line end", () => {
    assert.strictEqual(wire({ data: "a\nb\rc\r\nd" }), "data:a\ndata:b\ndata:c\ndata:d\n\n")
    assert.strictEqual(wire({ data: "\n" }), "data:\ndata:\n\n")
    assert.strictEqual(wire({ data: "" }), "data:\n\n")
  })

  it("adds a space only where the value begins with one", () => {
    assert.strictEqual(wire({ event: " e", data: " a\nb\n  c" }), "event:  e\ndata:  a\ndata:b\ndata:   c\n\n")
  })

  it("takes bytes as UTF-8, with a BOM as it is", () => {
    assert.strictEqual(wire({ data: new TextEncoder().encode("\ufeffhé\0") }), "data:\ufeffhé\0\n\n")
  })

  it("refuses what breaks real clients, naming the field", () => {
    for (const event of ["a\nb", "a\rb", "a\0", "\ud800"]) assert.strictEqual(refusal({ event }), "event")
    for (const id of ["", "a b", "é", "a\n", "\0", "x".repeat(129), "\x7f"]) assert.strictEqual(refusal({ id }), "id")
    for (const retry of [-1, 1.5, Number.NaN, Infinity, 2 ** 31]) assert.strictEqual(refusal({ retry }), "retry")
    for (const data of ["\udfff", new Uint8Array([0xff]), new Uint8Array([0xed, 0xa0, 0x80])]) {
      assert.strictEqual(refusal({ data }), "data")
    }
    assert.strictEqual(refusal({ id: "x".repeat(128), retry: 2 ** 31 - 1, event: "" }), "accepted")
  })

  it("writes comments and retry blocks", () => {
    assert.strictEqual(SseEvent.comment("keepalive"), ":keepalive\n\n")
    assert.strictEqual(SseEvent.comment("a\ndata:b"), ":a\n:data:b\n\n")
    assert.strictEqual(SseEvent.retry(1500.7), "retry:1500\n\n")
    assert.strictEqual(SseEvent.retry(-5), "retry:0\n\n")
    assert.strictEqual(SseEvent.retry(1e12), "retry:2147483647\n\n")
  })

  const event = fc.record(eventFields)

  it.prop("arrives whole at an independent parser", [fc.array(event, { minLength: 1, maxLength: 5 })], ([events]) => {
    // The first comment of every stream keeps a BOM of the data from being taken for the stream's own.
    const stream = ":ok\n\n" + events.map(wire).join("")
    assert.deepStrictEqual(
      parse(stream).map(({ data, event, id }) => ({ data, event, id })),
      events.map(({ data, event, id }) => ({ data: data.replace(/\r\n|\r/g, "\n"), event, id }))
    )
  })

  it.prop("text and its bytes give the same wire", [event], ([event]) => {
    assert.strictEqual(wire(event), wire({ ...event, data: new TextEncoder().encode(event.data) }))
  })

  it.prop("comments are never events", [wellFormed(0)], ([comment]) => {
    assert.deepStrictEqual(parse(SseEvent.comment(comment)), [])
  })
})

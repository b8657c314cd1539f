/** Bytes to events: what the standard says (WHATWG HTML section 9.2.6), however the bytes are cut. */
import { assert, describe, it } from "@effect/vitest"
import { SseClient, SseEvent } from "effect-sse"
import { Effect, Either, FastCheck as fc, Option, Stream } from "effect"
import { eventFields } from "./support/events.js"

const utf8 = new TextEncoder()

type Options = Parameters<typeof SseClient.decode>[1]

/** The events of these pieces, and the error if there was one. */
const decode = (pieces: ReadonlyArray<Uint8Array>, options?: Options) => {
  const events: Array<{ readonly event: string; readonly data: string; readonly id: string }> = []
  const error = SseClient.decode(Stream.fromIterable(pieces), options).pipe(
    Stream.runForEach(({ data, event, id }) => Effect.sync(() => events.push({ event, data, id }))),
    Effect.flip,
    Effect.option,
    Effect.map(Option.getOrUndefined),
    Effect.runSync
  )
  return { events, error: error?._tag }
}

const decodeText = (text: string, options?: Options) => decode([utf8.encode(text)], options).events
const datas = (text: string) => decodeText(text).map(({ data }) => data)

/** Cuts bytes at the given places of them, each a fraction. */
const cut = (bytes: Uint8Array, places: ReadonlyArray<number>): ReadonlyArray<Uint8Array> => {
  const at = [0, ...places.map((place) => Math.floor(place * bytes.length)).sort((a, b) => a - b), bytes.length]
  return at.slice(1).map((end, i) => bytes.slice(at[i]!, end))
}

const everyByte = (bytes: Uint8Array) => Array.from(bytes, (byte) => Uint8Array.of(byte))

/** The standard's own words, on the whole text. */
const standard = (bytes: Uint8Array, lastEventId = "") => {
  const events: Array<{ readonly event: string; readonly data: string; readonly id: string }> = []
  const lines = new TextDecoder().decode(bytes).split(/\r\n|\n|\r/)
  lines.pop()
  let data = ""
  let event = ""
  let id = lastEventId
  let lastId = lastEventId
  for (const line of lines) {
    if (line === "") {
      lastId = id
      if (data !== "") events.push({ event: event === "" ? "message" : event, data: data.slice(0, -1), id: lastId })
      data = event = ""
      continue
    }
    const colon = line.indexOf(":")
    if (colon === 0) continue
    const field = colon === -1 ? line : line.slice(0, colon)
    const value = colon === -1 ? "" : line.slice(colon + 1).replace(/^ /, "")
    if (field === "data") data += value + "\n"
    if (field === "event") event = value
    if (field === "id" && !/[\x00-\x1f\x7f]/.test(value)) id = value
  }
  return events
}

const places = fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { maxLength: 12 })

describe("SseClient.decode", () => {
  it("reads the standard's examples", () => {
    assert.deepStrictEqual(datas("data: YHOO\ndata: +2\ndata: 10\n\n"), ["YHOO\n+2\n10"])
    assert.deepStrictEqual(
      decodeText(": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n"),
      [
        { event: "message", data: "first event", id: "1" },
        { event: "message", data: "second event", id: "" },
        { event: "message", data: " third event", id: "" }
      ]
    )
    assert.deepStrictEqual(datas("data\n\ndata\ndata\n\ndata:"), ["", "\n"])
    assert.deepStrictEqual(datas("data:test\n\ndata: test\n\n"), ["test", "test"])
  })

  it("a block with only an id moves the position and is no event", () => {
    assert.deepStrictEqual(decodeText("id:e-1\n\ndata:a\n\nid:e-2\nevent:x\n\ndata:b\n\n"), [
      { event: "message", data: "a", id: "e-1" },
      { event: "message", data: "b", id: "e-2" }
    ])
    assert.deepStrictEqual(decodeText("data:a\n\n", { lastEventId: "e-7" }), [
      { event: "message", data: "a", id: "e-7" }
    ])
  })

  it("each kind of line end ends an event at once", () => {
    for (const end of ["\n\n", "\r\r", "\r\n\r\n", "\n\r", "\r\n\n"]) {
      assert.deepStrictEqual(decode([utf8.encode(`data:a${end}`)]).events.length, 1, JSON.stringify(end))
      assert.deepStrictEqual(decode(everyByte(utf8.encode(`data:a${end}`))).events.length, 1, JSON.stringify(end))
    }
    assert.deepStrictEqual(decode(everyByte(utf8.encode("data:a\r\ndata:b\r\n\r\ndata:c\r\n\r\n"))).events.length, 2)
  })

  it("one byte order mark is dropped at the start, and letters that look like its bytes are not", () => {
    assert.deepStrictEqual(datas("\ufeffdata:a\n\n"), ["a"])
    assert.deepStrictEqual(decode(everyByte(utf8.encode("\ufeffdata:a\n\n"))).events.length, 1)
    assert.deepStrictEqual(datas("\ufeff\ufeffdata:a\n\n"), [])
    assert.deepStrictEqual(datas("data:a\n\n\ufeffdata:b\n\n"), ["a"])
    assert.deepStrictEqual(datas("\u00ef\u00bb\u00bfdata:a\n\n"), [])
  })

  it("an event that the end cuts off is left out, and its id too", () => {
    assert.deepStrictEqual(datas("data:a\n\ndata:b\n"), ["a"])
    const decoded = decodeText("id:1\ndata:a\n\nid:2\ndata:b\n")
    assert.deepStrictEqual(decoded, [{ event: "message", data: "a", id: "1" }])
  })

  it("an id that no header can carry is ignored", () => {
    const ids = (id: string) => decodeText(`id:ok\n\nid:${id}\ndata:\n\n`).map(({ id }) => id)
    for (const id of ["a\0b", "\t", "\x1b[1m", "\x7f", "x".repeat(5000)]) assert.deepStrictEqual(ids(id), ["ok"])
    assert.deepStrictEqual(ids("é😀"), ["é😀"])
  })

  it("bytes that are no UTF-8 become U+FFFD", () => {
    assert.deepStrictEqual(
      decode([Uint8Array.of(0x64, 0x61, 0x74, 0x61, 0x3a, 0xff, 0xe2, 0x82, 10, 10)]).events.map(({ data }) => data),
      ["\ufffd\ufffd"]
    )
  })

  it("the bound holds for one event, to the byte, however it is cut; those before it arrive", () => {
    const small = "data:a\n\n"
    const exactly = `event:${"e".repeat(8)}\ndata:${"é".repeat(39)}\n\n`
    const maxEventBytes = utf8.encode(exactly).length - 1
    const check = (text: string, expected: string | undefined, events: number) => {
      const bytes = utf8.encode(text)
      for (const pieces of [[bytes], everyByte(bytes), cut(bytes, [0.3, 0.5, 0.9])]) {
        const decoded = decode(pieces, { maxEventBytes })
        assert.strictEqual(decoded.error, expected)
        assert.strictEqual(decoded.events.length, events)
      }
    }
    check((small + exactly).repeat(20), undefined, 40)
    check(small + exactly.replace("data:", "data:x") + small, "EventTooLarge", 1)
    // A line that never ends, whatever it is, and a block that never does.
    check(small + "x".repeat(200), "EventTooLarge", 1)
    check(small + ":" + "x".repeat(200), "EventTooLarge", 1)
    check(small + "unknown:1\n".repeat(20), "EventTooLarge", 1)
    check(small + "data\n".repeat(40), "EventTooLarge", 1)
  })

  it("comments are held no longer than their line: a server may send them without ever a blank line", () => {
    const text = ":keepalive\n".repeat(10_000) + "data:a\n\n"
    assert.deepStrictEqual(decode([utf8.encode(text)], { maxEventBytes: 100 }), {
      events: [{ event: "message", data: "a", id: "" }],
      error: undefined
    })
  })

  it("a megabyte in one line takes time in proportion, in pieces as in one", () => {
    const bytes = utf8.encode(`data:${"é".repeat(500_000)}\n\n`)
    const pieces = Array.from({ length: Math.ceil(bytes.length / 29) }, (_, i) => bytes.slice(i * 29, i * 29 + 29))
    assert.strictEqual(decode(pieces).events[0]?.data.length, 500_000)
    assert.strictEqual(decode([utf8.encode("\r".repeat(1_000_000) + "data:a\r\r")]).events.length, 1)
    assert.strictEqual(decode([utf8.encode("data\n".repeat(200_000) + "\n")]).events[0]?.data.length, 199_999)
  })

  it("an error of the bytes is the stream's, behind the events before it", () => {
    const bytes = Stream.concat(Stream.make(utf8.encode("data:a\n\nda")), Stream.fail("broken" as const))
    const events: Array<string> = []
    const error = Effect.runSync(
      Effect.flip(Stream.runForEach(SseClient.decode(bytes), ({ data }) => Effect.sync(() => events.push(data))))
    )
    assert.deepStrictEqual([events, error], [["a"], "broken"])
  })

  const event = fc.record({
    ...eventFields,
    retry: fc.option(fc.nat(), { nil: undefined })
  })

  it.prop(
    "what the hub writes arrives as it was published, with the bytes cut anywhere",
    [fc.array(event, { minLength: 1, maxLength: 6 }), places],
    ([events, places]) => {
      const bytes = utf8.encode(":ok\n\n" + events.map((event) => Either.getOrThrow(SseEvent.encode(event))).join(""))
      let id = ""
      const expected = events.map(({ data, event = "message", id: own }) => {
        id = own ?? id
        return { event, data: data.replace(/\r\n|\r/g, "\n"), id }
      })
      assert.deepStrictEqual(decode([bytes]).events, expected)
      assert.deepStrictEqual(decode(cut(bytes, places)).events, expected)
      assert.deepStrictEqual(decode(everyByte(bytes)).events, expected)
    }
  )

  const piece = fc.oneof(
    fc.constantFrom("data:", "data", "data: ", "event:", "id:", "id", "retry:", ":", "datab:", " data:", "\ufeff"),
    fc.constantFrom("\n", "\r", "\r\n", "\n\n", "\r\r", "\r\n\r\n"),
    fc.constantFrom("\0", " ", "é", "😀", "\u2028", "12", "abc", "\v", "\x85")
  )

  it.prop(
    "any stream is read as the standard says, with the bytes cut anywhere",
    [fc.array(piece, { maxLength: 60 }), fc.array(fc.tuple(fc.nat(200), fc.nat(255)), { maxLength: 3 }), places],
    ([pieces, wrong, places]) => {
      const bytes = utf8.encode(pieces.join(""))
      // Bytes that are not UTF-8 among them.
      for (const [at, byte] of wrong) if (at < bytes.length) bytes[at] = byte
      const expected = standard(bytes)
      assert.deepStrictEqual(decode([bytes]).events, expected)
      assert.deepStrictEqual(decode(cut(bytes, places)).events, expected)
      assert.deepStrictEqual(decode(everyByte(bytes)).events, expected)
    }
  )
})

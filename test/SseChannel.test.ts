import { assert, describe, it } from "@effect/vitest"
import { Namespace, SseChannel, SseHub, SseTest } from "effect-sse"
import {
  Chunk,
  Context,
  DateTime,
  Effect,
  Either,
  Exit,
  FastCheck as fc,
  Fiber,
  Logger,
  Option,
  ParseResult,
  Schema,
  Stream
} from "effect"
import { readFileSync } from "node:fs"
import { posix } from "node:path"
import { root } from "./support/command.js"

const Message = Schema.Struct({ from: Schema.NonEmptyString, at: Schema.DateTimeUtc })
type Message = typeof Message.Type
const message = (from: string): Message => ({ from, at: DateTime.unsafeMake(0) })
const json = (from: string) => `{"from":"${from}","at":"1970-01-01T00:00:00.000Z"}`

const News = SseChannel.make({ namespace: "/news", event: "headline", schema: Message })
const Rooms = SseChannel.make({
  namespace: "/rooms/:room/messages",
  params: Schema.Struct({ room: Schema.NumberFromString.pipe(Schema.int()) }),
  schema: Message
})
const Texts = SseChannel.make({ namespace: "/orgs/:org/:team", schema: Schema.Unknown })
const Chat = SseChannel.union({
  namespace: "/chat/:room",
  events: { message: Message, typing: Schema.Struct({ who: Schema.String }) }
})

/** The next values of a stream that listens to the hub, which it does when this gives the fiber. */
const next = <A, E, R>(stream: Stream.Stream<A, E, R>, n: number) =>
  Effect.zipLeft(
    Effect.fork(Effect.map(Stream.runCollect(Stream.take(stream, n)), Chunk.toReadonlyArray)),
    SseTest.settled
  )

const publishRaw = (namespace: string, data: string, event?: string) =>
  Effect.flatMap(SseHub.SseHub, (hub) => hub.publish({ namespace, data, event }))

/** What was logged meanwhile. */
const logged = <A, E, R>(effect: (lines: Array<string>) => Effect.Effect<A, E, R>) =>
  Effect.suspend(() => {
    const lines: Array<string> = []
    const logger = Logger.make(({ logLevel, message }) => void lines.push(`${logLevel.label} ${String(message)}`))
    return Effect.provide(effect(lines), Logger.replace(Logger.defaultLogger, logger))
  })

describe("SseChannel", () => {
  it.scoped("publishes JSON to its namespace under its name, and nothing else", () =>
    Effect.gen(function* () {
      const client = yield* SseTest.connect("/")
      const position = yield* SseChannel.publish(News, message("Ann"))
      assert.match(position, /-1$/)
      yield* SseChannel.publish(Rooms.at({ room: 7 }), message("Ben"))
      assert.deepStrictEqual(
        yield* SseChannel.publishAll(Chat.at({ room: "a/b" }), [
          { event: "message", data: message("Cid") },
          { event: "typing", data: { who: "Dee" } }
        ]),
        [position.replace(/1$/, "3"), position.replace(/1$/, "4")]
      )
      assert.strictEqual(
        yield* client.text,
        `:ok\n\nevent:headline\ndata:${json("Ann")}\n\ndata:${json("Ben")}\n\ndata:${json("Cid")}\n\n` +
          `event:typing\ndata:{"who":"Dee"}\n\n`
      )
      const hub = yield* SseHub.SseHub
      assert.sameMembers(
        (yield* hub.namespaces).filter(({ events }) => events > 0).map(({ namespace }) => String(namespace)),
        ["/news", "/rooms/7/messages", "/chat/a%2Fb"]
      )
    }).pipe(Effect.provide(SseTest.layer()))
  )

  it.scoped("publishes a Stream", () =>
    Effect.gen(function* () {
      const client = yield* SseTest.connect("/news")
      const count = yield* Stream.range(1, 1000).pipe(
        Stream.map((n) => message(String(n))),
        Stream.run(SseChannel.sink(News))
      )
      assert.strictEqual(count, 1000)
      assert.deepStrictEqual((yield* client.events)[999], { event: "headline", data: json("1000") })
      assert.lengthOf(yield* client.events, 1000)
    }).pipe(Effect.provide(SseTest.layer()))
  )

  describe("a publisher", () => {
    it.scoped("is told of a value that does not fit, and nothing is published", () =>
      Effect.gen(function* () {
        const client = yield* SseTest.connect("/")
        const error = yield* Effect.flip(SseChannel.publish(News, { ...message("Ann"), from: "" }))
        assert.deepInclude(error, { _tag: "ChannelEncodeError", channel: "/news", part: "value", index: 0 })
        assert.include(error.message, `["from"]`)
        const second = yield* Effect.flip(SseChannel.publishAll(Rooms.at({ room: 1 }), [message("Ann"), message("")]))
        assert.deepInclude(second, { _tag: "ChannelEncodeError", part: "value", index: 1 })
        assert.deepStrictEqual(yield* SseChannel.publishAll(News, []), [])
        assert.strictEqual(yield* client.text, ":ok\n\n")
      }).pipe(Effect.provide(SseTest.layer()))
    )

    it.effect("is told of what JSON would lose", () =>
      Effect.gen(function* () {
        for (const value of [NaN, { a: [-Infinity] }, [undefined], [[1, undefined]], 1n, undefined, () => 1]) {
          const error = yield* Effect.flip(Texts.at({ org: "o", team: "t" }).encode(value))
          assert.strictEqual(error.part, "value", String(value))
        }
        for (const value of [null, 0, "NaN", { a: undefined, b: [null] }, "\ud800", { toJSON: () => 1 }]) {
          yield* Texts.at({ org: "o", team: "t" }).encode(value)
        }
      })
    )

    it.effect("is told of parameters that do not fit or make no namespace", () =>
      Effect.gen(function* () {
        const reason = (team: string) =>
          Effect.map(Effect.flip(Texts.at({ org: "o", team }).namespace), (error) => {
            assert.strictEqual(error.part, "params")
            return error.reason
          })
        assert.include(yield* reason(""), "a segment is empty")
        assert.include(yield* reason("."), `"." and ".."`)
        assert.include(yield* reason(".."), `"." and ".."`)
        assert.include(yield* reason("a\nb"), "control characters")
        assert.include(yield* reason("\ud800"), "UTF-8")
        assert.include(yield* reason("x".repeat(3000)), "too long")
        assert.isBelow((yield* reason("x".repeat(100_000))).length, 600)
        const fraction = yield* Effect.flip(SseChannel.publish(Rooms.at({ room: 1.5 }), message("Ann")))
        assert.deepInclude(fraction, { _tag: "ChannelEncodeError", part: "params", channel: "/rooms/:room/messages" })
        // A caller without types.
        assert.strictEqual((yield* Effect.flip(Rooms.at(undefined as never).path)).part, "params")
      }).pipe(Effect.provide(SseTest.layer()))
    )

    it.effect("is told by the hub of what no channel knows", () =>
      Effect.gen(function* () {
        const long = Texts.at({ org: "12345", team: "12345" })
        assert.strictEqual((yield* Effect.flip(SseChannel.publish(long, 1)))._tag, "InvalidEvent")
        assert.strictEqual((yield* Effect.flip(Stream.runDrain(SseChannel.subscribe(long))))._tag, "ChannelEncodeError")
        yield* (yield* SseHub.SseHub).shutdown
        assert.strictEqual((yield* Effect.flip(SseChannel.publish(News, message("Ann"))))._tag, "HubClosed")
        assert.strictEqual((yield* Effect.flip(Stream.runDrain(SseChannel.subscribe(News))))._tag, "HubClosed")
      }).pipe(Effect.provide(SseTest.layer({ maxNamespaceBytes: 10 })))
    )
  })

  describe("a subscriber", () => {
    it.scoped("gets the values of its channel, and passes over the rest", () =>
      Effect.gen(function* () {
        const fiber = yield* next(SseChannel.subscribe(Rooms.at({ room: 7 })), 2)
        yield* SseChannel.publish(Rooms.at({ room: 7 }), message("one"))
        yield* SseChannel.publish(Rooms.at({ room: 8 }), message("another room"))
        yield* publishRaw("/rooms/7/messages", json("another name"), "other")
        yield* publishRaw("/rooms/7/messages/below", json("below"))
        yield* publishRaw("/rooms/7/messages/", json("two"), "message")
        assert.deepStrictEqual(yield* Fiber.join(fiber), [message("one"), message("two")])
      }).pipe(Effect.provide(SseTest.layer()))
    )

    it.scoped("of a family gets the values of all, with their parameters", () =>
      Effect.gen(function* () {
        const fiber = yield* next(SseChannel.subscribeAll(Rooms), 2)
        yield* SseChannel.publish(Rooms.at({ room: 7 }), message("one"))
        yield* publishRaw("/rooms/7", json("above"))
        yield* publishRaw("/rooms/7/other", json("another end"))
        yield* publishRaw("/rooms/7/messages/below", json("below"))
        yield* publishRaw("/rooms", json("prefix"))
        yield* SseChannel.publish(Rooms.at({ room: -8 }), message("two"))
        assert.deepStrictEqual(yield* Fiber.join(fiber), [
          { params: { room: 7 }, value: message("one") },
          { params: { room: -8 }, value: message("two") }
        ])
      }).pipe(Effect.provide(SseTest.layer()))
    )

    it.scoped("gets several events, told apart by their name", () =>
      Effect.gen(function* () {
        const fiber = yield* next(SseChannel.subscribeAll(Chat), 2)
        const values = [
          { event: "typing", data: { who: "Ann" } },
          { event: "message", data: message("Ann") }
        ] as const
        yield* SseChannel.publishAll(Chat.at({ room: "x" }), values)
        assert.deepStrictEqual(
          yield* Fiber.join(fiber),
          values.map((value) => ({ params: { room: "x" }, value }))
        )
      }).pipe(Effect.provide(SseTest.layer()))
    )

    it.scoped("skips what cannot be decoded, and logs it", () =>
      logged((lines) =>
        Effect.gen(function* () {
          const one = yield* next(SseChannel.subscribe(News), 1)
          const all = yield* next(SseChannel.subscribeAll(Rooms), 1)
          yield* publishRaw("/news", "no JSON", "headline")
          yield* publishRaw("/news", `{"from":"${"x".repeat(10_000)}"}`, "headline")
          yield* publishRaw("/rooms/abc/messages", json("Ann"))
          yield* SseChannel.publish(News, message("Ben"))
          yield* SseChannel.publish(Rooms.at({ room: 7 }), message("Cid"))
          assert.deepStrictEqual(yield* Fiber.join(one), [message("Ben")])
          assert.deepStrictEqual(yield* Fiber.join(all), [{ params: { room: 7 }, value: message("Cid") }])
          assert.lengthOf(lines, 3)
          const start = "WARN effect-sse: an event was skipped: channel"
          assert.isTrue(lines.some((line) => line.startsWith(`${start} /news: the value cannot be decoded`)))
          assert.isTrue(lines.some((line) => line.startsWith(`${start} /rooms/:room/messages: the params cannot`)))
          assert.isTrue(lines.every((line) => line.length < 700))
        })
      ).pipe(Effect.provide(SseTest.layer()))
    )

    it.scoped("fails instead if it wants to, behind what came before", () =>
      Effect.gen(function* () {
        const seen: Array<Message> = []
        const fiber = yield* Effect.fork(
          Stream.runForEach(SseChannel.subscribe(News, { onInvalid: "fail" }), (value) =>
            Effect.sync(() => seen.push(value))
          )
        )
        yield* SseTest.settled
        const hub = yield* SseHub.SseHub
        const good = yield* News.encode(message("Ann"))
        yield* hub.publishAll([good, { ...good, data: "{}" }, good])
        const error = yield* Effect.flip(Fiber.join(fiber))
        assert.deepInclude(error, { _tag: "ChannelDecodeError", channel: "/news", part: "value" })
        assert.deepStrictEqual(seen, [message("Ann")])
        const all = yield* next(SseChannel.subscribeAll(Rooms, { onInvalid: "fail" }), 1)
        yield* publishRaw("/rooms/abc/messages", json("Ann"))
        assert.deepInclude(yield* Effect.flip(Fiber.join(all)), { _tag: "ChannelDecodeError", part: "params" })
      }).pipe(Effect.provide(SseTest.layer()))
    )
  })

  describe("a client elsewhere", () => {
    it.effect("decodes what it got by the same definition", () =>
      Effect.gen(function* () {
        assert.deepStrictEqual(yield* News.decode({ event: "headline", data: json("Ann") }), message("Ann"))
        assert.deepStrictEqual(yield* Rooms.decode({ data: json("Ann") }), message("Ann"))
        assert.deepStrictEqual(
          yield* Rooms.decode({ event: "", data: new TextEncoder().encode(json("Ann")) }),
          message("Ann")
        )
        assert.deepStrictEqual(yield* Chat.decode({ event: "typing", data: `{"who":"Ann","new":1}` }), {
          event: "typing",
          data: { who: "Ann" }
        })
        const part = (effect: Effect.Effect<unknown, { readonly part: string }>) =>
          Effect.map(Effect.flip(effect), ({ part }) => part)
        assert.strictEqual(yield* part(News.decode({ data: json("Ann") })), "event")
        assert.strictEqual(yield* part(Chat.decode({ event: "constructor", data: "{}" })), "event")
        assert.strictEqual(yield* part(Chat.decode({ event: "typing", data: json("Ann") })), "value")
        assert.strictEqual(yield* part(News.decode({ event: "headline", data: new Uint8Array([0xff]) })), "value")
        assert.deepStrictEqual(News.events, ["headline"])
        assert.deepStrictEqual(Chat.events, ["message", "typing"])
      })
    )

    it.effect("knows where the channel is", () =>
      Effect.gen(function* () {
        assert.strictEqual(yield* News.path, "/news")
        const team = Texts.at({ org: "café", team: "a/b %" })
        assert.strictEqual<string>(yield* team.namespace, "/orgs/café/a%2Fb %25")
        assert.strictEqual(yield* team.path, "/orgs/caf%C3%A9/a%2Fb%20%25")
        assert.strictEqual<string>(Texts.pattern, "/orgs/*/*")
        assert.strictEqual<string>(SseChannel.make({ namespace: "/:a/*/b", schema: Message }).pattern, "/*/%2A/b")
        assert.deepStrictEqual(yield* Texts.params(yield* team.namespace), Option.some({ org: "café", team: "a/b %" }))
        assert.deepStrictEqual(yield* Rooms.params(Namespace.make("/rooms/7/messages")), Option.some({ room: 7 }))
        for (const path of ["/", "/rooms/7", "/rooms/7/messages/x", "/room/7/messages"]) {
          assert.deepStrictEqual(yield* Rooms.params(Namespace.make(path)), Option.none(), path)
        }
        assert.strictEqual((yield* Effect.flip(Rooms.params(Namespace.make("/rooms/x/messages")))).part, "params")
      })
    )

    it.effect("decodes a stream of events", () =>
      Effect.gen(function* () {
        const events = Stream.make(
          { event: "headline", data: json("Ann") },
          { event: "other", data: "?" },
          { event: "headline", data: "?" },
          { event: "headline", data: json("Ben"), id: "7" }
        )
        const both = [message("Ann"), message("Ben")]
        assert.deepStrictEqual(
          Chunk.toReadonlyArray(yield* Stream.runCollect(SseChannel.decodeStream(events, News))),
          both
        )
        assert.deepStrictEqual(
          Chunk.toReadonlyArray(yield* events.pipe(SseChannel.decodeStream(News), Stream.runCollect)),
          both
        )
        const strict = yield* Effect.exit(
          events.pipe(SseChannel.decodeStream(News, { onInvalid: "fail" }), Stream.runDrain)
        )
        assert.isTrue(Exit.isFailure(strict))
      })
    )

    it("loads nothing of Node nor of the platform, and a definition no hub", () => {
      const loaded = (file: string, seen = new Set<string>()): ReadonlySet<string> => {
        if (seen.has(file)) return seen
        seen.add(file)
        for (const [, from] of readFileSync(`${root}src/${file}`, "utf8").matchAll(
          /^(?:import|export) (?!type )[\w\s{},*]*"([^"]+)"$/gm
        )) {
          if (from!.startsWith(".")) loaded(posix.join(posix.dirname(file), from!.replace(/\.js$/, ".ts")), seen)
          else assert.match(from!, /^effect\//, file)
        }
        return seen
      }
      assert.isTrue(loaded("SseChannel.ts").has("SseHub.ts"))
      const definition = loaded("internal/channel.ts")
      assert.isTrue(definition.has("Namespace.ts"))
      assert.isFalse(definition.has("SseHub.ts"))
    })
  })

  it.scoped("takes text as it is", () =>
    Effect.gen(function* () {
      const time = SseChannel.make({ namespace: "/time", encoding: "text", schema: Schema.DateTimeUtc })
      const mixed = SseChannel.union({
        namespace: "/mixed",
        encoding: "text",
        events: { a: Schema.String, b: Schema.parseJson(Schema.Array(Schema.Int)) }
      })
      const client = yield* SseTest.connect("/")
      yield* SseChannel.publish(time, DateTime.unsafeMake(0))
      yield* SseChannel.publish(mixed, { event: "a", data: " two\nlines" })
      yield* SseChannel.publish(mixed, { event: "b", data: [1, 2] })
      const events = yield* client.events
      assert.deepStrictEqual(events, [
        { event: "message", data: "1970-01-01T00:00:00.000Z" },
        { event: "a", data: " two\nlines" },
        { event: "b", data: "[1,2]" }
      ])
      assert.deepStrictEqual(yield* time.decode(events[0]!), DateTime.unsafeMake(0))
      assert.deepStrictEqual(yield* mixed.decode(events[1]!), { event: "a", data: " two\nlines" })
    }).pipe(Effect.provide(SseTest.layer()))
  )

  it.scoped("gives schemas the services they need", () => {
    class Tenant extends Context.Tag("Tenant")<Tenant, string>() {}
    const Local = Schema.transformOrFail(Schema.String, Schema.String, {
      strict: true,
      decode: (text) => Effect.map(Tenant, (tenant) => text.slice(tenant.length + 1)),
      encode: (text, _, ast) =>
        Effect.flatMap(Tenant, (tenant) =>
          text.includes(".")
            ? ParseResult.fail(new ParseResult.Type(ast, text, "has a dot"))
            : ParseResult.succeed(`${tenant}.${text}`)
        )
    })
    const channel = SseChannel.make({ namespace: "/t/:name", params: Schema.Struct({ name: Local }), schema: Local })
    return Effect.gen(function* () {
      const fiber = yield* next(SseChannel.subscribeAll(channel), 1)
      yield* SseChannel.publish(channel.at({ name: "a" }), "b")
      assert.strictEqual<string>(yield* channel.at({ name: "a" }).namespace, "/t/acme.a")
      assert.deepStrictEqual(yield* Fiber.join(fiber), [{ params: { name: "a" }, value: "b" }])
      const error = yield* Effect.flip(SseChannel.publish(channel.at({ name: "a.b" }), "b"))
      assert.include(error.message, "has a dot")
    }).pipe(Effect.provide(SseTest.layer()), Effect.provideService(Tenant, "acme"))
  })

  it("does not take a definition that makes no sense", () => {
    const define = (namespace: `/${string}`, event?: string) => () =>
      SseChannel.make({ namespace, event, schema: Message })
    assert.throws(define("//"), "a segment is empty")
    assert.throws(define("/a//b"), "a segment is empty")
    assert.throws(define("/a/../b"), `"." and ".."`)
    assert.throws(define("/a/:"), "is not a name")
    assert.throws(define("/a/:b-c"), "is not a name")
    assert.throws(define("/:a/:a"), "is not a name of its own")
    assert.throws(define("/a", "b\nc"), "cannot be the name of an event")
    assert.throws(define("/a", "b\0"), "cannot be the name of an event")
    assert.throws(define("/a", ""), "cannot be the name of an event")
    assert.throws(() => SseChannel.union({ namespace: "/a", events: {} }), "has no events")
    assert.strictEqual(
      Effect.runSync(define("/%3Aa/", "b")().pipe((channel) => (channel as typeof News).path)),
      "/%3Aa"
    )
  })

  const segment = fc
    .oneof(
      fc.string({ unit: "binary", minLength: 1 }),
      fc.string({ unit: "grapheme", minLength: 1 }),
      fc.constantFrom("a/b", "%2F", "%", "..a", ":x", " ", "..%2F..", "a?b#c", "messages", "__proto__")
    )
    .filter((text) => text.isWellFormed() && !/\p{Cc}/u.test(text) && text !== "." && text !== "..")
  const anything = fc.jsonValue()

  it.effect.prop(
    "gives a subscriber the parameters and the value, whatever they are, and nobody else",
    [segment, segment, anything],
    ([org, team, value]) =>
      Effect.gen(function* () {
        const here = Texts.at({ org, team })
        const namespace = yield* here.namespace
        assert.lengthOf(Namespace.segments(namespace), 3, "a parameter is one segment")
        assert.deepStrictEqual(Namespace.parse(yield* here.path), Either.right(namespace))
        const [one, all] = [yield* next(SseChannel.subscribe(here), 1), yield* next(SseChannel.subscribeAll(Texts), 1)]
        const [client, elsewhere] = [
          yield* SseTest.connect(yield* here.path),
          yield* SseTest.connect([
            `/orgs/other`,
            `/other`,
            `/orgs/${encodeURIComponent(org)}/${encodeURIComponent(team)}/x`
          ])
        ]
        yield* SseChannel.publish(here, value)
        // What JSON knows of the value: it has one zero only.
        const expected: unknown = JSON.parse(JSON.stringify(value))
        assert.deepStrictEqual(yield* Fiber.join(one), [expected])
        assert.deepStrictEqual(yield* Fiber.join(all), [{ params: { org, team }, value: expected }])
        const [event] = yield* client.takeEvents(1)
        assert.deepStrictEqual(yield* Texts.decode(event!), expected)
        if (org !== "other") assert.deepStrictEqual(yield* elsewhere.events, [])
      }).pipe(Effect.scoped, Effect.provide(SseTest.layer()))
  )

  it.effect.prop(
    "takes any parameter or refuses it, but never leaves its place",
    [fc.oneof(fc.string({ unit: "binary" }), fc.constantFrom("", ".", "..", "a/../b", "\ud800", "%2e%2e"))],
    ([room]) =>
      Effect.gen(function* () {
        const namespace = yield* Effect.either(Chat.at({ room }).namespace)
        if (Either.isRight(namespace)) {
          assert.deepStrictEqual(Namespace.segments(namespace.right), ["chat", room])
          assert.deepStrictEqual(yield* Chat.params(namespace.right), Option.some({ room }))
        } else {
          assert.strictEqual(namespace.left.part, "params")
          assert.isTrue(room === "" || room === "." || room === ".." || !room.isWellFormed() || /\p{Cc}/u.test(room))
        }
      })
  )
})

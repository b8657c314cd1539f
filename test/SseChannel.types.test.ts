/** What the types of channels promise. They are checked by `npm run types`; run, these tests only keep the file in the suite. */
import { describe, expectTypeOf, it } from "@effect/vitest"
import { SseChannel, type SseError, type SseHub } from "effect-sse"
import { Context, type Effect, Schema, type Sink, Stream } from "effect"

const Message = Schema.Struct({ from: Schema.String, count: Schema.NumberFromString })
type Message = typeof Message.Type

class Users extends Context.Tag("Users")<Users, { readonly name: string }>() {}
class Rooms extends Context.Tag("Rooms")<Rooms, { readonly name: string }>() {}
const needing = <Service>() => Schema.String as unknown as Schema.Schema<string, string, Service>

const fixed = SseChannel.make({ namespace: "/prices", schema: Message })
const texts = SseChannel.make({ namespace: "/orgs/:org/rooms/:room", schema: Message })
const numbers = SseChannel.make({
  namespace: "/rooms/:room/messages",
  params: Schema.Struct({ room: Schema.NumberFromString }),
  schema: Message
})
const several = SseChannel.union({
  namespace: "/rooms/:room",
  events: { message: Message, typing: Schema.String }
})
type Several =
  { readonly event: "message"; readonly data: Message } | { readonly event: "typing"; readonly data: string }

/** Never run: only their types are looked at. */
const compiled = (..._programs: ReadonlyArray<() => unknown>) => {}

describe("types of channels", () => {
  it("a namespace without parameters is a channel, one with parameters a family", () => {
    expectTypeOf(fixed).toEqualTypeOf<SseChannel.SseChannel<Message>>()
    expectTypeOf(texts).toEqualTypeOf<SseChannel.Family<{ readonly org: string; readonly room: string }, Message>>()
    expectTypeOf(numbers).toEqualTypeOf<SseChannel.Family<{ readonly room: number }, Message>>()
    expectTypeOf(numbers.at).returns.toEqualTypeOf<SseChannel.SseChannel<Message>>()
    // @ts-expect-error the parameter is a number
    compiled(() => numbers.at({ room: "7" }))
    // @ts-expect-error a parameter is missing
    compiled(() => texts.at({ org: "effect" }))
    // @ts-expect-error which room?
    compiled(() => SseChannel.publish(numbers, { from: "Ann", count: 1 }))
    // @ts-expect-error there is one only
    compiled(() => SseChannel.subscribeAll(fixed))
  })

  it("parameters are those of the namespace", () => {
    compiled(() =>
      SseChannel.make({
        namespace: "/rooms/:room",
        // @ts-expect-error another name
        params: Schema.Struct({ romm: Schema.String }),
        schema: Message
      })
    )
    compiled(() =>
      SseChannel.make({
        namespace: "/rooms/:room",
        // @ts-expect-error a name too many
        params: Schema.Struct({ room: Schema.String, user: Schema.String }),
        schema: Message
      })
    )
    compiled(() =>
      SseChannel.make({
        namespace: "/rooms/:room",
        // @ts-expect-error a segment is text
        params: Schema.Struct({ room: Schema.Number }),
        schema: Message
      })
    )
    compiled(() =>
      SseChannel.make({
        namespace: "/rooms/:room",
        // @ts-expect-error a segment cannot be left out
        params: Schema.Struct({ room: Schema.optional(Schema.String) }),
        schema: Message
      })
    )
    // @ts-expect-error a namespace begins with a slash
    compiled(() => SseChannel.make({ namespace: "rooms", schema: Message }))
    const kinds = SseChannel.make({
      namespace: "/pets/:kind",
      params: Schema.Struct({ kind: Schema.Literal("dogs", "cats") }),
      schema: Message
    })
    expectTypeOf(kinds.at).parameter(0).toEqualTypeOf<{ readonly kind: "dogs" | "cats" }>()
  })

  it("a publisher gives what fits, and meets errors it can act on", () => {
    expectTypeOf(SseChannel.publish(fixed, { from: "Ann", count: 1 })).toEqualTypeOf<
      Effect.Effect<string, SseError.ChannelEncodeError | SseError.PublishError, SseHub.SseHub>
    >()
    // @ts-expect-error the count is a number
    compiled(() => SseChannel.publish(fixed, { from: "Ann", count: "1" }))
    expectTypeOf(SseChannel.sink(fixed)).toEqualTypeOf<
      Sink.Sink<number, Message, never, SseError.ChannelEncodeError | SseError.PublishError, SseHub.SseHub>
    >()
  })

  it("several events have a schema each", () => {
    expectTypeOf(several).toEqualTypeOf<SseChannel.Family<{ readonly room: string }, Several>>()
    expectTypeOf<SseChannel.ValueOf<typeof several>>().toEqualTypeOf<Several>()
    expectTypeOf<SseChannel.ValueOf<typeof fixed>>().toEqualTypeOf<Message>()
    compiled(() => SseChannel.publish(several.at({ room: "a" }), { event: "typing", data: "Ann" }))
    // @ts-expect-error the data of another event
    compiled(() => SseChannel.publish(several.at({ room: "a" }), { event: "message", data: "Ann" }))
    // @ts-expect-error no such event
    compiled(() => SseChannel.publish(several.at({ room: "a" }), { event: "left", data: "Ann" }))
  })

  it("text is for schemas that encode to text", () => {
    compiled(() => SseChannel.make({ namespace: "/time", encoding: "text", schema: Schema.DateTimeUtc }))
    // @ts-expect-error a struct is no text
    compiled(() => SseChannel.make({ namespace: "/time", encoding: "text", schema: Message }))
    SseChannel.union({
      namespace: "/time",
      encoding: "text",
      events: { a: Schema.String, b: Schema.parseJson(Message) }
    })
    // @ts-expect-error one of them is a struct
    compiled(() => SseChannel.union({ namespace: "/time", encoding: "text", events: { a: Schema.String, b: Message } }))
  })

  it("the error of what cannot be decoded is there only if asked for", () => {
    type Base = SseError.ChannelEncodeError | SseError.SubscriberTooSlow | SseError.HubClosed
    expectTypeOf(SseChannel.subscribe(fixed)).toEqualTypeOf<Stream.Stream<Message, Base, SseHub.SseHub>>()
    expectTypeOf(fixed.pipe(SseChannel.subscribe)).toEqualTypeOf<Stream.Stream<Message, Base, SseHub.SseHub>>()
    expectTypeOf(SseChannel.subscribe(fixed, { onInvalid: "skip" })).toEqualTypeOf<
      Stream.Stream<Message, Base, SseHub.SseHub>
    >()
    expectTypeOf(SseChannel.subscribe(fixed, { onInvalid: "fail" })).toEqualTypeOf<
      Stream.Stream<Message, Base | SseError.ChannelDecodeError, SseHub.SseHub>
    >()
    expectTypeOf(SseChannel.subscribeAll(numbers)).toEqualTypeOf<
      Stream.Stream<SseChannel.Located<{ readonly room: number }, Message>, Base, SseHub.SseHub>
    >()
    const events = Stream.make({ event: "message", data: "{}" })
    expectTypeOf(events.pipe(SseChannel.decodeStream(several))).toEqualTypeOf<Stream.Stream<Several>>()
    expectTypeOf(SseChannel.decodeStream(events, several, { onInvalid: "fail" })).toEqualTypeOf<
      Stream.Stream<Several, SseError.ChannelDecodeError>
    >()
  })

  it("what schemas need is carried on", () => {
    const channel = SseChannel.make({
      namespace: "/rooms/:room",
      params: Schema.Struct({ room: needing<Rooms>() }),
      schema: Schema.Struct({ from: needing<Users>() })
    })
    expectTypeOf(channel).toEqualTypeOf<
      SseChannel.Family<{ readonly room: string }, { readonly from: string }, Users | Rooms>
    >()
    const union = SseChannel.union({ namespace: "/x", events: { a: needing<Rooms>(), b: needing<Users>() } })
    expectTypeOf(SseChannel.subscribe(union)).toEqualTypeOf<
      Stream.Stream<
        { readonly event: "a"; readonly data: string } | { readonly event: "b"; readonly data: string },
        SseChannel.SubscribeError,
        SseHub.SseHub | Rooms | Users
      >
    >()
    expectTypeOf(SseChannel.publish(channel.at({ room: "a" }), { from: "Ann" })).toEqualTypeOf<
      Effect.Effect<string, SseError.ChannelEncodeError | SseError.PublishError, SseHub.SseHub | Rooms | Users>
    >()
  })
})

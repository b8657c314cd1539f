/**
 * Typed events: a namespace, the names of the events that are published there, and an Effect `Schema` for what each
 * carries, defined once and shared by publishers, subscribers and browsers.
 *
 * A definition is a plain value that needs no hub. {@link publish}, {@link subscribe} and their kin take the hub from the
 * context; a bundle that does not call them does not hold it.
 *
 * @since 0.1.0
 */
import type * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import { dual, identity } from "effect/Function"
import * as Option from "effect/Option"
import type { Pipeable } from "effect/Pipeable"
import { hasProperty } from "effect/Predicate"
import * as Schema from "effect/Schema"
import * as Sink from "effect/Sink"
import * as Stream from "effect/Stream"
import { type Codec, define, nameOf, type Wire, wireSchema } from "./internal/channel.js"
import type { Namespace } from "./Namespace.js"
import type { NamespacePattern } from "./NamespacePattern.js"
import {
  type ChannelDecodeError,
  ChannelEncodeError,
  type HubClosed,
  type PublishError,
  type SubscriberTooSlow
} from "./SseError.js"
import type { SseEvent } from "./SseEvent.js"
import { SseHub } from "./SseHub.js"

/**
 * An event as a client gets it: of a browser's `MessageEvent`, `type` and `data`.
 *
 * @since 0.1.0
 * @category models
 */
export interface ReceivedEvent {
  /** Its name; left out or empty: `message`. */
  readonly event?: string | undefined
  readonly data: string | Uint8Array
}

/**
 * What every definition has.
 *
 * @since 0.1.0
 * @category models
 */
export interface Definition<out A, out R = never> extends Pipeable {
  /** The namespace as it was defined, with the names of its parameters. */
  readonly template: string
  /** The names of its events: what a page calls `addEventListener` with. */
  readonly events: ReadonlyArray<string>
  /** The value that an event carries. Fails for an event of another name, and for data that does not fit the schema. */
  readonly decode: (event: ReceivedEvent) => Effect.Effect<A, ChannelDecodeError, R>
}

/**
 * A place where values of type `A` are published; made by {@link make} and {@link union}, or by {@link Family.at}. `R` is what
 * its schemas need.
 *
 * @since 0.1.0
 * @category models
 */
export interface SseChannel<in out A, out R = never> extends Definition<A, R> {
  /** Where it is. Fails if parameters do not fit their schema or cannot be a segment. */
  readonly namespace: Effect.Effect<Namespace, ChannelEncodeError, R>
  /** The same as the path of a URL, percent-encoded: what stands behind `/subscribe`. */
  readonly path: Effect.Effect<string, ChannelEncodeError, R>
  /** The event that carries a value, to be published by a hub, also with an `id` or `retry` added. */
  readonly encode: (value: A) => Effect.Effect<SseEvent, ChannelEncodeError, R>
}

/**
 * Channels that differ by the parameters of their namespace.
 *
 * @since 0.1.0
 * @category models
 */
export interface Family<in out Params, in out A, out R = never> extends Definition<A, R> {
  /** The channel of these parameters. They are looked at when it is used. */
  readonly at: (params: Params) => SseChannel<A, R>
  /** The namespace with a `*` for each parameter: what to subscribe to for all of them, also in a browser. */
  readonly pattern: NamespacePattern
  /**
   * The parameters in a namespace; none if it is of another form. Fails if they do not fit their schema.
   */
  readonly params: (namespace: Namespace) => Effect.Effect<Option.Option<Params>, ChannelDecodeError, R>
}

/**
 * The names of the parameters in a namespace: of `/rooms/:room/messages`, `"room"`.
 *
 * @since 0.1.0
 * @category type-level
 */
export type ParamNames<Path extends string> = Path extends `${infer Segment}/${infer Rest}`
  ? ParamNames<Segment> | ParamNames<Rest>
  : Path extends `:${infer Name}`
    ? Name
    : never

/**
 * The parameters of a namespace as they stand in it: a text for each.
 *
 * @since 0.1.0
 * @category type-level
 */
export type ParamSegments<Path extends string> = { readonly [Name in ParamNames<Path>]: string }

/**
 * What {@link make} gives: a {@link Family} if the namespace has parameters, else an {@link SseChannel}.
 *
 * @since 0.1.0
 * @category type-level
 */
export type Defined<Path extends string, Params, A, R> = [ParamNames<Path>] extends [never]
  ? SseChannel<A, R>
  : Family<Params, A, R>

/**
 * A value of a {@link union}: the name of an event, and what it carries.
 *
 * @since 0.1.0
 * @category type-level
 */
export type EventOf<Events extends Readonly<Record<string, Schema.Schema.Any>>> = {
  readonly [Name in keyof Events & string]: {
    readonly event: Name
    readonly data: Schema.Schema.Type<Events[Name]>
  }
}[keyof Events & string]

/**
 * The values of a channel or a family, as in `SseChannel.ValueOf<typeof Rooms>`.
 *
 * @since 0.1.0
 * @category type-level
 */
export type ValueOf<Self> = Self extends Definition<infer A, unknown> ? A : never

/**
 * Where a channel is, and how its values are written.
 *
 * @since 0.1.0
 * @category models
 */
export interface ChannelOptions<Path extends string, Params, Segments, ParamsR, Encoded> {
  /**
   * The namespace. A segment `:name` is a parameter. Each parameter becomes exactly one segment, percent-encoded in URLs:
   * `a/b` stays one, and one that is empty, `.` or `..`, or holds control characters, cannot be encoded.
   */
  readonly namespace: Path
  /** Parameters that are more than text, such as `Schema.Struct({ room: Schema.NumberFromString })`. */
  readonly params?:
    | Schema.Schema<
        Params,
        // One that has a name too many could never be decoded.
        Segments & { readonly [Name in Exclude<keyof Segments, ParamNames<Path>>]: never },
        ParamsR
      >
    | undefined
  /**
   * How a value becomes data: as `json`, or as the `text` that its schema encodes to, whose line ends reach clients as LF.
   * Default: `json`. Numbers that JSON lacks (`NaN`, `Infinity`) cannot be encoded, as they would arrive as `null`.
   */
  readonly encoding?: "json" | ([Encoded] extends [string] ? "text" : never) | undefined
}

/**
 * Defines a channel whose events all have one name.
 *
 * @param options.event the name; `message` if left out, which is what `EventSource` calls `onmessage` for
 * @param options.schema of the value that an event carries
 * @throws Error if the namespace or the name is not valid: they are part of the program
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { SseChannel } from "effect-sse"
 * import { Schema } from "effect"
 *
 * const Prices = SseChannel.make({
 *   namespace: "/prices",
 *   event: "price",
 *   schema: Schema.Struct({ symbol: Schema.String, cents: Schema.Int })
 * })
 * const Rooms = SseChannel.make({
 *   namespace: "/rooms/:room/messages",
 *   params: Schema.Struct({ room: Schema.NumberFromString }),
 *   schema: Schema.Struct({ from: Schema.String, sentAt: Schema.DateTimeUtc })
 * })
 * const room7 = Rooms.at({ room: 7 })
 * ```
 */
export const make = <
  const Path extends `/${string}`,
  A,
  Encoded,
  R,
  Params = ParamSegments<Path>,
  Segments extends ParamSegments<Path> = ParamSegments<Path>,
  ParamsR = never
>(
  options: ChannelOptions<Path, Params, Segments, ParamsR, Encoded> & {
    readonly event?: string | undefined
    readonly schema: Schema.Schema<A, Encoded, R>
  }
): Defined<Path, Params, A, R | ParamsR> => {
  const event = options.event ?? "message"
  const wire = wireSchema(options.schema, options.encoding)
  const encode = Schema.encode(wire)
  const decode = Schema.decode(wire)
  const codec: Codec<A, R> = {
    encode: (value) => Effect.map(encode(value), (data) => ({ event, data })),
    decode: ({ data }) => decode(data)
  }
  return define(options, [event], codec)
}

/**
 * Defines a channel whose events have several names, with a schema for each. Its values are `{ event, data }`, told apart by
 * `event`.
 *
 * @param options.events the schema of each event's data, by name
 * @throws Error if the namespace or a name is not valid: they are part of the program
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { SseChannel } from "effect-sse"
 * import { Schema } from "effect"
 *
 * const Rooms = SseChannel.union({
 *   namespace: "/rooms/:room",
 *   events: {
 *     message: Schema.Struct({ from: Schema.String, text: Schema.String }),
 *     typing: Schema.Struct({ who: Schema.String })
 *   }
 * })
 * const send = SseChannel.publish(Rooms.at({ room: "lobby" }), { event: "typing", data: { who: "Ann" } })
 * ```
 */
export const union = <
  const Path extends `/${string}`,
  const Events extends Readonly<Record<string, Schema.Schema.Any>>,
  Params = ParamSegments<Path>,
  Segments extends ParamSegments<Path> = ParamSegments<Path>,
  ParamsR = never
>(
  options: ChannelOptions<Path, Params, Segments, ParamsR, Schema.Schema.Encoded<Events[keyof Events]>> & {
    readonly events: Events
  }
): Defined<Path, Params, EventOf<Events>, Schema.Schema.Context<Events[keyof Events]> | ParamsR> => {
  const names = Object.keys(options.events)
  const wire = Schema.Union(
    ...names.map((name) =>
      Schema.Struct({ event: Schema.Literal(name), data: wireSchema(options.events[name]!, options.encoding) })
    )
  ) as Schema.Schema<EventOf<Events>, Wire, Schema.Schema.Context<Events[keyof Events]>>
  const codec = { encode: Schema.encode(wire), decode: Schema.decode(wire) }
  return define(options, names, codec)
}

/**
 * Publishes a value and gives its position in the log.
 *
 * @since 0.1.0
 * @category publishing
 * @example
 * ```ts
 * import { SseChannel } from "effect-sse"
 * import { Effect, Schema } from "effect"
 *
 * const Rooms = SseChannel.make({ namespace: "/rooms/:room", schema: Schema.Struct({ text: Schema.String }) })
 *
 * const greet = (room: string) =>
 *   SseChannel.publish(Rooms.at({ room }), { text: "hello" }).pipe(
 *     Effect.catchTag("ChannelEncodeError", (error) => Effect.logWarning(error.message))
 *   )
 * ```
 */
export const publish = <A, R>(
  self: SseChannel<A, R>,
  value: NoInfer<A>
): Effect.Effect<string, ChannelEncodeError | PublishError, R | SseHub> =>
  Effect.flatMap(self.encode(value), (event) => Effect.flatMap(SseHub, (hub) => hub.publish(event)))

/**
 * Publishes values one behind the other, all or, if one does not fit, none; gives their positions. For a batch over several
 * channels, `encode` the values and give the events to `hub.publishAll`.
 *
 * @since 0.1.0
 * @category publishing
 */
export const publishAll = <A, R>(
  self: SseChannel<A, R>,
  values: Iterable<NoInfer<A>>
): Effect.Effect<ReadonlyArray<string>, ChannelEncodeError | PublishError, R | SseHub> =>
  Effect.forEach(values, (value, index) =>
    Effect.mapError(
      self.encode(value),
      ({ channel, part, reason }) => new ChannelEncodeError({ channel, part, reason, index })
    )
  ).pipe(Effect.flatMap((events) => Effect.flatMap(SseHub, (hub) => hub.publishAll(events))))

/**
 * Publishes every value of a `Stream`, chunk by chunk; gives their number.
 *
 * @since 0.1.0
 * @category publishing
 */
export const sink = <A, R>(
  self: SseChannel<A, R>
): Sink.Sink<number, A, never, ChannelEncodeError | PublishError, R | SseHub> =>
  Sink.foldLeftChunksEffect(0, (count, values: Chunk.Chunk<A>) =>
    Effect.map(publishAll(self, values), (positions) => count + positions.length)
  )

/**
 * What a subscriber does with an event that has the name of one of the channel's, but cannot be decoded, as an older version
 * of the program or another publisher may have sent it: `skip` logs a warning and goes on, `fail` ends the stream with the
 * {@link ChannelDecodeError}.
 *
 * @since 0.1.0
 * @category models
 */
export interface DecodeOptions<OnInvalid extends "skip" | "fail"> {
  /** Default: `skip`. */
  readonly onInvalid?: OnInvalid | undefined
}

/**
 * The error that {@link DecodeOptions} leave.
 *
 * @since 0.1.0
 * @category type-level
 */
export type InvalidError<OnInvalid extends "skip" | "fail"> = OnInvalid extends "fail" ? ChannelDecodeError : never

/**
 * What an in-process subscriber of a channel can meet. See `SseHub.subscribe`.
 *
 * @since 0.1.0
 * @category errors
 */
export type SubscribeError = ChannelEncodeError | SubscriberTooSlow | HubClosed

/**
 * The values published to the channel from the moment the stream starts, for use in this process. Events of other names, and
 * those published below the channel's namespace, are none of them and are passed over.
 *
 * @since 0.1.0
 * @category subscribing
 * @example
 * ```ts
 * import { SseChannel } from "effect-sse"
 * import { Effect, Schema, Stream } from "effect"
 *
 * const Prices = SseChannel.make({ namespace: "/prices", schema: Schema.Struct({ cents: Schema.Int }) })
 *
 * const first = SseChannel.subscribe(Prices).pipe(Stream.take(10), Stream.runCollect)
 * const strict = SseChannel.subscribe(Prices, { onInvalid: "fail" })
 * ```
 */
export const subscribe = <A, R, OnInvalid extends "skip" | "fail" = "skip">(
  self: SseChannel<A, R>,
  options?: DecodeOptions<OnInvalid>
): Stream.Stream<A, SubscribeError | InvalidError<OnInvalid>, R | SseHub> =>
  Stream.unwrap(
    Effect.map(self.namespace, (namespace) =>
      listen(self, namespace).pipe(
        Stream.filter((event) => event.namespace === namespace),
        decodeStream(self, options)
      )
    )
  )

/**
 * A value and the parameters of the channel it was published to.
 *
 * @since 0.1.0
 * @category models
 */
export interface Located<out Params, out A> {
  readonly params: Params
  readonly value: A
}

/**
 * As {@link subscribe}, for all channels of a family: whatever the parameters are, which come with each value. A browser does
 * this by subscribing to the `pattern` of the family; the parameters are no part of an event, so what it needs of them belongs in
 * the value.
 *
 * @since 0.1.0
 * @category subscribing
 */
export const subscribeAll = <Params, A, R, OnInvalid extends "skip" | "fail" = "skip">(
  self: Family<Params, A, R>,
  options?: DecodeOptions<OnInvalid>
): Stream.Stream<Located<Params, A>, SubscribeError | InvalidError<OnInvalid>, R | SseHub> =>
  listen(self, self.pattern).pipe(
    Stream.filter((event) => self.events.includes(nameOf(event))),
    // What is published here has its namespace in canonical form.
    decoded(
      (event) =>
        Effect.flatMap(
          self.params(event.namespace as Namespace),
          Effect.transposeMapOption((params) => Effect.map(self.decode(event), (value) => ({ params, value })))
        ),
      options
    )
  )

const listen = (
  { template }: Definition<unknown, unknown>,
  namespace: NamespacePattern
): Stream.Stream<SseEvent, SubscribeError, SseHub> =>
  Stream.unwrap(Effect.map(SseHub, (hub) => hub.subscribe(namespace))).pipe(
    // Longer than this hub allows.
    Stream.catchTag("InvalidNamespace", ({ message }) =>
      Stream.fail(new ChannelEncodeError({ channel: template, part: "params", reason: message, index: 0 }))
    )
  )

/**
 * Decodes a `Stream` of events that come from elsewhere, such as those that a client gets from another server. Events of other
 * names are passed over.
 *
 * @since 0.1.0
 * @category subscribing
 */
export const decodeStream: {
  <A, R, OnInvalid extends "skip" | "fail" = "skip">(
    channel: Definition<A, R>,
    options?: DecodeOptions<OnInvalid>
  ): <E, R2>(events: Stream.Stream<ReceivedEvent, E, R2>) => Stream.Stream<A, E | InvalidError<OnInvalid>, R | R2>
  <E, R2, A, R, OnInvalid extends "skip" | "fail" = "skip">(
    events: Stream.Stream<ReceivedEvent, E, R2>,
    channel: Definition<A, R>,
    options?: DecodeOptions<OnInvalid>
  ): Stream.Stream<A, E | InvalidError<OnInvalid>, R | R2>
} = /* @__PURE__ */ dual(
  (args) => hasProperty(args[0], Stream.StreamTypeId),
  <E, R2, A, R, OnInvalid extends "skip" | "fail" = "skip">(
    events: Stream.Stream<ReceivedEvent, E, R2>,
    channel: Definition<A, R>,
    options?: DecodeOptions<OnInvalid>
  ): Stream.Stream<A, E | InvalidError<OnInvalid>, R | R2> =>
    events.pipe(
      Stream.filter((event) => channel.events.includes(nameOf(event))),
      decoded((event) => Effect.asSome(channel.decode(event)), options)
    )
)

const decoded =
  <Event, A, R, OnInvalid extends "skip" | "fail">(
    decode: (event: Event) => Effect.Effect<Option.Option<A>, ChannelDecodeError, R>,
    options: DecodeOptions<OnInvalid> | undefined
  ) =>
  <E, R2>(events: Stream.Stream<Event, E, R2>): Stream.Stream<A, E | InvalidError<OnInvalid>, R | R2> => {
    const skip = (error: ChannelDecodeError) =>
      Effect.as(Effect.logWarning(`effect-sse: an event was skipped: ${error.message}`), Option.none<A>())
    const attempt = (event: Event) =>
      options?.onInvalid === "fail" ? decode(event) : Effect.catchAll(decode(event), skip)
    return Stream.filterMap(Stream.mapEffect(events, attempt), identity) as Stream.Stream<
      A,
      E | InvalidError<OnInvalid>,
      R | R2
    >
  }

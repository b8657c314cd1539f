/**
 * What a channel's definition does, without a hub.
 *
 * @internal
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type { ParseError } from "effect/ParseResult"
import { pipeArguments } from "effect/Pipeable"
import * as Schema from "effect/Schema"
import type { Namespace } from "../Namespace.js"
import * as Ns from "../Namespace.js"
import type { ChannelOptions, Defined, Definition, Family, ReceivedEvent, SseChannel } from "../SseChannel.js"
import { ChannelDecodeError, ChannelEncodeError } from "../SseError.js"
import * as SseEvent from "../SseEvent.js"
import * as Template from "./template.js"

/** An event without its place. */
export interface Wire {
  readonly event: string
  readonly data: string
}

export interface Codec<A, R> {
  readonly encode: (value: A) => Effect.Effect<Wire, ParseError, R>
  readonly decode: (wire: Wire) => Effect.Effect<A, ParseError, R>
}

/** The schema of the data. */
export const wireSchema = <A, I, R>(
  schema: Schema.Schema<A, I, R>,
  encoding: "json" | "text" | undefined
): Schema.Schema<A, string, R> =>
  encoding === "text"
    ? (schema as unknown as Schema.Schema<A, string, R>)
    : // The type of the option knows only one of the two forms that JSON.stringify takes.
      Schema.parseJson(schema, { replacer: refuseLossy as never })

/** Refuses what JSON.stringify would write as `null`. */
function refuseLossy(this: unknown, _key: string, value: unknown): unknown {
  if ((typeof value === "number" && !Number.isFinite(value)) || (value === undefined && Array.isArray(this))) {
    throw new Error(`JSON has no ${value}`)
  }
  return value
}

export const nameOf = ({ event }: ReceivedEvent): string => (event === undefined || event === "" ? "message" : event)

/** Characters of a reason that are kept: it shows what it is about, which may be large. */
const shownLength = 500

const shown = (reason: string | Error): string => {
  const text = typeof reason === "string" ? reason : reason.message
  return text.length > shownLength ? text.slice(0, shownLength) + "…" : text
}

/** @throws Error, as definitions are part of the program */
export const define = <Path extends string, A, R, Params, Segments, ParamsR, Encoded>(
  options: ChannelOptions<Path, Params, Segments, ParamsR, Encoded>,
  events: ReadonlyArray<string>,
  codec: Codec<A, R>
): Defined<Path, Params, A, R | ParamsR> => {
  const text: string = options.namespace
  const template = Template.parse(text)
  if (events.length === 0) throw new Error(`channel ${text} has no events`)
  for (const event of events) {
    const block = SseEvent.toBlock({ namespace: "/", event, data: "" })
    if (event === "" || typeof block !== "string") {
      throw new Error(`channel ${text}: ${JSON.stringify(event)} cannot be the name of an event`)
    }
  }
  const decodeError = (part: ChannelDecodeError["part"]) => (reason: string | Error) =>
    new ChannelDecodeError({ channel: text, part, reason: shown(reason) })
  const encodeError = (part: ChannelEncodeError["part"]) => (reason: Error) =>
    new ChannelEncodeError({ channel: text, part, reason: shown(reason), index: 0 })

  const definition: Definition<A, R> = {
    template: text,
    events,
    decode: (received) => {
      const event = nameOf(received)
      if (!events.includes(event)) return decodeError("event")(`there is no event ${JSON.stringify(event)}`)
      const data = SseEvent.dataText(received.data)
      return data === undefined
        ? decodeError("value")("it is not valid UTF-8")
        : Effect.mapError(codec.decode({ event, data }), decodeError("value"))
    },
    pipe() {
      return pipeArguments(this, arguments)
    }
  }
  const channel = <R2>(namespace: Effect.Effect<Namespace, ChannelEncodeError, R2>): SseChannel<A, R | R2> => ({
    ...definition,
    namespace,
    path: Effect.map(namespace, Ns.toPath),
    encode: (value) =>
      Effect.zipWith(
        namespace,
        Effect.mapError(codec.encode(value), encodeError("value")),
        // The name that events have by themselves is left out.
        (namespace, { data, event }) => (event === "message" ? { namespace, data } : { namespace, event, data })
      )
  })
  const family = (params: Schema.Schema<Params, Template.Segments, ParamsR>): Family<Params, A, R | ParamsR> => {
    const encode = Schema.encode(params)
    const decode = Schema.decode(params)
    return {
      ...definition,
      pattern: template.pattern,
      at: (params) => channel(Effect.mapError(Effect.flatMap(encode(params), template.build), encodeError("params"))),
      params: (namespace) => {
        const segments = template.match(namespace)
        return segments === undefined
          ? Effect.succeedNone
          : Effect.mapBoth(decode(segments), { onFailure: decodeError("params"), onSuccess: Option.some })
      }
    }
  }
  const texts = () => Schema.Struct(Object.fromEntries(template.names.map((name) => [name, Schema.String])))
  const made =
    template.names.length === 0 ? channel(Effect.succeed(Ns.make(text))) : family((options.params ?? texts()) as never)
  return made as Defined<Path, Params, A, R | ParamsR>
}

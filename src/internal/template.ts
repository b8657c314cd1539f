/**
 * A namespace with parameters, `/rooms/:room/messages`: to build a namespace from it, and to find the parameters of one.
 *
 * @internal
 */
import type * as Either from "effect/Either"
import type { Namespace } from "../Namespace.js"
import * as Ns from "../Namespace.js"
import type { NamespacePattern } from "../NamespacePattern.js"
import * as Pattern from "../NamespacePattern.js"
import type { InvalidNamespace } from "../SseError.js"

/** What stands for each parameter, decoded. */
export type Segments = Readonly<Record<string, string>>

export interface Template {
  readonly names: ReadonlyArray<string>
  /** With a wildcard for each parameter. */
  readonly pattern: NamespacePattern
  /** Each parameter becomes one segment, whatever it holds. */
  readonly build: (params: Segments) => Either.Either<Namespace, InvalidNamespace>
  /** `undefined` if the namespace is not of this template; one below such a one is not. */
  readonly match: (namespace: Namespace) => Segments | undefined
}

/** @throws Error, as templates are part of the program */
export const parse = (text: string): Template => {
  // Segment by segment the same as in the text. The names are taken from that: "%3Aroom" is a segment, and no parameter.
  const fixed = Ns.segments(Ns.make(text))
  const raw = text.slice(1).split("/")
  const parts = fixed.map((segment, i) => (raw[i]!.startsWith(":") ? { name: raw[i]!.slice(1) } : segment))
  const names = parts.flatMap((part) => (typeof part === "string" ? [] : [part.name]))
  const bad = names.find((name, i) => !/^[A-Za-z_]\w*$/.test(name) || names.indexOf(name) !== i)
  if (bad !== undefined) {
    throw new Error(`namespace ${JSON.stringify(text)}: ":${bad}" is not a name of its own, of letters, digits and "_"`)
  }
  const keys = parts.map((part, i) => (typeof part !== "string" ? "*" : part === "*" ? "%2A" : raw[i]))
  return {
    names,
    pattern: Pattern.make("/" + keys.join("/")),
    build: (params) => Ns.fromSegments(parts.map((part) => (typeof part === "string" ? part : params[part.name]!))),
    match: (namespace) => {
      const segments = Ns.segments(namespace)
      if (segments.length !== parts.length) return undefined
      const params: Array<readonly [string, string]> = []
      for (const [i, part] of parts.entries()) {
        const segment = segments[i]!
        if (typeof part !== "string") params.push([part.name, segment])
        else if (part !== segment) return undefined
      }
      return Object.fromEntries(params)
    }
  }
}

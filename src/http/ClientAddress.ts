/**
 * The address of the client, also behind proxies.
 *
 * Anyone can send `X-Forwarded-For`. What it says is taken only from proxies that were named as trusted, and read from
 * the right, where the nearest proxy wrote; what stands further left than the trusted proxies reach is the client's own
 * word and is not believed.
 *
 * @since 0.1.0
 */
import type { HttpServerRequest } from "@effect/platform/HttpServerRequest"
import * as Option from "effect/Option"
import ipaddr from "ipaddr.js"

/**
 * The proxies that are believed: how many stand in front of the server (each must append to the header), or the address
 * ranges (CIDR, `10.0.0.0/8`) or single addresses they connect from.
 *
 * @since 0.1.0
 * @category models
 */
export type TrustedProxies = number | ReadonlyArray<string>

/**
 * How to find a client's address.
 *
 * @since 0.1.0
 * @category models
 */
export interface ClientAddressOptions {
  /** Default: none; the address is the peer's, and forwarding headers are ignored. */
  readonly trustedProxies?: TrustedProxies | undefined
  /**
   * The header your proxies write. Default: `x-forwarded-for`. Only this one is read, as a proxy passes on the others as
   * the client sent them.
   */
  readonly header?: "x-forwarded-for" | "forwarded" | "x-real-ip" | undefined
}

/**
 * What of a request tells its client's address.
 *
 * @since 0.1.0
 * @category models
 */
export type Addressed = Pick<HttpServerRequest, "headers" | "remoteAddress">

/**
 * Makes a function that tells the address of a request's client; `""` when the peer's is not known.
 *
 * @throws Error if a trusted proxy is neither an address nor a CIDR range, or the number is not a whole one from 0 on
 * @since 0.1.0
 * @category constructors
 */
export const make = (options: ClientAddressOptions = {}): ((request: Addressed) => string) => {
  const resolve = resolver(options)
  return (request) => resolve(request).address
}

/**
 * As {@link make}; tells as well whether trusted proxies vouch for the address, all the way from the peer.
 *
 * @internal
 */
export const resolver = (
  options: ClientAddressOptions
): ((request: Addressed) => { readonly address: string; readonly vouched: boolean }) => {
  const header = options.header ?? "x-forwarded-for"
  const trusted = options.trustedProxies ?? 0
  if (typeof trusted === "number" && (!Number.isInteger(trusted) || trusted < 0)) {
    throw new Error(`trustedProxies: ${trusted} is not a number of proxies`)
  }
  const ranges = typeof trusted === "number" ? [] : trusted.map(parseRange)
  const isTrusted = (address: string, hop: number): boolean =>
    typeof trusted === "number" ? hop < trusted : inAnyRange(address, ranges)

  return (request) => {
    let address = normalize(Option.getOrElse(request.remoteAddress, () => "")) ?? ""
    const value = request.headers[header]
    if (trusted === 0 || value === undefined || !isTrusted(address, 0)) return { address, vouched: false }
    const chain =
      header === "x-forwarded-for" ? value.split(",") : header === "forwarded" ? forwardedFor(value) : [value]
    // From the nearest on: each entry was written by the hop behind it, and counts only if that hop is trusted.
    for (let hop = 0; hop < chain.length && isTrusted(address, hop); hop++) {
      const entry = normalize(chain[chain.length - 1 - hop]!.trim())
      if (entry === undefined) return { address, vouched: false }
      address = entry
    }
    return { address, vouched: true }
  }
}

/** The `for` parameters of a `Forwarded` header (RFC 7239 section 4), first hop first. */
const forwardedFor = (value: string): ReadonlyArray<string> =>
  splitOutsideQuotes(value, ",").map((element) => {
    for (const pair of splitOutsideQuotes(element, ";")) {
      const match = /^\s*for\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s"]*))\s*$/i.exec(pair)
      if (match !== null) return match[1]?.replace(/\\(.)/g, "$1") ?? match[2] ?? ""
    }
    return ""
  })

/** In one pass, whatever the text: quotes and backslashes of a header must not make it slow. */
const splitOutsideQuotes = (text: string, separator: "," | ";"): ReadonlyArray<string> => {
  const parts: Array<string> = []
  let start = 0
  let quoted = false
  for (let i = 0; i < text.length; i++) {
    if (quoted && text[i] === "\\") i++
    else if (text[i] === '"') quoted = !quoted
    else if (!quoted && text[i] === separator) {
      parts.push(text.slice(start, i))
      start = i + 1
    }
  }
  parts.push(text.slice(start))
  return parts
}

// What nearly every address is, and every connect looks at one.
const plainIPv4 = /^(?:(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)(?:\.(?!$)|$)){4}$/

/**
 * An address without port, brackets and zone; IPv4 in IPv6 as IPv4; `undefined` for anything else.
 *
 * @internal
 */
export const normalize = (text: string): string | undefined => {
  if (plainIPv4.test(text)) return text
  const bracketed = /^\[([^\]]*)\](?::\d{1,5})?$/.exec(text)
  const withPort = /^(\d{1,3}(?:\.\d{1,3}){3}):\d{1,5}$/.exec(text)
  const bare = (bracketed?.[1] ?? withPort?.[1] ?? text).replace(/%.*$/, "")
  if (!ipaddr.IPv4.isValidFourPartDecimal(bare) && !ipaddr.IPv6.isValid(bare)) return undefined
  return ipaddr.process(bare).toString()
}

type Range = [ipaddr.IPv4 | ipaddr.IPv6, number]

const parseRange = (text: string): Range => {
  if (ipaddr.isValidCIDR(text)) {
    const [range, bits] = ipaddr.parseCIDR(text)
    // Peers are compared as IPv4 where they can be, so ranges have to be, too.
    return range instanceof ipaddr.IPv6 && range.isIPv4MappedAddress() && bits >= 96
      ? [range.toIPv4Address(), bits - 96]
      : [range, bits]
  }
  if (ipaddr.IPv4.isValidFourPartDecimal(text) || ipaddr.IPv6.isValid(text)) {
    const address = ipaddr.process(text)
    return [address, address.kind() === "ipv4" ? 32 : 128]
  }
  throw new Error(`trustedProxies: "${text}" is neither an address nor a CIDR range`)
}

const inAnyRange = (text: string, ranges: ReadonlyArray<Range>): boolean => {
  if (text === "") return false
  const address = ipaddr.process(text)
  return ranges.some(([range, bits]) => address.kind() === range.kind() && address.match(range, bits))
}

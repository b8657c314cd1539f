/**
 * The standalone server's settings, read from the environment.
 *
 * @internal
 */
import * as Config from "effect/Config"
import * as ConfigError from "effect/ConfigError"
import * as Either from "effect/Either"
import type * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
// Only its types: what they describe needs a package that may not be there.
import type { JwtOptions } from "../Authorize/Jwt.js"
import * as ClientAddress from "../http/ClientAddress.js"
import * as Cors from "../http/Cors.js"

export const defaultHost = "127.0.0.1"
export const defaultPort = 8001
export const defaultHeaderBytes = 16 * 1024

/**
 * What the standalone server reads besides the hub's options.
 *
 * @since 0.1.0
 * @category models
 */
export interface ServerConfig extends ClientAddress.ClientAddressOptions {
  /** `SSE_HOST`: the address to listen on. Default: `127.0.0.1`, reached from this machine only. */
  readonly host: string
  /** `SSE_PORT`: the port; 0 takes a free one. Default: 8001. */
  readonly port: number
  /** `SSE_MAX_HEADER_BYTES`: the largest head of a request. Default: 16 KiB. */
  readonly maxHeaderBytes: number
  /** `SSE_ADMIN`: who may see and use the admin page: `loopback`, `open` or `off`. Default: `loopback`. */
  readonly admin: "loopback" | "open" | "off"
  /** `SSE_METRICS`: who may read the metrics: `loopback`, `open` or `off`. Default: `loopback`. */
  readonly metrics: "loopback" | "open" | "off"
  /** `SSE_PUBLISH_TOKEN`: what publishers must send. If neither it nor JWTs are set, the server makes one at start and prints it. */
  readonly publishToken: Option.Option<Redacted.Redacted<string>>
  /**
   * `SSE_JWT_SECRET` (of HS256, at least 32 bytes) and `SSE_JWT_JWKS_URL`, one of them or both, turn JWTs on, for subscribers
   * and publishers; `SSE_JWT_ISSUER`, `SSE_JWT_AUDIENCE` and `SSE_JWT_COOKIE` belong to them. See `Authorize/Jwt`.
   */
  readonly jwt: JwtOptions | undefined
  /**
   * `SSE_CORS_ORIGINS`: `*`, or origins with commas between, whose pages may subscribe and publish with credentials, or `off`.
   * Default: `*`, any may subscribe, without credentials.
   */
  readonly cors: Cors.CorsOptions
  /** `SSE_TLS_KEY` and `SSE_TLS_CERT`: the files of the private key and the certificate. Without them, there is no TLS. */
  readonly tls: { readonly key: string; readonly cert: string } | undefined
}

const access = (name: string, what: string): Config.Config<"loopback" | "open" | "off"> =>
  Config.literal(
    "loopback",
    "open",
    "off"
  )(name).pipe(Config.withDefault("loopback" as const), Config.withDescription(what))

const readTrustedProxies = (text: string): ClientAddress.TrustedProxies => {
  const trustedProxies = /^\s*\d+\s*$/.test(text)
    ? Number(text)
    : text
        .split(",")
        .map((range) => range.trim())
        .filter((range) => range !== "")
  // Made to have it checked; it throws what is wrong.
  ClientAddress.make({ trustedProxies })
  return trustedProxies
}

const optional = <A>(config: Config.Config<A>): Config.Config<A | undefined> => Config.withDefault(config, undefined)

const readJwt: Config.Config<JwtOptions | undefined> = Config.all({
  secret: optional(
    Config.redacted("SSE_JWT_SECRET").pipe(
      Config.validate({
        message: "SSE_JWT_SECRET must have at least 32 bytes",
        validation: (secret) => Buffer.byteLength(Redacted.value(secret)) >= 32
      })
    )
  ),
  keys: optional(
    Config.url("SSE_JWT_JWKS_URL").pipe(
      Config.validate({
        // They are not sent, and would be in the message that says so.
        message: "must begin with http:// or https://, and have no user and password",
        validation: ({ password, protocol, username }) => /^https?:$/.test(protocol) && username + password === ""
      })
    )
  ),
  issuer: optional(Config.nonEmptyString("SSE_JWT_ISSUER")),
  audience: optional(Config.nonEmptyString("SSE_JWT_AUDIENCE")),
  cookie: optional(Config.nonEmptyString("SSE_JWT_COOKIE"))
}).pipe(
  Config.mapOrFail((jwt) => {
    if (jwt.secret !== undefined || jwt.keys !== undefined) return Either.right(jwt)
    // One who sets an issuer does not want everyone in.
    return Object.values(jwt).every((value) => value === undefined)
      ? Either.right(undefined)
      : Either.left(
          ConfigError.InvalidData(["SSE_JWT_SECRET"], "neither it nor SSE_JWT_JWKS_URL is set; JWTs need one")
        )
  })
)

const readTls = Config.all({
  key: optional(Config.nonEmptyString("SSE_TLS_KEY")),
  cert: optional(Config.nonEmptyString("SSE_TLS_CERT"))
}).pipe(
  Config.mapOrFail(({ cert, key }) => {
    if (key !== undefined && cert !== undefined) return Either.right({ key, cert })
    if (key === undefined && cert === undefined) return Either.right(undefined)
    const [set, missing] = key === undefined ? ["SSE_TLS_CERT", "SSE_TLS_KEY"] : ["SSE_TLS_KEY", "SSE_TLS_CERT"]
    return Either.left(ConfigError.MissingData([missing], `${set} is set; TLS needs both`))
  })
)

const readOrigins = (text: string): Cors.CorsOptions => {
  const origins = text === "*" ? text : text === "off" ? [] : text.split(",").map((origin) => origin.trim())
  // Made to have it checked; it throws what is wrong.
  Cors.make({ origins })
  return { origins }
}

/**
 * Reads them from the environment: the variables that {@link ServerConfig} names, `SSE_TRUSTED_PROXIES` (a number of hops, or
 * addresses and CIDR ranges with commas between) and `SSE_CLIENT_ADDRESS_HEADER`.
 *
 * @since 0.1.0
 * @category config
 */
export const fromEnv: Config.Config<ServerConfig> = Config.all({
  host: Config.nonEmptyString("SSE_HOST").pipe(
    Config.withDefault(defaultHost),
    Config.withDescription("address to listen on")
  ),
  port: Config.integer("SSE_PORT").pipe(
    Config.validate({ message: "must be from 0 to 65535", validation: (port) => port >= 0 && port <= 65_535 }),
    Config.withDefault(defaultPort),
    Config.withDescription("port to listen on, 0 for a free one")
  ),
  maxHeaderBytes: Config.integer("SSE_MAX_HEADER_BYTES").pipe(
    Config.validate({ message: "must be at least 256", validation: (bytes) => bytes >= 256 }),
    Config.withDefault(defaultHeaderBytes),
    Config.withDescription("largest head of a request in bytes")
  ),
  admin: access("SSE_ADMIN", "who may see the admin page"),
  metrics: access("SSE_METRICS", "who may read the metrics"),
  publishToken: Config.option(Config.redacted(Config.nonEmptyString("SSE_PUBLISH_TOKEN"))),
  jwt: readJwt,
  tls: readTls,
  cors: Config.string("SSE_CORS_ORIGINS").pipe(
    Config.mapAttempt(readOrigins),
    Config.withDefault<Cors.CorsOptions>({}),
    Config.withDescription("origins whose pages may subscribe and publish with credentials")
  ),
  trustedProxies: Config.string("SSE_TRUSTED_PROXIES").pipe(
    Config.mapAttempt(readTrustedProxies),
    Config.withDefault<ClientAddress.TrustedProxies>(0)
  ),
  header: Config.literal(
    "x-forwarded-for",
    "forwarded",
    "x-real-ip"
  )("SSE_CLIENT_ADDRESS_HEADER").pipe(Config.withDefault("x-forwarded-for"))
})

/** Real tokens and their keys. */
import { Effect, type Scope } from "effect"
import * as Jose from "jose"
import { createServer, type Server } from "node:http"
import type { AddressInfo } from "node:net"

/** 32 bytes. */
export const secret = "0123456789abcdef0123456789abcdef"

export interface Signer {
  readonly alg: string
  readonly kid: string
  readonly key: CryptoKey | Uint8Array
  readonly jwk: Jose.JWK
  /** The public key in PEM. */
  readonly pem: string
}

export const signer = (alg: "RS256" | "ES256" | "EdDSA", kid: string): Effect.Effect<Signer> =>
  Effect.promise(async () => {
    const { privateKey, publicKey } = await Jose.generateKeyPair(alg, { extractable: true })
    const jwk = { ...(await Jose.exportJWK(publicKey)), kid, alg, use: "sig" }
    return { alg, kid, key: privateKey, jwk, pem: await Jose.exportSPKI(publicKey) }
  })

export const bySecret = (text = secret): Pick<Signer, "alg" | "key"> => ({
  alg: "HS256",
  key: new TextEncoder().encode(text)
})

export interface Claims {
  readonly [claim: string]: unknown
}

/** Claims of a token that may subscribe and publish below /pets. */
export const claims = (now: number, more: Claims = {}): Claims => ({
  sub: "ann",
  iat: now,
  exp: now + 60,
  sse: { subscribe: ["/pets", "/rooms/*/alerts"], publish: ["/pets/dogs"] },
  ...more
})

export const sign = (
  by: Pick<Signer, "alg" | "key"> & { readonly kid?: string },
  payload: Claims
): Effect.Effect<string> =>
  Effect.promise(() =>
    new Jose.SignJWT(payload)
      .setProtectedHeader({ alg: by.alg, ...(by.kid === undefined ? {} : { kid: by.kid }) })
      .sign(by.key)
  )

export interface KeyServer {
  readonly url: string
  readonly state: { keys: ReadonlyArray<Jose.JWK>; fetches: number; status: number }
}

/** Serves a JSON Web Key Set on loopback. */
export const keyServer = (keys: ReadonlyArray<Jose.JWK>): Effect.Effect<KeyServer, never, Scope.Scope> => {
  const state = { keys, fetches: 0, status: 200 }
  return Effect.acquireRelease(
    Effect.async<Server>((resume) => {
      const server: Server = createServer((_, response) => {
        state.fetches++
        response.writeHead(state.status, { "content-type": "application/json", connection: "close" })
        response.end(JSON.stringify({ keys: state.keys }))
      }).listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
    }),
    (server) => Effect.sync(() => server.close())
  ).pipe(
    Effect.map((server) => ({
      url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/jwks.json`,
      state
    }))
  )
}

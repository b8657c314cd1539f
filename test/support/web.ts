/** Routes as a web handler whose fibers run on the test's clock. */
import { HttpApp, type HttpRouter } from "@effect/platform"
import { Effect } from "effect"

export type Send = (path: string, init?: RequestInit) => Effect.Effect<Response>

export const handlerOf = <R>(app: HttpRouter.HttpRouter<never, R>): Effect.Effect<Send, never, R> =>
  Effect.map(Effect.runtime<R>(), (runtime) => {
    const handler = HttpApp.toWebHandlerRuntime(runtime)(app as HttpRouter.HttpRouter<never, R>)
    return (path, init) =>
      Effect.promise(() => handler(new Request(`http://localhost${path}`, init))) as Effect.Effect<Response>
  })

export const bearer = (token: string) => ({ headers: { authorization: `Bearer ${token}` } })

export const json = (response: Response) => Effect.promise(() => response.json() as Promise<Record<string, unknown>>)

/** Status, and the error's name where there is one. */
export const said = (response: Response) =>
  Effect.gen(function* () {
    if (response.ok) return String(response.status)
    return `${response.status} ${String((yield* json(response))["error"])}`
  })

/** Reads a body until it satisfies the predicate or ends. */
export const reader = (response: Response) => {
  const reader = response.body!.getReader()
  let body = ""
  return (predicate: (body: string) => boolean) =>
    Effect.promise(async () => {
      while (!predicate(body)) {
        const { done, value } = await reader.read()
        if (done) break
        body += new TextDecoder().decode(value)
      }
      return body
    })
}

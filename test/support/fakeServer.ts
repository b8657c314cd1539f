/** The server's side of an `HttpClient`, played by a test: it takes the requests one by one and answers as it likes. */
import { HttpClient, HttpClientError, type HttpClientRequest, HttpClientResponse } from "@effect/platform"
import { Deferred, Effect, Layer, Queue } from "effect"

export interface FakeBody {
  readonly write: (data: string | Uint8Array) => void
  readonly end: () => void
  readonly fail: () => void
}

export interface FakeRequest {
  readonly request: HttpClientRequest.HttpClientRequest
  readonly url: URL
  readonly signal: AbortSignal
  /** Answers with a body that stays open; an event stream if nothing else is said. */
  readonly answer: (status?: number, headers?: Record<string, string>) => FakeBody
  /** Fails as when there is no server. */
  readonly refuse: () => void
}

export interface FakeServer {
  readonly layer: Layer.Layer<HttpClient.HttpClient>
  /** Waits for the next request. */
  readonly next: Effect.Effect<FakeRequest>
  /** Requests that nobody took yet. */
  readonly waiting: Effect.Effect<number>
}

const encoder = new TextEncoder()
const withoutBody = new Set([204, 205, 304])

export const make: Effect.Effect<FakeServer> = Effect.gen(function* () {
  const requests = yield* Queue.unbounded<FakeRequest>()
  const client = HttpClient.make((request, url, signal) =>
    Effect.gen(function* () {
      const answer = yield* Deferred.make<HttpClientResponse.HttpClientResponse, HttpClientError.HttpClientError>()
      const refuse = () =>
        Deferred.unsafeDone(answer, Effect.fail(new HttpClientError.RequestError({ request, reason: "Transport" })))
      yield* Queue.offer(requests, {
        request,
        url,
        signal,
        refuse,
        answer: (status = 200, headers = { "content-type": "text/event-stream" }) => {
          let controller: ReadableStreamDefaultController<Uint8Array> | undefined
          const body = new ReadableStream<Uint8Array>({ start: (made) => void (controller = made) })
          const response = new Response(withoutBody.has(status) ? null : body, { status, headers })
          Deferred.unsafeDone(answer, Effect.succeed(HttpClientResponse.fromWeb(request, response)))
          return {
            write: (data) => controller!.enqueue(typeof data === "string" ? encoder.encode(data) : data),
            end: () => controller!.close(),
            fail: () => controller!.error(new Error("reset by peer"))
          }
        }
      })
      return yield* Deferred.await(answer)
    })
  )
  return {
    layer: Layer.succeed(HttpClient.HttpClient, client),
    next: Queue.take(requests),
    waiting: Queue.size(requests)
  }
})

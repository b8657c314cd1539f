/** The client's connections, on the test's clock and with a server that the test plays. */
import { HttpClient, HttpClientRequest, type HttpClient as Http } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import { SseClient, type SseError } from "effect-sse"
import {
  Cause,
  Chunk,
  Clock,
  DateTime,
  Deferred,
  Duration,
  Effect,
  Exit,
  Fiber,
  Layer,
  Logger,
  Queue,
  Random,
  Schedule,
  ScheduleIntervals,
  type Scope,
  Stream,
  TestClock
} from "effect"
import * as FakeServer from "./support/fakeServer.js"
import { eventually } from "./support/server.js"

const url = "http://localhost/subscribe/pets"

interface Running {
  readonly server: FakeServer.FakeServer
  /** Waits for the next element. */
  readonly take: Effect.Effect<SseClient.Signal>
  /** Waits for the next element, without what differs from run to run. */
  readonly shown: Effect.Effect<unknown>
  /** Elements that came and were not taken. */
  readonly left: Effect.Effect<number>
  readonly exit: Effect.Effect<Exit.Exit<void, SseError.SseClientError>>
  readonly stop: Effect.Effect<void>
}

const running = (
  options?: SseClient.ClientOptions,
  request: Parameters<typeof SseClient.streamAll>[0] = url,
  through: (layer: Layer.Layer<Http.HttpClient>) => Layer.Layer<Http.HttpClient> = (layer) => layer
): Effect.Effect<Running, never, Scope.Scope> =>
  Effect.gen(function* () {
    const server = yield* FakeServer.make
    const signals = yield* Queue.unbounded<SseClient.Signal>()
    const exit = yield* Deferred.make<Exit.Exit<void, SseError.SseClientError>>()
    const fiber = yield* SseClient.streamAll(request, options).pipe(
      Stream.runForEach((signal) => Queue.offer(signals, signal)),
      Effect.provide(through(server.layer)),
      Effect.onExit((ended) => Deferred.succeed(exit, ended)),
      Effect.forkScoped
    )
    return {
      server,
      take: Queue.take(signals),
      shown: Effect.map(Queue.take(signals), show),
      left: Queue.size(signals),
      exit: Deferred.await(exit),
      stop: Fiber.interrupt(fiber)
    }
  })

const show = (signal: SseClient.Signal): unknown => {
  switch (signal._tag) {
    case "Connected":
      return `connected ${signal.lastEventId}`
    case "Event":
      return `${signal.event}=${signal.data}#${signal.id}`
    case "Reset":
      return signal
    case "Disconnected":
      return `${signal.reason} ${signal.status ?? ""} ${signal.retryInMillis}`
  }
}

/** Waits until the client sleeps for so long from now. (Sleepers that were interrupted stay in the clock's list.) */
const asleep = (millis: number) =>
  eventually(
    Effect.zipWith(TestClock.sleeps(), Clock.currentTimeMillis, (sleeps, now) => Chunk.contains(sleeps, now + millis))
  )

/** Waits until the client sleeps for so long, looks that it does so until the last ms, and wakes it. */
const sleptFor = (millis: number, server: FakeServer.FakeServer) =>
  Effect.gen(function* () {
    yield* asleep(millis)
    yield* TestClock.adjust(millis - 1)
    assert.strictEqual(yield* server.waiting, 0)
    yield* TestClock.adjust(1)
  })

const doubling = Schedule.exponential("1 second")

const failure = (exit: Exit.Exit<void, SseError.SseClientError>) =>
  Exit.isSuccess(exit) ? exit : Effect.runSync(Effect.flip(exit))

describe("SseClient", () => {
  it.scoped("asks for an event stream, and keeps what the request says", () =>
    Effect.gen(function* () {
      for (const request of [url, new URL(url), HttpClientRequest.get(url)]) {
        const { server } = yield* running({}, request)
        const asked = yield* server.next
        assert.strictEqual(asked.url.href, url)
        assert.strictEqual(asked.request.method, "GET")
        assert.strictEqual(asked.request.headers["accept"], "text/event-stream")
        assert.notProperty(asked.request.headers, "last-event-id")
      }
      const request = HttpClientRequest.post(`${url}?a=1`, {
        headers: { authorization: "Bearer x", accept: "text/event-stream, application/json" }
      }).pipe(HttpClientRequest.bodyUnsafeJson({ question: 42 }))
      const { server } = yield* running({ since: 10 }, request)
      const asked = yield* server.next
      assert.strictEqual(asked.url.href, `${url}?a=1&since=10`)
      assert.strictEqual(asked.request.method, "POST")
      assert.strictEqual(asked.request.headers["authorization"], "Bearer x")
      assert.strictEqual(asked.request.headers["accept"], "text/event-stream, application/json")
    })
  )

  it.scoped("goes on behind the last event, and behind an id without an event", () =>
    Effect.gen(function* () {
      const { server, shown } = yield* running({ schedule: doubling, lastEventId: "e-1" })
      const first = yield* server.next
      assert.strictEqual(first.request.headers["last-event-id"], "e-1")
      const body = first.answer()
      assert.strictEqual(yield* shown, "connected e-1")
      body.write(":ok\n\nid:e-2\nevent:dog\ndata:Corgi\n\ndata:no id\n\nid:e-3\ndata:cut off\n")
      assert.strictEqual(yield* shown, "dog=Corgi#e-2")
      assert.strictEqual(yield* shown, "message=no id#e-2")
      body.fail()
      assert.strictEqual(yield* shown, "broken  1000")
      yield* sleptFor(1000, server)
      const second = yield* server.next
      assert.strictEqual(second.request.headers["last-event-id"], "e-2")
      const cursor = second.answer()
      cursor.write("id:e-9\n\n")
      cursor.end()
      assert.strictEqual(yield* shown, "connected e-2")
      assert.strictEqual(yield* shown, "ended  1000")
      yield* sleptFor(1000, server)
      assert.strictEqual((yield* server.next).request.headers["last-event-id"], "e-9")
    })
  )

  it.scoped("sends an id beyond ASCII as the bytes of its UTF-8", () =>
    Effect.gen(function* () {
      const { server } = yield* running({ lastEventId: "é😀" })
      const header = (yield* server.next).request.headers["last-event-id"]!
      assert.strictEqual(Buffer.from(header, "latin1").toString(), "é😀")
    })
  )

  it.scoped("backs off while attempts fail, and starts anew after a connection that delivered", () =>
    Effect.gen(function* () {
      const { server, shown } = yield* running({ schedule: doubling })
      for (const millis of [1000, 2000, 4000]) {
        const asked = yield* server.next
        asked.refuse()
        assert.strictEqual(yield* shown, `unreachable  ${millis}`)
        assert.isTrue(asked.signal.aborted)
        yield* sleptFor(millis, server)
      }
      // One that is refused, and ones that end, break or deliver a comment: no reason to hurry.
      ;(yield* server.next).answer(503)
      assert.strictEqual(yield* shown, "refused 503 8000")
      yield* sleptFor(8000, server)
      const empty = (yield* server.next).answer()
      empty.write(":ok\n\n")
      empty.end()
      assert.strictEqual(yield* shown, "connected ")
      assert.strictEqual(yield* shown, "ended  16000")
      yield* sleptFor(16_000, server)
      for (const millis of [1000, 1000]) {
        const good = (yield* server.next).answer()
        good.write("data:a\n\n")
        assert.strictEqual(yield* shown, "connected ")
        assert.strictEqual(yield* shown, "message=a#")
        good.end()
        assert.strictEqual(yield* shown, `ended  ${millis}`)
        yield* sleptFor(millis, server)
      }
    })
  )

  it.scoped("a connection that lasted ten seconds was good, even without an event", () =>
    Effect.gen(function* () {
      const { server, shown } = yield* running({ schedule: doubling, idleTimeout: false })
      for (const [lasts, millis] of [
        [9_999, 1000],
        [9_999, 2000],
        [10_000, 1000]
      ] as const) {
        const body = (yield* server.next).answer()
        assert.strictEqual(yield* shown, "connected ")
        yield* TestClock.adjust(lasts)
        body.end()
        assert.strictEqual(yield* shown, `ended  ${millis}`)
        yield* sleptFor(millis, server)
      }
    })
  )

  it.scoped("by default it waits anywhere between nothing and a bound, which doubles up to 30 seconds", () =>
    Effect.gen(function* () {
      const delays = (steps: number) =>
        Effect.gen(function* () {
          let state = SseClient.defaultSchedule.initial
          const delays: Array<number> = []
          for (let i = 0; i < steps; i++) {
            const [next, , decision] = yield* SseClient.defaultSchedule.step(0, undefined, state)
            state = next
            delays.push(decision._tag === "Done" ? Number.NaN : ScheduleIntervals.start(decision.intervals))
          }
          return delays
        })
      const runs = yield* Effect.replicateEffect(delays(8), 300).pipe(Effect.withRandom(Random.make("jitter")))
      for (let i = 0; i < 8; i++) {
        const bound = Math.min(1000 * 2 ** i, 30_000)
        const drawn = runs.map((delays) => delays[i]! / bound)
        assert.isBelow(Math.max(...drawn), 1)
        assert.isAbove(Math.max(...drawn), 0.9)
        assert.isAtLeast(Math.min(...drawn), 0)
        assert.isBelow(Math.min(...drawn), 0.1)
      }
      for (const delay of yield* delays(2000)) assert.isAtMost(delay, 30_000)
    })
  )

  it.scoped("waits as long as the server asks, from then on, and longer while attempts fail", () =>
    Effect.gen(function* () {
      const { server, shown } = yield* running({ schedule: doubling })
      const first = (yield* server.next).answer()
      first.write("retry:7000\ndata:a\n\n")
      assert.strictEqual(yield* shown, "connected ")
      assert.strictEqual(yield* shown, "message=a#")
      first.end()
      assert.strictEqual(yield* shown, "ended  7000")
      yield* sleptFor(7000, server)
      for (const backoff of [2000, 4000]) {
        ;(yield* server.next).refuse()
        assert.strictEqual(yield* shown, `unreachable  ${7000 + backoff}`)
        yield* sleptFor(7000 + backoff, server)
      }
      // A server that is full says only when to come back.
      const full = (yield* server.next).answer()
      full.write("retry:500\n\n")
      full.end()
      assert.strictEqual(yield* shown, "connected ")
      assert.strictEqual(yield* shown, "ended  8500")
      yield* sleptFor(8500, server)
      const good = (yield* server.next).answer()
      good.write("data:a\n\n")
      good.end()
      assert.strictEqual(yield* shown, "connected ")
      assert.strictEqual(yield* shown, "message=a#")
      assert.strictEqual(yield* shown, "ended  500")
    })
  )

  it.scoped("a server's time has a floor and a bound, and what is no number is ignored", () =>
    Effect.gen(function* () {
      const afterRetry = (retry: string, options: SseClient.ClientOptions = {}) =>
        Effect.gen(function* () {
          const { server, shown, stop } = yield* running({ schedule: doubling, ...options })
          const body = (yield* server.next).answer()
          body.write(`retry:${retry}\ndata:\n\n`)
          body.end()
          yield* shown
          yield* shown
          const disconnected = yield* shown
          yield* stop
          return disconnected
        })
      assert.strictEqual(yield* afterRetry("0"), "ended  100")
      assert.strictEqual(yield* afterRetry("99999999999999999999"), "ended  3600000")
      assert.strictEqual(yield* afterRetry("99999999999999999999", { maxServerDelay: "1 minute" }), "ended  60000")
      const whole = { maxServerDelay: Infinity }
      assert.strictEqual(yield* afterRetry("9".repeat(400), whole), "ended  2147483647")
      for (const bad of ["", "-1", "1.5", "1e3", "0x10", "5 s", "٣"]) {
        assert.strictEqual(yield* afterRetry(bad), "ended  1000", bad)
      }
    })
  )

  it.scoped("waits as long as Retry-After says, for once, and the backoff with it", () =>
    Effect.gen(function* () {
      yield* TestClock.setTime(1_000_000_000_000)
      const { server, shown } = yield* running({ schedule: doubling })
      const inAMinute = DateTime.toDateUtc(DateTime.unsafeMake(1_000_000_000_000 + 13_000 + 60_000)).toUTCString()
      for (const [status, header, millis] of [
        [503, "10", 11_000],
        [429, "0", 2100],
        [503, inAMinute, 59_900 + 4000],
        [408, "Sun Nov  6 08:49:37 1994", 8100],
        [425, "soon", 16_000],
        [500, undefined, 32_000]
      ] as const) {
        ;(yield* server.next).answer(status, header === undefined ? {} : { "retry-after": header })
        assert.strictEqual(yield* shown, `refused ${status} ${millis}`)
        yield* sleptFor(millis, server)
      }
    })
  )

  it.scoped("Retry-After goes before retry, which holds again afterwards", () =>
    Effect.gen(function* () {
      const { server, shown } = yield* running({ schedule: doubling })
      const body = (yield* server.next).answer()
      body.write("retry:7000\ndata:a\n\n")
      body.end()
      yield* shown
      yield* shown
      assert.strictEqual(yield* shown, "ended  7000")
      yield* sleptFor(7000, server)
      ;(yield* server.next).answer(503, { "retry-after": "1" })
      assert.strictEqual(yield* shown, "refused 503 3000")
      yield* sleptFor(3000, server)
      ;(yield* server.next).answer(503)
      assert.strictEqual(yield* shown, "refused 503 11000")
    })
  )

  it.scoped("gives up when the schedule does, and says why", () =>
    Effect.gen(function* () {
      const { exit, server, shown } = yield* running({ schedule: Schedule.recurs(2) })
      for (let i = 0; i < 2; i++) {
        ;(yield* server.next).refuse()
        assert.strictEqual(yield* shown, "unreachable  0")
      }
      ;(yield* server.next).answer(503)
      const error = failure(yield* exit)
      assert.deepInclude(error, { _tag: "ReconnectsExhausted", reason: "refused", status: 503 })
    })
  )

  it.scoped("a schedule can go by the reason", () =>
    Effect.gen(function* () {
      const schedule = Schedule.recurWhile<SseClient.Disconnection>(({ reason }) => reason === "ended")
      const { exit, server, shown } = yield* running({ schedule })
      ;(yield* server.next).answer().end()
      yield* shown
      assert.strictEqual(yield* shown, "ended  0")
      ;(yield* server.next).refuse()
      assert.deepInclude(failure(yield* exit), { _tag: "ReconnectsExhausted", reason: "unreachable" })
    })
  )

  describe("a dead server", () => {
    const silent = (options: SseClient.ClientOptions, headers: Record<string, string>, millis: number) =>
      Effect.gen(function* () {
        const { server, shown, stop } = yield* running({ schedule: doubling, ...options })
        const asked = yield* server.next
        const body = asked.answer(200, { "content-type": "text/event-stream", ...headers })
        assert.strictEqual(yield* shown, "connected ")
        for (const byte of [":", "\n"]) {
          yield* asleep(millis)
          yield* TestClock.adjust(millis - 1)
          // Any byte is a sign of life.
          body.write(byte)
          yield* asleep(millis)
        }
        yield* TestClock.adjust(millis - 1)
        assert.isFalse(asked.signal.aborted)
        yield* TestClock.adjust(1)
        assert.strictEqual(yield* shown, "silent  1000")
        assert.isTrue(asked.signal.aborted)
        yield* stop
      })

    it.scoped("is noticed by two and a half keepalives that do not come, or by 45 seconds", () =>
      Effect.gen(function* () {
        yield* silent({}, { "sse-keepalive": "4000" }, 10_000)
        yield* silent({}, {}, 45_000)
        for (const bad of ["0", "-5", "soon", "99999999999", "1e3", ""]) {
          yield* silent({}, { "sse-keepalive": bad }, 45_000)
        }
        yield* silent({ idleTimeout: "3 seconds" }, { "sse-keepalive": "4000" }, 3000)
      })
    )

    it.scoped("is noticed before it answers", () =>
      Effect.gen(function* () {
        const { server, shown } = yield* running({ schedule: doubling })
        const asked = yield* server.next
        yield* asleep(45_000)
        yield* TestClock.adjust(45_000)
        assert.strictEqual(yield* shown, "silent  1000")
        assert.isTrue(asked.signal.aborted)
      })
    )

    it.scoped("is waited for if that is wanted", () =>
      Effect.gen(function* () {
        const { server, shown } = yield* running({ idleTimeout: false })
        const asked = yield* server.next
        yield* TestClock.adjust("1 hour")
        const body = asked.answer(200, { "content-type": "text/event-stream", "sse-keepalive": "10" })
        assert.strictEqual(yield* shown, "connected ")
        yield* TestClock.adjust("1 hour")
        body.write("data:late\n\n")
        assert.strictEqual(yield* shown, "message=late#")
      })
    )

    it.scoped("is no slow consumer: time counts while the client waits for the network", () =>
      Effect.gen(function* () {
        const server = yield* FakeServer.make
        const gate = yield* Effect.makeSemaphore(0)
        const seen: Array<unknown> = []
        yield* SseClient.streamAll(url).pipe(
          Stream.runForEach((signal) =>
            Effect.zipRight(
              gate.take(1),
              Effect.sync(() => seen.push(show(signal)))
            )
          ),
          Effect.provide(server.layer),
          Effect.forkScoped
        )
        const body = (yield* server.next).answer()
        body.write("data:a\n\n")
        yield* gate.release(1)
        yield* eventually(Effect.sync(() => seen.length === 1))
        yield* TestClock.adjust("10 minutes")
        body.write("data:b\n\n")
        yield* gate.release(2)
        yield* eventually(Effect.sync(() => seen.length === 3))
        assert.deepStrictEqual(seen, ["connected ", "message=a#", "message=b#"])
      })
    )
  })

  it.scoped("ends upon 204, at first and later", () =>
    Effect.gen(function* () {
      const atFirst = yield* running()
      ;(yield* atFirst.server.next).answer(204)
      assert.isTrue(Exit.isSuccess(yield* atFirst.exit))
      assert.strictEqual(yield* atFirst.left, 0)
      const later = yield* running({ schedule: doubling })
      ;(yield* later.server.next).answer().end()
      yield* later.shown
      assert.strictEqual(yield* later.shown, "ended  1000")
      yield* sleptFor(1000, later.server)
      ;(yield* later.server.next).answer(204)
      assert.isTrue(Exit.isSuccess(yield* later.exit))
    })
  )

  it.scoped("tells a lost position in its place, and keeps asking for it until there is another", () =>
    Effect.gen(function* () {
      const { server, shown } = yield* running({ schedule: doubling, lastEventId: "old-7" })
      const body = (yield* server.next).answer()
      assert.strictEqual(yield* shown, "connected old-7")
      const reset = { reason: "expired", requested: "old-7", oldest: null } as const
      body.write(`event:sse-reset\ndata:${JSON.stringify(reset)}\n\n`)
      assert.deepStrictEqual(yield* shown, { _tag: "Reset", ...reset })
      body.end()
      assert.strictEqual(yield* shown, "ended  1000")
      yield* sleptFor(1000, server)
      const again = yield* server.next
      assert.strictEqual(again.request.headers["last-event-id"], "old-7")
      const other = again.answer()
      yield* shown
      other.write(
        `id:new-1\nevent:sse-reset\ndata:{"reason":"restarted","requested":"old-7","oldest":"new-1"}\n\ndata:a\n\n`
      )
      assert.deepInclude(yield* shown, { reason: "restarted", oldest: "new-1" })
      assert.strictEqual(yield* shown, "message=a#new-1")
      // Of a server that means something else by it.
      for (const data of ["{", `{"reason":"bored","requested":"","oldest":null}`, "null", ""]) {
        other.write(`event:sse-reset\ndata:${data}\n\n`)
        assert.strictEqual(yield* shown, `sse-reset=${data}#new-1`)
      }
    })
  )

  it.scoped("fails upon what trying again does not mend, with the beginning of the answer", () =>
    Effect.gen(function* () {
      for (const status of [201, 206, 301, 304, 400, 401, 403, 404, 405, 410, 418, 431]) {
        const { exit, left, server } = yield* running()
        const asked = yield* server.next
        const body = asked.answer(status, { "content-type": "application/json" })
        if (status !== 304) {
          body.write(`{"error":"No`)
          body.write(`pe"}` + " ".repeat(5000))
          body.end()
        }
        const error = failure(yield* exit)
        assert.deepInclude(error, { _tag: "RequestRefused", status })
        if (status !== 304) assert.include((error as SseError.RequestRefused).body, `{"error":"Nope"}`)
        assert.isAtMost((error as SseError.RequestRefused).body.length, 1024)
        assert.strictEqual(yield* left, 0)
        assert.isTrue(asked.signal.aborted)
      }
      // One whose body does not come.
      const { exit, server } = yield* running()
      ;(yield* server.next).answer(403)
      yield* asleep(2000)
      yield* TestClock.adjust(2000)
      assert.deepInclude(failure(yield* exit), { _tag: "RequestRefused", status: 403, body: "" })
    })
  )

  it.scoped("tries again upon what passes", () =>
    Effect.gen(function* () {
      const { server, shown } = yield* running({ schedule: Schedule.forever })
      for (const status of [408, 425, 429, 500, 502, 503, 504, 520, 599]) {
        const asked = yield* server.next
        asked.answer(status)
        assert.strictEqual(yield* shown, `refused ${status} 0`)
        assert.isTrue(asked.signal.aborted)
      }
    })
  )

  it.scoped("takes clients that fail upon statuses themselves", () =>
    Effect.gen(function* () {
      const through = (layer: Layer.Layer<Http.HttpClient>) =>
        Layer.effect(HttpClient.HttpClient, Effect.map(HttpClient.HttpClient, HttpClient.filterStatusOk)).pipe(
          Layer.provide(layer)
        )
      const { exit, server, shown } = yield* running({ schedule: doubling }, url, through)
      ;(yield* server.next).answer(503, { "retry-after": "3" })
      assert.strictEqual(yield* shown, "refused 503 4000")
      yield* sleptFor(4000, server)
      ;(yield* server.next).answer(401).end()
      assert.deepInclude(failure(yield* exit), { _tag: "RequestRefused", status: 401 })
    })
  )

  it.scoped("takes event streams only", () =>
    Effect.gen(function* () {
      for (const contentType of [
        "text/html",
        "text/event-streamx",
        "application/json",
        "text/plain; text/event-stream"
      ]) {
        const { exit, server } = yield* running()
        const asked = yield* server.next
        asked.answer(200, { "content-type": contentType })
        assert.deepInclude(failure(yield* exit), { _tag: "NotAnEventStream", contentType })
        assert.isTrue(asked.signal.aborted)
      }
      const untold = yield* running()
      ;(yield* untold.server.next).answer(200, {})
      assert.deepInclude(failure(yield* untold.exit), { _tag: "NotAnEventStream", contentType: "" })
      for (const contentType of ["text/event-stream;charset=utf-8", "Text/Event-Stream ; x=y", "text/event-stream"]) {
        const { server, shown } = yield* running()
        ;(yield* server.next).answer(200, { "content-type": contentType })
        assert.strictEqual(yield* shown, "connected ")
      }
    })
  )

  it.scoped("fails upon an event beyond the bound, behind those before it", () =>
    Effect.gen(function* () {
      const { exit, server, shown } = yield* running({ maxEventBytes: 20 })
      const asked = yield* server.next
      const body = asked.answer()
      yield* shown
      body.write(`data:a\n\ndata:${"x".repeat(20)}`)
      assert.strictEqual(yield* shown, "message=a#")
      assert.deepInclude(failure(yield* exit), { _tag: "EventTooLarge", limit: 20 })
      assert.isTrue(asked.signal.aborted)
    })
  )

  it.scoped("fails upon a request that cannot be sent", () =>
    Effect.gen(function* () {
      const { exit } = yield* running({}, "http://[::bad")
      assert.deepInclude(failure(yield* exit), { _tag: "InvalidRequest" })
    })
  )

  it.scoped("asks where to begin until something arrived", () =>
    Effect.gen(function* () {
      for (const [since, sent] of [
        ["earliest", "earliest"],
        [100, "100"],
        [0, "0"],
        ["30 seconds", "30s"],
        [Duration.minutes(2), "120s"],
        ["1500 millis", "2s"]
      ] as const) {
        const { server, stop } = yield* running({ since })
        assert.strictEqual((yield* server.next).url.searchParams.get("since"), sent)
        yield* stop
      }
      const { server, shown } = yield* running({ since: "earliest", schedule: Schedule.forever })
      ;(yield* server.next).refuse()
      const second = yield* server.next
      assert.strictEqual(second.url.searchParams.get("since"), "earliest")
      const empty = second.answer()
      empty.write("retry:100\n\n")
      empty.end()
      for (let i = 0; i < 3; i++) yield* shown
      yield* asleep(100)
      yield* TestClock.adjust(100)
      const third = yield* server.next
      assert.strictEqual(third.url.searchParams.get("since"), "earliest")
      const body = third.answer()
      body.write("data:without an id\n\n")
      body.end()
      for (let i = 0; i < 3; i++) yield* shown
      yield* asleep(100)
      yield* TestClock.adjust(100)
      assert.isNull((yield* server.next).url.searchParams.get("since"))
      const known = yield* running({ since: "earliest", lastEventId: "e-1" })
      assert.isNull((yield* known.server.next).url.searchParams.get("since"))
    })
  )

  it.scoped("interruption closes what is open, at each step", () =>
    Effect.gen(function* () {
      const connecting = yield* running()
      const unanswered = yield* connecting.server.next
      yield* connecting.stop
      assert.isTrue(unanswered.signal.aborted)

      const reading = yield* running()
      const answered = yield* reading.server.next
      answered.answer()
      yield* reading.shown
      yield* reading.stop
      assert.isTrue(answered.signal.aborted)

      const waiting = yield* running({ schedule: doubling })
      ;(yield* waiting.server.next).refuse()
      yield* waiting.shown
      yield* asleep(1000)
      yield* waiting.stop
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(yield* waiting.server.waiting, 0)
    })
  )

  it.scoped("a consumer that has enough closes the connection", () =>
    Effect.gen(function* () {
      const server = yield* FakeServer.make
      const fiber = yield* SseClient.stream(url).pipe(
        Stream.take(2),
        Stream.runCollect,
        Effect.provide(server.layer),
        Effect.fork
      )
      const asked = yield* server.next
      asked.answer().write("data:a\n\ndata:b\n\ndata:c\n\n")
      assert.deepStrictEqual(
        Array.from(yield* Fiber.join(fiber), ({ data }) => data),
        ["a", "b"]
      )
      assert.isTrue(asked.signal.aborted)
    })
  )

  it.scoped("a body that breaks while nobody reads it disturbs nobody", () =>
    Effect.gen(function* () {
      const server = yield* FakeServer.make
      const reached = yield* Deferred.make<void>()
      const gate = yield* Effect.makeLatch(false)
      const fiber = yield* SseClient.stream(url).pipe(
        Stream.tap(() => Effect.zipRight(Deferred.succeed(reached, undefined), gate.await)),
        Stream.take(1),
        Stream.runCount,
        Effect.provide(server.layer),
        Effect.fork
      )
      const body = (yield* server.next).answer()
      body.write("data:a\n\n")
      yield* Deferred.await(reached)
      body.fail()
      yield* gate.open
      assert.strictEqual(yield* Fiber.join(fiber), 1)
    })
  )

  it.scoped("stream has the events, and tells the log what was lost", () =>
    Effect.gen(function* () {
      const logged: Array<string> = []
      const logger = Logger.make(({ logLevel, message }) => {
        logged.push(`${logLevel.label} ${String(Array.isArray(message) ? message[0] : message)}`)
      })
      const server = yield* FakeServer.make
      const fiber = yield* SseClient.stream(url, { schedule: Schedule.forever }).pipe(
        Stream.take(2),
        Stream.runCollect,
        Effect.provide(Layer.merge(server.layer, Logger.replace(Logger.defaultLogger, logger))),
        Effect.fork
      )
      const first = (yield* server.next).answer()
      first.write(`data:a\n\nevent:sse-reset\ndata:{"reason":"expired","requested":"e-1","oldest":null}\n\n`)
      first.end()
      ;(yield* server.next).answer().write("data:b\n\n")
      assert.deepStrictEqual(Array.from(yield* Fiber.join(fiber)), [
        { _tag: "Event", event: "message", data: "a", id: "" },
        { _tag: "Event", event: "message", data: "b", id: "" }
      ])
      assert.include(logged, "WARN effect-sse: events were lost")
    })
  )

  it.scoped("each run of one stream is a client of its own", () =>
    Effect.gen(function* () {
      const server = yield* FakeServer.make
      const stream = Stream.take(SseClient.stream(url), 1)
      for (let i = 0; i < 2; i++) {
        const fiber = yield* Effect.fork(Effect.provide(Stream.runDrain(stream), server.layer))
        const asked = yield* server.next
        assert.notProperty(asked.request.headers, "last-event-id")
        asked.answer().write("id:e-1\ndata:a\n\n")
        yield* Fiber.join(fiber)
      }
    })
  )

  it.scoped("refuses options that make no sense", () =>
    Effect.gen(function* () {
      for (const [options, text] of [
        [{ lastEventId: "a\nb" }, "lastEventId"],
        [{ maxEventBytes: 0 }, "maxEventBytes"],
        [{ maxEventBytes: Number.NaN }, "maxEventBytes"],
        [{ idleTimeout: 0 }, "idleTimeout"],
        [{ since: -1 }, "since"],
        [{ since: 1.5 }, "since"]
      ] as const) {
        const { exit } = yield* running(options)
        const ended = yield* exit
        assert.include(Exit.isFailure(ended) && Cause.isDie(ended.cause) ? Cause.pretty(ended.cause) : "", text)
      }
    })
  )
})

/**
 * Listens to a server, and tells what happens on the way.
 *
 *     npm start                      in one terminal
 *     npx tsx examples/client.ts     in another; then stop the server, and start it again
 *
 * Another server: `SSE_URL=https://example.com/events npx tsx examples/client.ts`
 */
import { NodeHttpClient, NodeRuntime } from "@effect/platform-node"
import { SseClient } from "effect-sse"
import { Config, Console, Effect, Match, Stream } from "effect"

const show = Match.type<SseClient.Signal>().pipe(
  Match.tagsExhaustive({
    Connected: ({ lastEventId }) => Console.log(lastEventId === "" ? "online" : `online, behind ${lastEventId}`),
    Event: ({ data, event }) => Console.log(`${event}: ${data}`),
    Reset: ({ reason }) => Console.log(`events were lost (${reason})`),
    Disconnected: ({ reason, retryInMillis }) => Console.log(`offline (${reason}), again in ${retryInMillis} ms`)
  })
)

const program = Effect.gen(function* () {
  const url = yield* Config.withDefault(Config.string("SSE_URL"), "http://127.0.0.1:8001/subscribe/")
  yield* SseClient.streamAll(url).pipe(Stream.runForEach(show))
})

NodeRuntime.runMain(Effect.provide(program, NodeHttpClient.layer))

/** A client as browsers are: it comes back with the id it got last, wherever there is a server. */
import { Effect, type Scope } from "effect"
import * as Http from "node:http"

export interface ResumingClient {
  /** The data of the events it got, in order; a reset is `reset`. */
  readonly data: Array<string>
  /** How often it connected. */
  readonly connects: () => number
}

/** Real time in ms until it comes back. */
const comeBack = 50

/** @param ports where it goes, one behind the other */
export const resumingClient = (
  ports: ReadonlyArray<number>,
  path: string,
  turn = 0
): Effect.Effect<ResumingClient, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const data: Array<string> = []
      let connects = 0
      let lastId = ""
      let stopped = false
      let current: Http.ClientRequest | undefined
      let timer: NodeJS.Timeout | undefined
      const take = (block: string) => {
        let text: string | undefined
        let name = ""
        for (const line of block.split("\n")) {
          if (line.startsWith("id:")) lastId = line.slice(3)
          else if (line.startsWith("event:")) name = line.slice(6)
          else if (line.startsWith("data:")) text = line.slice(5)
        }
        if (text !== undefined) data.push(name === "sse-reset" ? "reset" : text)
      }
      const open = () => {
        let buffer = ""
        let over = false
        const again = () => {
          if (over || stopped) return
          over = true
          turn++
          timer = setTimeout(open, comeBack)
        }
        current = Http.get(
          {
            port: ports[turn % ports.length]!,
            host: "127.0.0.1",
            path,
            agent: false,
            headers: lastId === "" ? {} : { "Last-Event-ID": lastId }
          },
          (response) => {
            connects++
            response.setEncoding("utf8")
            response.on("data", (piece: string) => {
              // What was cut off in the middle of an event is no event.
              const blocks = (buffer + piece).split("\n\n")
              buffer = blocks.pop()!
              blocks.forEach(take)
            })
            response.on("error", () => {})
            response.on("close", again)
          }
        )
        current.on("error", again)
      }
      open()
      return {
        data,
        connects: () => connects,
        stop: () => {
          stopped = true
          clearTimeout(timer)
          current?.destroy()
        }
      }
    }),
    ({ stop }) => Effect.sync(stop)
  )

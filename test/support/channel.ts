/** A channel between two threads, as that between two processes. */
import type { MessagePort } from "node:worker_threads"
import type { Channel } from "../../src/internal/remote/log.js"

export const channelOf = <M>(port: MessagePort): Channel<M> => ({
  send: (message) => port.postMessage(message),
  listen: (listener) => {
    port.on("message", listener)
    return () => void port.off("message", listener)
  }
})

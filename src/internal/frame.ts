/**
 * Bytes ready to be written to many connections: made once, shared by all of them.
 *
 * @internal
 */
export interface Frame {
  /** Whole event-stream blocks, each ended by a blank line. */
  readonly bytes: Uint8Array
  /** The same bytes as one HTTP/1.1 chunk (RFC 9112 section 7.1), in the same memory. */
  readonly chunk: Uint8Array
}

// Node's sockets take a Buffer as it is, but wrap any other array anew for each write.
const allocate = (size: number): Uint8Array =>
  typeof Buffer === "undefined" ? new Uint8Array(size) : Buffer.allocUnsafeSlow(size)

/**
 * Joins blocks in their order.
 *
 * @internal
 */
export const join = (blocks: ReadonlyArray<Uint8Array>): Frame => {
  let size = 0
  for (const block of blocks) size += block.length
  const head = size.toString(16) + "\r\n"
  const chunk = allocate(head.length + size + 2)
  let offset = 0
  for (; offset < head.length; offset++) chunk[offset] = head.charCodeAt(offset)
  for (const block of blocks) {
    chunk.set(block, offset)
    offset += block.length
  }
  chunk[offset] = 13
  chunk[offset + 1] = 10
  return { chunk, bytes: chunk.subarray(head.length, offset) }
}

/**
 * A frame of one block.
 *
 * @internal
 */
export const of = (block: Uint8Array): Frame => join([block])

/**
 * What an app says of a client, as JSON.
 *
 * @internal
 */

/** An app may say anything of a client; what JSON cannot carry is shown as text. */
export const json = (value: unknown): string => {
  try {
    return JSON.stringify(value) ?? "null"
  } catch {
    return '"(not JSON)"'
  }
}

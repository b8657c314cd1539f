/** Events of any text that an event stream can carry, with what parsers stumble over among it. */
import { FastCheck as fc } from "effect"

export const wellFormed = (minLength: number) =>
  fc
    .oneof(
      fc.string({ unit: "binary", minLength }),
      fc.string({
        unit: fc.constantFrom(" ", ":", "\r", "\n", "\r\n", "d", "é", "\u2028", "\ufeff", "😀"),
        minLength
      })
    )
    .filter((value) => value.isWellFormed())

export const eventFields = {
  namespace: fc.constant("/"),
  data: wellFormed(0),
  event: fc.option(
    wellFormed(1).filter((name) => !/[\r\n\0]/.test(name)),
    { nil: undefined }
  ),
  id: fc.option(fc.stringMatching(/^[\x21-\x7e]{1,128}$/), { nil: undefined })
}

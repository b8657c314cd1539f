/**
 * A number of the options, if it is not too small.
 *
 * @throws Error that says so, if it is
 * @internal
 */
export const atLeast = (name: string, min: number, value: number): number => {
  if (!(value >= min)) throw new Error(`${name} is ${value}; it must be at least ${min}`)
  return value
}

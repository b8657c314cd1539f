/**
 * The version of this package; a test holds it against package.json, which no runtime but Node can read.
 *
 * @internal
 */
export const version = "0.1.0"

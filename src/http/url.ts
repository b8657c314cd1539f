/**
 * The path and the query of a request's URL, both raw; the query is `""` if there is none.
 *
 * @internal
 */
export const splitUrl = (url: string): readonly [path: string, query: string] => {
  // A request line may carry an absolute URL (RFC 9112 section 3.2.2), and web requests do.
  const start = url.startsWith("/") ? 0 : Math.max(0, url.indexOf("/", url.indexOf("://") + 3))
  const query = url.indexOf("?", start)
  return query === -1 ? [url.slice(start), ""] : [url.slice(start, query), url.slice(query + 1)]
}

/**
 * The path and the query of a request's URL, both raw; the query is `""` if there is none.
 *
 * @internal
 */
export const splitUrl = (url: string): readonly [path: string, query: string] => {
  const relative = toRelative(url)
  const query = relative.indexOf("?")
  return query === -1 ? [relative, ""] : [relative.slice(0, query), relative.slice(query + 1)]
}

/**
 * An absolute URL without its scheme and host, as web requests carry it, and a request line may (RFC 9112 section 3.2.2).
 *
 * @internal
 */
export const toRelative = (url: string): string => {
  const origin = /^[a-z][a-z0-9+.-]*:\/\/[^/?#]*/i.exec(url)
  if (origin === null) return url
  const rest = url.slice(origin[0].length)
  return rest.startsWith("/") ? rest : "/" + rest
}

/** Comparing callback URLs after WHATWG parsing: whether two are equal, and whether one lies under another. Pure. */

/** The URL in canonical spelling: normalized by RFC 3986 §6.2.2, without the trailing dot of a host. Text that is no URL is returned as it is. */
export function canonicalUrl(text: string): string {
  const url = URL.parse(text)
  if (url === null) return text
  if (url.hostname.endsWith('.')) url.hostname = url.hostname.slice(0, -1)
  return url.href.replace(/%[0-9a-f]{2}/gi, (encoded) => {
    const character = String.fromCharCode(Number.parseInt(encoded.slice(1), 16))
    return /[\w.~-]/.test(character) ? character : encoded.toUpperCase()
  })
}

/** Paths that a receiver may read differently: an encoded `/` or `\`, and `.` or `..` before path parameters. */
const AMBIGUOUS = /%2f|%5c|\/(\.|%2e){1,2};/i

/** Whether a URL has the origin of `base` and its path, or extends it by whole segments; it may have a query. An {@link AMBIGUOUS} path is under no URL. */
export function isUnder(url: string, base: string): boolean {
  const target = URL.parse(url)
  const root = URL.parse(base)
  if (target === null || root === null || target.origin !== root.origin || AMBIGUOUS.test(target.pathname)) return false
  const prefix = root.pathname.endsWith('/') ? root.pathname : `${root.pathname}/`
  return target.pathname === root.pathname || target.pathname.startsWith(prefix)
}

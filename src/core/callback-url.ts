/** How callback URLs relate: whether two are the same address, and whether one lies under another. Pure, after WHATWG parsing of both. */

/** A callback URL in the one spelling that all of its equals share (RFC 3986 §6.2.2, and a host's trailing dot). Text that is no URL stays as it is. */
export function canonicalUrl(text: string): string {
  const url = URL.parse(text)
  if (url === null) return text
  if (url.hostname.endsWith('.')) url.hostname = url.hostname.slice(0, -1)
  return url.href.replace(/%[0-9a-f]{2}/gi, (encoded) => {
    const character = String.fromCharCode(Number.parseInt(encoded.slice(1), 16))
    return /[\w.~-]/.test(character) ? character : encoded.toUpperCase()
  })
}

/** What means one path to us and perhaps another to the receiver: an encoded `/` or `\`, and dots that only a reader of path parameters takes for a step up. */
const AMBIGUOUS = /%2f|%5c|\/(\.|%2e){1,2};/i

/** Whether a URL has the origin of `base` and its path, or continues it by whole segments; a query of its own is fine. What is {@link AMBIGUOUS} is under nothing. */
export function isUnder(url: string, base: string): boolean {
  const target = URL.parse(url)
  const root = URL.parse(base)
  if (target === null || root === null || target.origin !== root.origin || AMBIGUOUS.test(target.pathname)) return false
  const prefix = root.pathname.endsWith('/') ? root.pathname : `${root.pathname}/`
  return target.pathname === root.pathname || target.pathname.startsWith(prefix)
}

/** `Idempotency-Key`: its syntax, and the fingerprint that identifies equal requests. */
import { hash } from 'node:crypto'
import canonicalize from 'canonicalize'
import { RingbackError } from '../../core/errors.ts'

/** 1…255 visible ASCII characters, neither `"` nor `\`. */
const BARE = /^[\x21\x23-\x5b\x5d-\x7e]{1,255}$/

/**
 * The key in a header, bare (`8e03…`) or as a quoted sf-string (`"8e03…"`, RFC 8941 §3.3.3). Both are the same key.
 * @throws RingbackError `idempotency_key_invalid`
 */
export function parseIdempotencyKey(header: string): string {
  const quoted = header.length >= 2 && header.startsWith('"') && header.endsWith('"')
  const key = quoted ? header.slice(1, -1) : header
  if (!BARE.test(key))
    throw new RingbackError(
      'idempotency_key_invalid',
      `Idempotency-Key is ${key.length} characters long or has characters other than visible ASCII; give 1 to 255 visible ASCII characters without '"' and '\\', bare or in double quotes.`,
    )
  return key
}

/**
 * SHA-256, hexadecimal, of the body in canonical form (RFC 8785): member order and white space do not count.
 * @throws RingbackError `validation_failed` without a canonical form: a lone surrogate, a number beyond double precision
 */
export function fingerprintOf(body: unknown): string {
  let canonical: string
  try {
    canonical = canonicalize(body) ?? 'null'
  } catch (cause) {
    throw new RingbackError(
      'validation_failed',
      'The body has no canonical form (RFC 8785), which Idempotency-Key needs: it holds a lone surrogate or a number out of range.',
      { errors: [{ pointer: '#', detail: 'must hold well-formed strings and finite numbers only' }], cause },
    )
  }
  return hash('sha256', canonical, 'hex')
}

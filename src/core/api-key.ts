/** API keys: `rb_`, 43 random characters (32 bytes, base64url) and 6 of checksum. Only the SHA-256 of a key is stored. */
import { hash } from 'node:crypto'
import type { Clock } from './clock.ts'

const PREFIX = 'rb_'
const RANDOM_CHARACTERS = 43
const CHECKSUM_CHARACTERS = 6
const SHAPE = /^rb_[A-Za-z0-9_-]{49}$/

/** A key, which is shown once, and what is stored of it. */
export interface NewApiKey {
  readonly key: string
  /** SHA-256 of the key, hexadecimal. */
  readonly hash: string
  /** Its last four characters. */
  readonly hint: string
}

export function generateApiKey(clock: Clock): NewApiKey {
  const random = Buffer.from(clock.bytes(32)).toString('base64url')
  const key = PREFIX + random + checksum(random)
  return { key, hash: hashApiKey(key), hint: `…${key.slice(-4)}` }
}

/** SHA-256, hexadecimal. A key has 256 random bits, so no slow hash is needed. */
export const hashApiKey = (key: string): string => hash('sha256', key, 'hex')

/** Whether `text` has the form and the checksum of a key: detects a mistyped or truncated key without a query. */
export function looksLikeApiKey(text: string): boolean {
  if (!SHAPE.test(text)) return false
  const end = PREFIX.length + RANDOM_CHARACTERS
  return text.slice(end) === checksum(text.slice(PREFIX.length, end))
}

const checksum = (random: string): string => hash('sha256', random, 'base64url').slice(0, CHECKSUM_CHARACTERS)

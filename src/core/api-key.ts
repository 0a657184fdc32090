/** API keys: `rb_`, 43 characters of chance (32 bytes, base64url) and 6 of checksum. Only their SHA-256 is kept. */
import { hash } from 'node:crypto'
import type { Clock } from './clock.ts'

const PREFIX = 'rb_'
const CHANCE_CHARACTERS = 43
const CHECKSUM_CHARACTERS = 6
const SHAPE = /^rb_[A-Za-z0-9_-]{49}$/

/** A key as it is shown once, and what of it is kept. */
export interface NewApiKey {
  readonly key: string
  /** SHA-256 of the key, hexadecimal. */
  readonly hash: string
  /** Its last four characters: enough to tell keys apart, too little to guess one. */
  readonly hint: string
}

/** A new key, its chance taken from `clock`. */
export function generateApiKey(clock: Clock): NewApiKey {
  const chance = Buffer.from(clock.bytes(32)).toString('base64url')
  const key = PREFIX + chance + checksum(chance)
  return { key, hash: hashApiKey(key), hint: `…${key.slice(-4)}` }
}

/** SHA-256, hexadecimal: what a key is looked up by. A key holds 256 bits of chance, so no slow hash is needed. */
export const hashApiKey = (key: string): string => hash('sha256', key, 'hex')

/** Whether `text` has the shape and the checksum of a key: tells a mistyped or cut-off key apart without asking the store. */
export function looksLikeApiKey(text: string): boolean {
  if (!SHAPE.test(text)) return false
  const end = PREFIX.length + CHANCE_CHARACTERS
  return text.slice(end) === checksum(text.slice(PREFIX.length, end))
}

const checksum = (chance: string): string => hash('sha256', chance, 'base64url').slice(0, CHECKSUM_CHARACTERS)

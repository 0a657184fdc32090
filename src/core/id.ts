/** TypeIDs: a prefix for the kind of object and a base-32 UUIDv7, so that ids sort by creation time. They contain no ".". */
import { fromUUIDBytes } from 'typeid-js'
import type { Clock } from './clock.ts'
import type { Millis } from './model.ts'

export type IdPrefix = 'client' | 'key' | 'task' | 'batch' | 'schedule' | 'endpoint' | 'event' | 'delivery' | 'boot' | 'request' | 'audit'

/** A new id: a UUIDv7 whose 12 bits after the version count the ids of the millisecond (RFC 9562 §6.2, method 1), followed by 62 random bits. */
export function newId(clock: Pick<Clock, 'stamp' | 'bytes'>, prefix: IdPrefix): string {
  const { at, nth } = clock.stamp()
  return idOf(prefix, at, nth, clock.bytes(8))
}

/** The smallest id of that millisecond: every id made before sorts before it. A time before 1970 counts as 1970. */
export const minIdAt = (prefix: IdPrefix, at: Millis): string => idOf(prefix, Math.max(0, at), 0, new Uint8Array(8))

function idOf(prefix: IdPrefix, ms: Millis, nth: number, random: Uint8Array): string {
  const bytes = new Uint8Array(16)
  const high = Math.floor(ms / 0x1_0000_0000)
  bytes[0] = high >>> 8
  bytes[1] = high
  bytes[2] = ms >>> 24
  bytes[3] = ms >>> 16
  bytes[4] = ms >>> 8
  bytes[5] = ms
  bytes[6] = 0x70 | ((nth >>> 8) & 0x0f)
  bytes[7] = nth
  bytes.set(random, 8)
  bytes[8] = 0x80 | (bytes[8]! & 0x3f)
  return fromUUIDBytes(prefix, bytes)
}

/** Cursors: a place in a list, authenticated and bound to the list it came from. */
import { createHmac, timingSafeEqual } from 'node:crypto'
import { RingbackError } from '../../core/errors.ts'
import { type StoredSecretOptions, storedSecret } from './stored-secret.ts'

export interface CursorCodec {
  /** `bound` is what the list was asked for: who asks, the route and its filters. */
  encode(bound: string, at: readonly (string | number)[]): Promise<string>
  /** `parameter` is the one of the query it came in. @throws RingbackError `invalid_cursor` */
  decode(bound: string, cursor: string, parameter?: string): Promise<readonly unknown[]>
}

const TAG_BYTES = 16

export function createCursorCodec(options: StoredSecretOptions): CursorCodec {
  const theKey = storedSecret(options, 'cursorKey')
  const tag = (secret: Buffer, bound: string, payload: string): Buffer =>
    createHmac('sha256', secret)
      .update(JSON.stringify([bound, payload]))
      .digest()
      .subarray(0, TAG_BYTES)

  return {
    async encode(bound, at) {
      const payload = JSON.stringify(at)
      return Buffer.concat([tag(await theKey(), bound, payload), Buffer.from(payload)]).toString('base64url')
    },
    async decode(bound, cursor, parameter = 'cursor') {
      const bytes = Buffer.from(cursor, 'base64url')
      const payload = bytes.subarray(TAG_BYTES).toString()
      const genuine = bytes.length > TAG_BYTES && timingSafeEqual(bytes.subarray(0, TAG_BYTES), tag(await theKey(), bound, payload))
      if (!genuine)
        throw new RingbackError('invalid_cursor', 'The cursor was not given by this list with these filters; start without one.', {
          errors: [{ pointer: `#/query/${parameter}`, detail: 'does not belong to this list and these filters' }],
        })
      return JSON.parse(payload)
    },
  }
}

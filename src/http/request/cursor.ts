/** Cursors: a position in a list, authenticated and bound to the list. */
import { createHmac, timingSafeEqual } from 'node:crypto'
import { RingbackError } from '../../core/errors.ts'
import { type StoredSecretOptions, storedSecret } from './stored-secret.ts'

export interface CursorCodec {
  /** `scope` identifies the list: the caller, the route and its filters. */
  encode(scope: string, at: readonly (string | number)[]): Promise<string>
  /** `parameter` is the query parameter of the cursor. @throws RingbackError `invalid_cursor` */
  decode(scope: string, cursor: string, parameter?: string): Promise<readonly unknown[]>
}

const TAG_BYTES = 16

export function createCursorCodec(options: StoredSecretOptions): CursorCodec {
  const getKey = storedSecret(options, 'cursorKey')
  const tag = (secret: Buffer, scope: string, payload: string): Buffer =>
    createHmac('sha256', secret)
      .update(JSON.stringify([scope, payload]))
      .digest()
      .subarray(0, TAG_BYTES)

  return {
    async encode(scope, at) {
      const payload = JSON.stringify(at)
      return Buffer.concat([tag(await getKey(), scope, payload), Buffer.from(payload)]).toString('base64url')
    },
    async decode(scope, cursor, parameter = 'cursor') {
      const bytes = Buffer.from(cursor, 'base64url')
      const payload = bytes.subarray(TAG_BYTES).toString()
      const genuine = bytes.length > TAG_BYTES && timingSafeEqual(bytes.subarray(0, TAG_BYTES), tag(await getKey(), scope, payload))
      if (!genuine)
        throw new RingbackError('invalid_cursor', 'The cursor does not come from this list with these filters; start without one.', {
          errors: [{ pointer: `#/query/${parameter}`, detail: 'does not belong to this list and these filters' }],
        })
      return JSON.parse(payload)
    },
  }
}

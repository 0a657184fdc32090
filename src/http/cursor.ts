/** Cursors: a place in a list, authenticated and bound to the list it came from. */
import { createHmac, timingSafeEqual } from 'node:crypto'
import type { Clock } from '../clock.ts'
import { RingbackError } from '../errors.ts'
import type { Place, Sealer } from '../seal.ts'
import type { Store } from '../store/store.ts'

export interface Cursors {
  /** `bound` is what the list was asked for: who asks, the route and its filters. */
  write(bound: string, at: readonly (string | number)[]): Promise<string>
  /** @throws RingbackError `invalid_cursor` */
  read(bound: string, cursor: string): Promise<readonly unknown[]>
}

const TAG_BYTES = 16
const KEY_PLACE: Place = { table: 'settings', id: 'cursorKey', column: 'value' }

/** The key is made once for the installation and kept sealed, so that a cursor written by one node is read by all. */
export function createCursors(options: {
  store: Pick<Store, 'keepSetting'>
  clock: Clock
  sealer: Pick<Sealer, 'seal' | 'open'>
}): Cursors {
  const { store, clock, sealer } = options
  let key: Promise<Buffer> | null = null

  async function findKey(): Promise<Buffer> {
    const proposed = sealer.seal(Buffer.from(clock.bytes(32)).toString('base64'), KEY_PLACE)
    return Buffer.from(sealer.open(await store.keepSetting(KEY_PLACE.id, proposed), KEY_PLACE), 'base64')
  }
  function theKey(): Promise<Buffer> {
    key ??= findKey().catch((error) => {
      key = null
      throw error
    })
    return key
  }
  const tag = (secret: Buffer, bound: string, payload: string): Buffer =>
    createHmac('sha256', secret)
      .update(JSON.stringify([bound, payload]))
      .digest()
      .subarray(0, TAG_BYTES)

  return {
    async write(bound, at) {
      const payload = JSON.stringify(at)
      return Buffer.concat([tag(await theKey(), bound, payload), Buffer.from(payload)]).toString('base64url')
    },
    async read(bound, cursor) {
      const bytes = Buffer.from(cursor, 'base64url')
      const payload = bytes.subarray(TAG_BYTES).toString()
      const genuine = bytes.length > TAG_BYTES && timingSafeEqual(bytes.subarray(0, TAG_BYTES), tag(await theKey(), bound, payload))
      if (!genuine)
        throw new RingbackError('invalid_cursor', 'The cursor was not given by this list with these filters; start without one.', {
          errors: [{ pointer: '#/query/cursor', detail: 'does not belong to this list and these filters' }],
        })
      return JSON.parse(payload)
    },
  }
}

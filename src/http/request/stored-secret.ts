/** A secret of the installation's own: made once, kept sealed among the settings, so that what one node signs is known by all. */
import type { Clock } from '../../core/clock.ts'
import type { Place, Sealer } from '../../core/encryption.ts'
import type { Store } from '../../store/interfaces.ts'

export interface KeepsKeys {
  readonly store: Pick<Store, 'keepSetting'>
  readonly clock: Clock
  readonly sealer: Pick<Sealer, 'seal' | 'open'>
}

/** The key of that name, 32 bytes; asked for once, and again where that failed. */
export function keptKey({ store, clock, sealer }: KeepsKeys, name: string): () => Promise<Buffer> {
  const place: Place = { table: 'settings', id: name, column: 'value' }
  let key: Promise<Buffer> | null = null
  const find = async (): Promise<Buffer> => {
    const proposed = sealer.seal(Buffer.from(clock.bytes(32)).toString('base64'), place)
    return Buffer.from(sealer.open(await store.keepSetting(name, proposed), place), 'base64')
  }
  return () => {
    key ??= find().catch((error) => {
      key = null
      throw error
    })
    return key
  }
}

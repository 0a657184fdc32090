/** A secret of the installation's own: made once, kept sealed among the settings, so that what one node signs is known by all. */
import type { Clock } from '../../core/clock.ts'
import type { Encryptor, SecretLocation } from '../../core/encryption.ts'
import type { StoreWith } from '../../store/interfaces.ts'

export interface StoredSecretOptions {
  readonly store: StoreWith<{ signing: 'putSettingIfAbsent' }>
  readonly clock: Clock
  readonly encryptor: Pick<Encryptor, 'encrypt' | 'decrypt'>
}

/** The key of that name, 32 bytes; asked for once, and again where that failed. */
export function storedSecret({ store, clock, encryptor }: StoredSecretOptions, name: string): () => Promise<Buffer> {
  const place: SecretLocation = { table: 'settings', id: name, column: 'value' }
  let key: Promise<Buffer> | null = null
  const find = async (): Promise<Buffer> => {
    const proposed = encryptor.encrypt(Buffer.from(clock.bytes(32)).toString('base64'), place)
    return Buffer.from(encryptor.decrypt(await store.signing.putSettingIfAbsent({ name, value: proposed }), place), 'base64')
  }
  return () => {
    key ??= find().catch((error) => {
      key = null
      throw error
    })
    return key
  }
}

/** A secret of the installation: generated once and stored encrypted in the settings, so that all nodes share it. */
import type { Clock } from '../../core/clock.ts'
import type { Encryptor, SecretLocation } from '../../core/encryption.ts'
import type { StoreWith } from '../../store/interfaces.ts'

export interface StoredSecretOptions {
  readonly store: StoreWith<{ signing: 'putSettingIfAbsent' }>
  readonly clock: Clock
  readonly encryptor: Pick<Encryptor, 'encrypt' | 'decrypt'>
}

/** A function for the key of that name, 32 bytes. It reads the store once, and again after a failure. */
export function storedSecret({ store, clock, encryptor }: StoredSecretOptions, name: string): () => Promise<Buffer> {
  const location: SecretLocation = { table: 'settings', id: name, column: 'value' }
  let key: Promise<Buffer> | null = null
  const find = async (): Promise<Buffer> => {
    const proposed = encryptor.encrypt(Buffer.from(clock.bytes(32)).toString('base64'), location)
    return Buffer.from(encryptor.decrypt(await store.signing.putSettingIfAbsent({ name, value: proposed }), location), 'base64')
  }
  return () => {
    key ??= find().catch((error) => {
      key = null
      throw error
    })
    return key
  }
}

/** The master key of a store, and its change: every value encrypted under the previous key is encrypted again. */
import type { SecuredConfig } from '../config/config.ts'
import type { Clock } from '../core/clock.ts'
import { createEncryptor, type Encryptor } from '../core/encryption.ts'
import { StartupError } from '../core/errors.ts'
import type { StoreWith } from '../store/interfaces.ts'

const BATCH = 200
/** The name of the stored key check. */
const KEY_CHECK = 'canary'

type SecretStore = StoreWith<{ signing: 'putSettingIfAbsent' | 'compareAndSetSetting' | 'findEncrypted' | 'replaceEncrypted' }>

export const openEncryptor = (
  { masterKey, masterKeyPrevious }: Pick<SecuredConfig, 'masterKey' | 'masterKeyPrevious'>,
  clock: Pick<Clock, 'bytes'>,
): Encryptor => createEncryptor({ masterKey, clock, ...(masterKeyPrevious !== null && { previousMasterKey: masterKeyPrevious }) })

/**
 * The key check alone does not suffice: a node that still had the old key may have encrypted a value after the key check was encrypted again.
 * @throws StartupError when neither master key decrypts the store's key check or one of its values.
 */
export async function verifyMasterKey(store: SecretStore, encryptor: Encryptor): Promise<void> {
  encryptor.verifyKeyCheck(await store.signing.putSettingIfAbsent({ name: KEY_CHECK, value: encryptor.keyCheck() }))
  const values = await store.signing.findEncrypted(`v1.${encryptor.keyId}.`, 1)
  const foreign = values.find(({ encrypted }) => !encryptor.hasKeyFor(encrypted))
  if (foreign === undefined) return
  const { table, column, id } = foreign.place
  throw new StartupError(
    `Some values of this store are still encrypted with the previous master key, for example ${table}.${column} of "${id}": set that key as RINGBACK_MASTER_KEY_PREVIOUS until the log says that every secret is encrypted with the current one.`,
  )
}

/**
 * Encrypts everything under the current master key, the key check last: while a value is left, a node with only the current key refuses to start.
 * Many nodes may do it at once. What a node leaves when it dies, or when `signal` stops it between two batches, the next start does.
 * Returns how many values it encrypted; null: it was stopped.
 */
export async function reencrypt({ signing }: SecretStore, encryptor: Encryptor, signal: AbortSignal): Promise<number | null> {
  const prefix = `v1.${encryptor.keyId}.`
  let count = 0
  for (;;) {
    if (signal.aborted) return null
    const found = await signing.findEncrypted(prefix, BATCH)
    if (found.length === 0) break
    const values = found.map((value) => ({
      ...value,
      fresh: encryptor.encrypt(encryptor.decrypt(value.encrypted, value.place), value.place),
    }))
    await signing.replaceEncrypted({ values })
    count += found.length
  }
  if (signal.aborted) return null
  const known = await signing.putSettingIfAbsent({ name: KEY_CHECK, value: encryptor.keyCheck() })
  if (known.startsWith(prefix)) return count
  return (await signing.compareAndSetSetting({ name: KEY_CHECK, known, value: encryptor.keyCheck() })) ? count + 1 : count
}

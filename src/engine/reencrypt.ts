/** After a change of the master key: what was sealed with the previous one is sealed anew, so that the previous one can be dropped. */

import type { Encryptor } from '../core/encryption.ts'
import { StartupError } from '../core/errors.ts'
import type { Store } from '../store/interfaces.ts'

const BATCH = 200

/**
 * Throws a StartupError when the store holds values that neither master key opens. The canary alone does not tell: a node that
 * still had the old key may have sealed something with it after the canary was sealed anew.
 */
export async function checkEncrypted(store: Store, encryptor: Encryptor): Promise<void> {
  const foreign = (await store.signing.findEncrypted(`v1.${encryptor.keyId}.`, 1)).find(
    ({ encrypted: sealed }) => !encryptor.hasKeyFor(sealed),
  )
  if (foreign === undefined) return
  const { table, column, id } = foreign.place
  throw new StartupError(
    `Not everything in this store is sealed with the present master key yet, ${table}.${column} of "${id}" for one: give the key before it as RINGBACK_MASTER_KEY_PREVIOUS until the log says that everything is.`,
  )
}

/**
 * Seals everything under the present master key, the canary last: while anything is left, a node with the present key alone refuses to start.
 * Any number of nodes may do it at once; one that dies, or that `signal` stops between two batches, leaves the rest to the next start.
 * Answers how many values were sealed anew; null: it was stopped.
 */
export async function reencrypt(store: Store, encryptor: Encryptor, signal: AbortSignal): Promise<number | null> {
  const prefix = `v1.${encryptor.keyId}.`
  let count = 0
  for (;;) {
    if (signal.aborted) return null
    const found = await store.signing.findEncrypted(prefix, BATCH)
    if (found.length === 0) break
    await store.signing.replaceEncrypted({
      values: found.map(({ place, encrypted }) => ({
        place,
        encrypted,
        fresh: encryptor.encrypt(encryptor.decrypt(encrypted, place), place),
      })),
    })
    count += found.length
  }
  if (signal.aborted) return null
  const canary = await store.signing.putSettingIfAbsent({ name: 'canary', value: encryptor.keyCheck() })
  if (
    !canary.startsWith(prefix) &&
    (await store.signing.compareAndSetSetting({ name: 'canary', known: canary, value: encryptor.keyCheck() }))
  )
    count++
  return count
}

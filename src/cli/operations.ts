/** What an operator does with a store, beside running servers or without any: prove it, copy it, put a copy back. */
import { existsSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { type Config, loadDevelopmentSecrets, storeUrl } from '../config/config.ts'
import { systemClock } from '../core/clock.ts'
import type { Encryptor } from '../core/encryption.ts'
import { StartupError } from '../core/errors.ts'
import type { Millis } from '../core/model.ts'
import { openEncryptor } from '../engine/reencrypt.ts'
import { type BackupInfo, backupStore, restoreStore } from '../store/backup.ts'
import { type CheckReport, checkStore } from '../store/check/check.ts'

export { type CheckReport as AuditReport, checks } from '../store/check/check.ts'

/** Beyond a lease, how long a node may take to find that it has ended. */
const SWEEP_MS: Millis = 60_000

/**
 * Looks at the whole store and says what does not hold, `limit` of it one by one, and what is owed to whom. Servers may go on meanwhile.
 * @throws StartupError when the store cannot be read, or has another schema.
 */
export function runCheck(
  { database, leaseMs, retentionMs }: Pick<Config, 'database' | 'leaseMs' | 'retentionMs'>,
  limit: number,
): Promise<CheckReport> {
  return checkStore({ url: storeUrl({ database }), clock: systemClock(), leaseGraceMs: leaseMs + SWEEP_MS, retentionMs, limit })
}

/**
 * Copies a SQLite store to the file `to`, beside a running server too.
 * @throws StartupError when the store is on PostgreSQL, cannot be read, or `to` is there and may not be replaced.
 */
export function backupDatabase({ database }: Pick<Config, 'database'>, to: string, replace: boolean): Promise<BackupInfo> {
  if (database.kind !== 'sqlite')
    throw new StartupError('ringback backup copies SQLite databases: of PostgreSQL, make copies with pg_dump or the server’s own tools')
  return backupStore(database.path, resolve(to), { replace, clock: systemClock() })
}

/**
 * Puts a copy where the SQLite store is to be. Answers the copy and where it is now.
 * @throws StartupError when a server owns the store, the copy is not sound, newer than this program or sealed with another master key, or a store is
 * there and may not be replaced.
 */
export async function restoreDatabase(config: Config, from: string, replace: boolean): Promise<BackupInfo & { readonly path: string }> {
  const { database, dataFolder } = config
  if (database.kind !== 'sqlite')
    throw new StartupError(
      'ringback restore puts SQLite databases back: to PostgreSQL, bring copies back with pg_restore or the server’s own tools',
    )
  const copy = await restoreStore(resolve(from), database.path, {
    replace,
    clock: systemClock(),
    accept({ keyCheck: canary }) {
      if (canary !== null) keyOf(config, join(dataFolder, 'master-key')).verifyKeyCheck(canary)
    },
  })
  return { ...copy, path: database.path }
}

/** None is made here: what the copy holds was sealed with one that there is. */
function keyOf(config: Config, path: string): Encryptor {
  if (config.masterKey === null && !existsSync(path))
    throw new StartupError(`The copy is sealed with a master key, and there is none here: put it into ${path}, or set RINGBACK_MASTER_KEY.`)
  const clock = systemClock()
  return openEncryptor(loadDevelopmentSecrets(config, clock), clock)
}

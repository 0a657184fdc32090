/** Checks, copies and restores a store. Checks and copies also work while servers run. */
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

/** How long a running node may take to reclaim an expired lease. */
const RECLAIM_MS: Millis = 60_000

/**
 * Checks the whole store, also while servers run. Reports up to `limit` violations and the open deliveries by endpoint.
 * @throws StartupError when the store cannot be read or has another schema.
 */
export function runCheck(
  { database, leaseMs, retentionMs }: Pick<Config, 'database' | 'leaseMs' | 'retentionMs'>,
  limit: number,
): Promise<CheckReport> {
  return checkStore({ url: storeUrl({ database }), clock: systemClock(), leaseGraceMs: leaseMs + RECLAIM_MS, retentionMs, limit })
}

/**
 * Copies a SQLite store to the file `to`, also while a server runs.
 * @throws StartupError when the store is on PostgreSQL, cannot be read, or `to` exists and `replace` is false.
 */
export function backupDatabase({ database }: Pick<Config, 'database'>, to: string, replace: boolean): Promise<BackupInfo> {
  if (database.kind !== 'sqlite')
    throw new StartupError('ringback backup copies only SQLite databases: copy PostgreSQL with pg_dump or the server’s own tools')
  return backupStore(database.path, resolve(to), { replace, clock: systemClock() })
}

/**
 * Restores the SQLite store from the copy `from`.
 * @throws StartupError when a server uses the store, the copy is damaged, of a newer version or encrypted with another master key, or a store
 * exists and `replace` is false.
 */
export async function restoreDatabase(config: Config, from: string, replace: boolean): Promise<BackupInfo & { readonly path: string }> {
  const { database, dataFolder } = config
  if (database.kind !== 'sqlite')
    throw new StartupError('ringback restore restores only SQLite databases: restore PostgreSQL with pg_restore or the server’s own tools')
  const copy = await restoreStore(resolve(from), database.path, {
    replace,
    clock: systemClock(),
    accept({ keyCheck }) {
      if (keyCheck !== null) encryptorOf(config, join(dataFolder, 'master-key')).verifyKeyCheck(keyCheck)
    },
  })
  return { ...copy, path: database.path }
}

/** Creates no master key, unlike `serve`: the copy needs the key it was encrypted with. */
function encryptorOf(config: Config, path: string): Encryptor {
  if (config.masterKey === null && !existsSync(path))
    throw new StartupError(
      `The copy is encrypted with a master key, but there is none here: put the key into ${path}, or set RINGBACK_MASTER_KEY.`,
    )
  const clock = systemClock()
  return openEncryptor(loadDevelopmentSecrets(config, clock), clock)
}

/** Backups of a SQLite store: made beside a running server, restored where none runs. */
import * as fs from 'node:fs'
import { dirname } from 'node:path'
import Database from 'better-sqlite3'
import type { Clock } from '../core/clock.ts'
import { StartupError } from '../core/errors.ts'
import { countPendingMigrations } from './migrate.ts'
import { first, sql, statement } from './script.ts'
import { lockSqlite, openSqliteReader } from './sqlite.ts'

export interface BackupInfo {
  readonly bytes: number
  /** Migrations that this program would apply to it. */
  readonly pendingMigrations: number
  /** Encrypted with the master key of the store; null: the store has never been served. */
  readonly keyCheck: string | null
}

/**
 * Copies one snapshot of the store `file` to `to`, while the server may write.
 *
 * `VACUUM INTO` reads one snapshot. SQLite's backup API restarts whenever another process commits, so under load it may never end. It also copies free
 * pages, with the data that was erased from them.
 * @throws StartupError when there is no such store, the copy is damaged, or `to` exists and may not be replaced.
 */
export async function backupStore(file: string, to: string, { replace, clock }: { replace: boolean; clock: Clock }): Promise<BackupInfo> {
  if (!fs.existsSync(file)) throw new StartupError(`there is no database "${file}"`)
  assertOtherFile(to, file)
  assertFree(to, replace)
  return await writeDraft(to, { replace, clock, damaged: 'the copy was damaged and has been deleted' }, (draft) => {
    const db = new Database(file, { readonly: true })
    try {
      db.pragma('busy_timeout = 5000')
      db.prepare('vacuum into ?').run(draft)
    } finally {
      db.close()
    }
  })
}

/**
 * Replaces the store `file` by the copy `from`. `accept` throws when the copy must not be served.
 * @throws StartupError when a server owns the store, the copy is damaged, or the store exists and may not be replaced.
 */
export async function restoreStore(
  from: string,
  file: string,
  { replace, clock, accept }: { replace: boolean; clock: Clock; accept: (copy: BackupInfo) => void },
): Promise<BackupInfo> {
  if (!fs.existsSync(from)) throw new StartupError(`there is no file "${from}"`)
  if (fs.existsSync(`${from}-wal`) && fs.statSync(`${from}-wal`).size > 0)
    throw new StartupError(`"${from}" is a database in use with changes in "${from}-wal": copy it with ringback backup`)
  assertOtherFile(from, file)
  fs.mkdirSync(dirname(file), { recursive: true })
  const release = lockSqlite(file)
  try {
    assertFree(file, replace)
    return await writeDraft(
      file,
      { replace, clock, damaged: `"${from}" is damaged; nothing was changed` },
      (draft) => fs.copyFileSync(from, draft),
      (copy) => {
        accept(copy)
        // SQLite would apply the log of the old database to the new one.
        for (const name of [`${file}-wal`, `${file}-shm`]) fs.rmSync(name, { force: true })
      },
    )
  } finally {
    release()
  }
}

/** A process that serves a database goes on writing to the replaced file, and loses what it writes. */
function assertOtherFile(copy: string, file: string): void {
  if (!fs.existsSync(copy) || !fs.existsSync(file)) return
  const [a, b] = [fs.statSync(copy), fs.statSync(file)]
  if (a.dev === b.dev && a.ino === b.ino) throw new StartupError(`"${copy}" is the database itself: name another file`)
}

function assertFree(path: string, replace: boolean): void {
  if (!replace && fs.existsSync(path)) throw new StartupError(`"${path}" exists already: name another file, or pass --overwrite`)
}

/** Has `write` fill a file beside `path`, checks it, and renames it to `path` once it is synced to disk. */
async function writeDraft(
  path: string,
  { replace, clock, damaged }: { replace: boolean; clock: Clock; damaged: string },
  write: (draft: string) => void,
  accept: (copy: BackupInfo) => void = () => {},
): Promise<BackupInfo> {
  const draft = `${path}.${Buffer.from(clock.bytes(6)).toString('hex')}`
  try {
    // It holds the data of clients: readable by its owner only, from the first byte.
    fs.closeSync(fs.openSync(draft, 'wx', 0o600))
    write(draft)
    fs.chmodSync(draft, 0o600)
    const corruption = findCorruption(draft)
    if (corruption !== null) throw new StartupError(`${damaged}: ${corruption}`)
    const copy = await readBackupInfo(draft, clock)
    sync(draft)
    accept(copy)
    if (replace) fs.renameSync(draft, path)
    else claimName(draft, path)
    sync(dirname(path))
    return copy
  } catch (error) {
    if (error instanceof StartupError) throw error
    throw new StartupError(`"${path}" cannot be written: ${(error as Error).message}`)
  } finally {
    for (const name of [draft, `${draft}-wal`, `${draft}-shm`]) fs.rmSync(name, { force: true })
  }
}

/** Replaces no file, not even one that was created a moment ago. */
function claimName(draft: string, path: string): void {
  try {
    fs.linkSync(draft, path)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'EEXIST') assertFree(path, false)
    // The file system has no hard links.
    if (code !== 'EPERM' && code !== 'ENOTSUP' && code !== 'ENOSYS') throw error
    fs.renameSync(draft, path)
  }
}

const readKeyCheck = statement(() => sql`select value from settings where name = 'canary'`)
async function readBackupInfo(file: string, clock: Clock): Promise<BackupInfo> {
  const reader = openSqliteReader(file, clock)
  try {
    const pendingMigrations = await countPendingMigrations(reader)
    const keyCheck = await reader.read(first<{ value: string }>(readKeyCheck()))
    return { bytes: fs.statSync(file).size, pendingMigrations, keyCheck: keyCheck?.value ?? null }
  } finally {
    await reader.close()
  }
}
function findCorruption(file: string): string | null {
  try {
    const db = new Database(file, { readonly: true })
    try {
      const answer = db.pragma('integrity_check(1)', { simple: true }) as string
      return answer === 'ok' ? null : answer
    } finally {
      db.close()
    }
  } catch (error) {
    return (error as Error).message
  }
}

function sync(path: string): void {
  const handle = fs.openSync(path, 'r')
  try {
    fs.fsyncSync(handle)
  } finally {
    fs.closeSync(handle)
  }
}

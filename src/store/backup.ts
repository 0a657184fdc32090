/** Copies of a SQLite store: made beside a running server, and put back where none runs. */
import {
  chmodSync,
  closeSync,
  constants,
  copyFileSync,
  existsSync,
  fsyncSync,
  linkSync,
  mkdirSync,
  openSync,
  renameSync,
  rmSync,
  statSync,
} from 'node:fs'
import { dirname } from 'node:path'
import Database from 'better-sqlite3'
import type { Clock } from '../core/clock.ts'
import { StartupError } from '../core/errors.ts'
import { countPendingMigrations } from './migrate.ts'
import { rows, sql, statement } from './script.ts'
import { lockSqlite, openSqliteReader } from './sqlite.ts'

export interface BackupInfo {
  readonly bytes: number
  /** Migrations that this program will apply to it. */
  readonly pendingMigrations: number
  /** Sealed by the master key of the store; null: the store has never been served. */
  readonly keyCheck: string | null
}

/**
 * Copies the store of `file` to `to`, as it is at one moment, however much is written meanwhile.
 *
 * `VACUUM INTO` reads one snapshot. The backup API of SQLite begins anew whenever another process commits, which under load is without end;
 * and it copies free pages too, with what was erased in them.
 * @throws StartupError when there is no such store, the copy is not sound, or `to` is there and may not be replaced.
 */
export async function backupStore(file: string, to: string, { replace, clock }: { replace: boolean; clock: Clock }): Promise<BackupInfo> {
  if (!existsSync(file)) throw new StartupError(`there is no database "${file}"`)
  refuseItself(to, file)
  refuseExisting(to, replace)
  return await writeAside(to, { replace, clock, unsound: 'the copy came out damaged, and was thrown away' }, (draft) => {
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
 * Puts the copy `from` where the store of `file` is. `accept` throws when the copy is not to be served.
 * @throws StartupError when a server owns the store, the copy is not sound, or the store is there and may not be replaced.
 */
export async function restoreStore(
  from: string,
  file: string,
  { replace, clock, accept: validate }: { replace: boolean; clock: Clock; accept: (copy: BackupInfo) => void },
): Promise<BackupInfo> {
  if (!existsSync(from)) throw new StartupError(`there is no file "${from}"`)
  if (existsSync(`${from}-wal`) && statSync(`${from}-wal`).size > 0)
    throw new StartupError(`"${from}" is a database in use, whose latest changes stand in "${from}-wal": copy it with ringback backup`)
  refuseItself(from, file)
  mkdirSync(dirname(file), { recursive: true })
  const disown = lockSqlite(file)
  try {
    refuseExisting(file, replace)
    return await writeAside(
      file,
      { replace, clock, unsound: `"${from}" is damaged, and nothing was changed` },
      (draft) => copyFileSync(from, draft),
      (copy) => {
        validate(copy)
        // What the log of the old database says is not about the new one, and would be believed.
        for (const name of [`${file}-wal`, `${file}-shm`]) rmSync(name, { force: true })
      },
    )
  } finally {
    disown()
  }
}

/** Whoever serves a database that is replaced under its feet goes on with what nobody will find again. */
function refuseItself(copy: string, file: string): void {
  if (!existsSync(copy) || !existsSync(file)) return
  const [one, other] = [statSync(copy), statSync(file)]
  if (one.dev === other.dev && one.ino === other.ino) throw new StartupError(`"${copy}" is the database itself: name another file`)
}

function refuseExisting(path: string, replace: boolean): void {
  if (!replace && existsSync(path)) throw new StartupError(`"${path}" is there already: name another file, or say --overwrite`)
}

/** Has `write` fill a file beside `path`, looks whether it is sound, and gives it its name once it is safe on disk. */
async function writeAside(
  path: string,
  { replace, clock, unsound }: { replace: boolean; clock: Clock; unsound: string },
  write: (draft: string) => void,
  accept: (copy: BackupInfo) => void = () => {},
): Promise<BackupInfo> {
  const draft = `${path}.${Buffer.from(clock.bytes(6)).toString('hex')}`
  try {
    // It holds what clients sent: its owner's alone, from the first byte.
    closeSync(openSync(draft, 'wx', 0o600))
    write(draft)
    chmodSync(draft, 0o600)
    const damage = findCorruption(draft)
    if (damage !== null) throw new StartupError(`${unsound}: ${damage}`)
    const copy = await readBackupInfo(draft, clock)
    sync(draft)
    accept(copy)
    if (replace) renameSync(draft, path)
    else claimName(draft, path)
    sync(dirname(path))
    return copy
  } catch (error) {
    if (error instanceof StartupError) throw error
    throw new StartupError(`"${path}" cannot be written: ${(error as Error).message}`)
  } finally {
    for (const name of [draft, `${draft}-wal`, `${draft}-shm`]) rmSync(name, { force: true })
  }
}

/** Nobody's file is replaced, though it came into being a moment ago. */
function claimName(draft: string, path: string): void {
  try {
    linkSync(draft, path)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'EEXIST') refuseExisting(path, false)
    // No hard links on this file system.
    if (code !== 'EPERM' && code !== 'ENOTSUP' && code !== 'ENOSYS') throw error
    renameSync(draft, path)
  }
}

const readKeyCheck = statement(() => sql`select value from settings where name = 'canary'`)
async function readBackupInfo(file: string, clock: Clock): Promise<BackupInfo> {
  const reader = openSqliteReader(file, clock)
  try {
    const behind = await countPendingMigrations(reader)
    const check = await reader.read(rows<{ value: string }>(readKeyCheck()))
    return { bytes: statSync(file).size, pendingMigrations: behind, keyCheck: check[0]?.value ?? null }
  } finally {
    await reader.close()
  }
}
function findCorruption(file: string): string | null {
  try {
    const db = new Database(file, { readonly: true })
    try {
      const said = db.pragma('integrity_check(1)', { simple: true }) as string
      return said === 'ok' ? null : said
    } finally {
      db.close()
    }
  } catch (error) {
    return (error as Error).message
  }
}

function sync(path: string): void {
  const handle = openSync(path, constants.O_RDONLY)
  try {
    fsyncSync(handle)
  } finally {
    closeSync(handle)
  }
}

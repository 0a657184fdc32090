/**
 * SQLite: one writer connection, one reader, and group commit. Every script that waits at this turn of the event loop shares one
 * `BEGIN IMMEDIATE … COMMIT`, a savepoint each; callers hear of it after the commit.
 */
import Database from 'better-sqlite3'
import type { Clock } from '../core/clock.ts'
import { StartupError } from '../core/errors.ts'
import { type Driver, render, type StatementParameter, valueFor, type WritePriority } from './driver.ts'
import { type BoundStatement, type Row, type RowSource, rowSource, type Script, type Statement, sqliteDialect } from './script.ts'

type PreparedStatement = Database.Statement<unknown[], Row>

/** The longest the event loop goes on between two commits while scripts wait. */
const LONGEST_REST_MS = 5
/** A commit that took less leaves the event loop at peace: the next one may follow at once. */
const SHORT_COMMIT_MS = 2

interface QueuedScript {
  readonly order: WritePriority
  readonly make: () => Script<unknown>
  readonly resolve: (value: unknown) => void
  readonly reject: (error: unknown) => void
}
type ScriptResult = { readonly member: QueuedScript; readonly value: unknown } | { readonly member: QueuedScript; readonly error: unknown }

/** A connection that runs scripts without a pause. */
export interface Connection {
  readonly db: Database.Database
  /** `tells` gathers what is to be said after the commit. */
  run<R>(script: Script<R>, tells?: Set<string>): R
  readonly begin: Database.Statement
  readonly commit: Database.Statement
}

/** `file`: its path, or its bytes, to be opened in memory. `clock` is what the statements mean by now. */
export function connect(file: string | Buffer, clock: Pick<Clock, 'now'>, readonly: boolean): Connection {
  const db = new Database(file, { readonly })
  // Other processes (a command line beside the server) write seldom and briefly; the owner of the store is one.
  db.pragma('busy_timeout = 5000')
  if (!readonly) db.pragma('journal_mode = wal')
  db.pragma('synchronous = full')
  db.pragma('cache_size = -65536')
  db.pragma('temp_store = memory')
  // What is deleted is overwritten: who asked for an erasure means the file too. Measured: deletes cost a quarter more, the rest no more than before.
  db.pragma('secure_delete = on')
  if (!readonly) db.pragma('wal_autocheckpoint = 4000')
  // Whoever reads for long lets the log grow; once it is merged, the file is cut to this again.
  if (!readonly) db.pragma(`journal_size_limit = ${64 * 1024 * 1024}`)
  const prepare = preparer(db, clock)
  const execute = (call: BoundStatement): readonly Row[] => {
    const ready = prepare(call)
    if (!ready) return halves(call).flatMap(execute)
    const { prepared, bound } = ready
    if (prepared.reader) return prepared.all(...bound)
    prepared.run(...bound)
    return []
  }
  return {
    db,
    begin: db.prepare(readonly ? 'begin' : 'begin immediate'),
    commit: db.prepare('commit'),
    run(script, tells) {
      const one = (call: BoundStatement): readonly Row[] => {
        if (call.notifies) for (const word of call.notifies) tells?.add(word)
        return execute(call)
      }
      let turn = script.next()
      while (!turn.done) {
        const asked = turn.value
        turn = script.next((Array.isArray(asked) ? asked.map(one) : one(asked as BoundStatement)) as never)
      }
      return turn.value
    },
  }
}

/** What SQLite takes in one statement (SQLITE_MAX_VARIABLE_NUMBER). */
const MAX_PARAMETERS = 32_766
/** The same call with half of its records, and with the other half. */
function halves(call: BoundStatement): readonly BoundStatement[] {
  const lists = Object.entries(call.values).filter((entry): entry is [string, unknown[]] => Array.isArray(entry[1]))
  const [name, records] = lists.reduce((a, b) => (b[1].length > a[1].length ? b : a))
  const middle = records.length >> 1
  return [records.slice(0, middle), records.slice(middle)].map((half) => ({ ...call, values: { ...call.values, [name]: half } }))
}

/**
 * Prepares each statement once for each number of records it is given, rounded up to a power of two and padded with nulls.
 * Filling rows of parameters is the hot loop of the store. Null: more parameters than a statement takes.
 */
function preparer(
  db: Database.Database,
  clock: Pick<Clock, 'now'>,
): (call: BoundStatement) => { prepared: PreparedStatement; bound: unknown[] } | null {
  const known = new Map<
    Statement,
    {
      readonly text: readonly string[]
      readonly slots: readonly (StatementParameter | RowSource)[]
      readonly sized: Map<number, PreparedStatement>
    }
  >()
  const compile = (statement: Statement) => {
    const { text, parameters: slots } = render(sqliteDialect, statement)
    const parts = text.split('?')
    if (parts.length !== slots.length + 1) throw new Error(`a statement holds a question mark that is no parameter: ${text}`)
    const places = slots.map((slot) => ('name' in slot ? (rowSource(slot.name) ?? slot) : slot))
    return { text: parts, slots: places, sized: new Map<number, PreparedStatement>() }
  }
  return (call) => {
    let compiled = known.get(call.statement)
    if (!compiled) {
      compiled = compile(call.statement)
      if (!call.statement.dynamic) known.set(call.statement, compiled)
    }
    const bound: unknown[] = []
    let size = 0
    for (const slot of compiled.slots) {
      if ('rows' in slot) {
        const records = valueFor(call, slot.rows) as readonly Record<string, unknown>[]
        const doublings = Math.ceil(Math.log2(Math.max(1, records.length)))
        const padded = 2 ** doublings
        // The sizes together name the text, and a double is exact for ten of them: no list is longer than 2^15 (see MAX_PARAMETERS).
        size = size * 32 + doublings
        for (const record of records) for (const column of slot.columns) bound.push(record[column])
        for (let nulls = (padded - records.length) * slot.columns.length; nulls > 0; nulls--) bound.push(null)
      } else if ('name' in slot) bound.push(slot.name === 'now' ? clock.now() : valueFor(call, slot.name))
      else bound.push(slot.value)
    }
    if (bound.length > MAX_PARAMETERS) return null
    let prepared = compiled.sized.get(size)
    if (!prepared) {
      prepared = db.prepare<unknown[], Row>(written(compiled.text, compiled.slots, call))
      compiled.sized.set(size, prepared)
    }
    return { prepared, bound }
  }
}
function written(text: readonly string[], slots: readonly (StatementParameter | RowSource)[], call: BoundStatement): string {
  return text.reduce((sofar, part, i) => {
    const slot = slots[i - 1]!
    if (!('rows' in slot)) return `${sofar}?${part}`
    const padded = 2 ** Math.ceil(Math.log2(Math.max(1, (valueFor(call, slot.rows) as unknown[]).length)))
    const row = `(${slot.columns.map(() => '?').join(',')})`
    return `${sofar}${Array<string>(padded).fill(row).join(',')}${part}`
  })
}

const codeOf = (error: unknown): string => (error instanceof Database.SqliteError ? error.code : '')

/** What an error says about the disk, and not about what was written; null: nothing. */
function writeErrorOf(error: unknown): string | null {
  const code = codeOf(error)
  if (code.startsWith('SQLITE_FULL')) return 'takes no writes: the disk is full'
  return /^SQLITE_(IOERR|READONLY|CANTOPEN|CORRUPT|NOTADB)/.test(code) ? `takes no writes (${code})` : null
}

/** Reads from one snapshot, whatever other processes write meanwhile. */
function readSnapshot<R>(reader: Connection, script: Script<R>): R {
  reader.begin.run()
  try {
    return reader.run(script)
  } finally {
    reader.commit.run()
  }
}

/**
 * Reads alone, beside whoever owns the file.
 * @throws StartupError when there is no such file, or it cannot be opened.
 */
export function openSqliteReader(file: string, clock: Clock): Pick<Driver, 'dialect' | 'read' | 'close'> {
  let reader: Connection
  try {
    reader = connect(file, clock, true)
  } catch (error) {
    throw new StartupError(`the database file "${file}" cannot be opened: ${(error as Error).message}`)
  }
  return { dialect: sqliteDialect, read: async (script) => readSnapshot(reader, script), close: async () => void reader.db.close() }
}

/** @throws StartupError when the file cannot be opened. */
export function openSqlite(file: string, clock: Clock): Driver {
  let writer: Connection
  let reader: Connection
  try {
    writer = connect(file, clock, false)
    reader = connect(file, clock, true)
  } catch (error) {
    throw new StartupError(`the database file "${file}" cannot be opened: ${(error as Error).message}`)
  }
  let waiting: QueuedScript[] = []
  let refusal: string | null = null
  let told = new Set<string>()
  const listeners = new Set<(word: string) => void>()

  /** Every member in turn. Alone in a savepoint, a member that fails takes nobody with it. */
  const runMembers = (members: readonly QueuedScript[], tells: Set<string>, apart: boolean): ScriptResult[] =>
    members.map((member) => {
      if (!apart) return { member, value: writer.run(member.make(), tells) }
      writer.db.exec('savepoint s')
      try {
        const value = writer.run(member.make(), tells)
        writer.db.exec('release s')
        return { member, value }
      } catch (error) {
        // SQLite itself rolls the whole transaction back on a full disk, an I/O error or exhausted memory: then nobody's work is left.
        if (!writer.db.inTransaction) throw error
        writer.db.exec('rollback to s; release s')
        return { member, error }
      }
    })
  const commit = (members: readonly QueuedScript[], tells: Set<string>, apart: boolean): ScriptResult[] => {
    writer.begin.run()
    try {
      const ended = runMembers(members, tells, apart)
      writer.commit.run()
      return ended
    } catch (error) {
      if (writer.db.inTransaction) writer.db.exec('rollback')
      throw error
    }
  }

  // A commit costs much the same for one row as for fifty. Under load, which a long commit shows, the event loop therefore gets twice as long
  // as that took before the next one starts, and what arrives meanwhile shares it. After a short one nothing waits.
  let restUntil = 0
  const flushSoon = (): void => {
    setImmediate(() => (performance.now() < restUntil ? flushSoon() : flush()))
  }
  const flush = (): void => {
    const startedAt = performance.now()
    const members = waiting.sort((a, b) => a.order - b.order)
    waiting = []
    const tells = new Set<string>()
    let ended: ScriptResult[]
    try {
      ended = commit(members, tells, false)
    } catch {
      // Somebody's script failed, which is rare: all of it was undone, and is done again with each member apart.
      try {
        ended = commit(members, tells, true)
      } catch (error) {
        refusal = writeErrorOf(error) ?? refusal
        for (const member of members) member.reject(error)
        return
      }
    }
    const endedAt = performance.now()
    const tookMs = endedAt - startedAt
    restUntil = tookMs < SHORT_COMMIT_MS ? 0 : endedAt + Math.min(2 * tookMs, LONGEST_REST_MS)
    refusal = ended.reduce<string | null>((why, end) => why ?? ('error' in end ? writeErrorOf(end.error) : null), null)
    for (const end of ended) {
      if ('error' in end) end.member.reject(end.error)
      else end.member.resolve(end.value)
    }
    tells.forEach(tell)
  }

  const tell = (word: string): void => {
    if (told.size === 0) queueMicrotask(announce)
    told.add(word)
  }
  const announce = (): void => {
    const words = told
    told = new Set()
    for (const word of words) for (const listener of listeners) listener(word)
  }

  return {
    dialect: sqliteDialect,
    maxConcurrentWrites: 1,
    get writeError() {
      return refusal
    },
    write: <R>(order: WritePriority, make: () => Script<R>) =>
      new Promise<R>((resolve, reject) => {
        if (waiting.length === 0) flushSoon()
        waiting.push({ order, make, resolve: resolve as (value: unknown) => void, reject })
      }),
    read: async (script) => readSnapshot(reader, script),
    isItemError: (error) => error instanceof Database.SqliteError && /^SQLITE_(CONSTRAINT|MISMATCH|TOOBIG|ERROR|RANGE)/.test(error.code),
    // After the close, every error means that there is no database.
    isUnavailable: (error) => !reader.db.open || writeErrorOf(error) !== null || /^SQLITE_(BUSY|LOCKED|NOMEM)/.test(codeOf(error)),
    notify: tell,
    onNotify(listener) {
      listeners.add(listener)
      return () => listeners.delete(listener)
    },
    async close() {
      if (waiting.length > 0) flush()
      reader.db.close()
      writer.db.close()
    },
  }
}

/**
 * Owns the store for the life of this process: an exclusive lock on a file beside the database, which the system drops when the
 * process ends, however it ends. The answer gives it back.
 * @throws StartupError when another process owns it.
 */
export function lockSqlite(file: string): () => void {
  const lock = new Database(`${file}.owner`)
  try {
    lock.pragma('busy_timeout = 0')
    lock.exec('begin exclusive')
  } catch (error) {
    lock.close()
    if ((error as { code?: string }).code?.startsWith('SQLITE_BUSY') !== true) throw error
    throw new StartupError(`another process serves "${file}"; stop it first, or use postgres:// to run many nodes on one store`)
  }
  return () => lock.close()
}

/**
 * SQLite: one writer connection, one reader connection, and group commit. All scripts that wait at one turn of the event loop share one
 * `BEGIN IMMEDIATE … COMMIT`. Their promises settle after the commit.
 */
import Database from 'better-sqlite3'
import type { Clock } from '../core/clock.ts'
import { StartupError } from '../core/errors.ts'
import { type Driver, render, type StatementParameter, valueFor, type WritePriority } from './driver.ts'
import { type BoundStatement, type Row, type RowSource, rowSource, type Script, type Statement, sqliteDialect } from './script.ts'

type PreparedStatement = Database.Statement<unknown[], Row>
type Slot = StatementParameter | RowSource

/** The longest pause between two commits while scripts wait. */
const MAX_PAUSE_MS = 5
/** After a commit that took less, there is no pause. */
const SHORT_COMMIT_MS = 2
/** SQLITE_MAX_VARIABLE_NUMBER. */
const MAX_PARAMETERS = 32_766

interface QueuedScript {
  readonly order: WritePriority
  readonly make: () => Script<unknown>
  readonly resolve: (value: unknown) => void
  readonly reject: (error: unknown) => void
}
type ScriptResult = { readonly script: QueuedScript } & ({ readonly value: unknown } | { readonly error: unknown })

/** A connection that runs scripts synchronously. */
export interface Connection {
  readonly db: Database.Database
  /** Adds the channels to notify after the commit to `notifies`. */
  run<R>(script: Script<R>, notifies?: Set<string>): R
  readonly begin: Database.Statement
  readonly commit: Database.Statement
}

/** `file`: a path, or the bytes of a database to open in memory. `clock` is the clock of the statements. */
export function connect(file: string | Buffer, clock: Pick<Clock, 'now'>, readonly: boolean): Connection {
  const db = new Database(file, { readonly })
  // Other processes (a command beside the server) write seldom and briefly.
  db.pragma('busy_timeout = 5000')
  if (!readonly) db.pragma('journal_mode = wal')
  db.pragma('synchronous = full')
  db.pragma('cache_size = -65536')
  db.pragma('temp_store = memory')
  // Erased data must not stay in the file. Measured: deletes take 25 % longer, everything else the same.
  db.pragma('secure_delete = on')
  if (!readonly) db.pragma('wal_autocheckpoint = 4000')
  // A long read lets the log grow. After the next checkpoint the file is cut to this size.
  if (!readonly) db.pragma(`journal_size_limit = ${64 * 1024 * 1024}`)
  const prepare = createPreparer(db, clock)
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
    run(script, notifies) {
      const one = (call: BoundStatement): readonly Row[] => {
        if (call.notifies) for (const channel of call.notifies) notifies?.add(channel)
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

/** The call split in two by its longest list of records. */
function halves(call: BoundStatement): readonly BoundStatement[] {
  const lists = Object.entries(call.values).filter((entry): entry is [string, unknown[]] => Array.isArray(entry[1]))
  const [name, records] = lists.reduce((a, b) => (b[1].length > a[1].length ? b : a))
  const middle = records.length >> 1
  return [records.slice(0, middle), records.slice(middle)].map((half) => ({ ...call, values: { ...call.values, [name]: half } }))
}

const doublingsFor = (records: readonly unknown[]): number => Math.ceil(Math.log2(Math.max(1, records.length)))

/**
 * Prepares each statement once for each number of records, rounded up to a power of two and padded with nulls. Binding the rows is the hot loop of
 * the store. Null: the call has more parameters than a statement takes.
 */
function createPreparer(
  db: Database.Database,
  clock: Pick<Clock, 'now'>,
): (call: BoundStatement) => { prepared: PreparedStatement; bound: unknown[] } | null {
  const known = new Map<Statement, ReturnType<typeof compile>>()
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
        const doublings = doublingsFor(records)
        // The sizes of all lists in one number. A double holds ten exactly, since MAX_PARAMETERS keeps each below 2^5.
        size = size * 32 + doublings
        for (const record of records) for (const column of slot.columns) bound.push(record[column])
        for (let nulls = (2 ** doublings - records.length) * slot.columns.length; nulls > 0; nulls--) bound.push(null)
      } else if ('name' in slot) bound.push(slot.name === 'now' ? clock.now() : valueFor(call, slot.name))
      else bound.push(slot.value)
    }
    if (bound.length > MAX_PARAMETERS) return null
    let prepared = compiled.sized.get(size)
    if (!prepared) {
      prepared = db.prepare<unknown[], Row>(textFor(compiled.parts, compiled.slots, call))
      compiled.sized.set(size, prepared)
    }
    return { prepared, bound }
  }
}
function compile(statement: Statement) {
  const { text, parameters } = render(sqliteDialect, statement)
  const parts = text.split('?')
  if (parts.length !== parameters.length + 1) throw new Error(`the statement contains a question mark that is not a parameter: ${text}`)
  const slots: readonly Slot[] = parameters.map((slot) => ('name' in slot ? (rowSource(slot.name) ?? slot) : slot))
  return { parts, slots, sized: new Map<number, PreparedStatement>() }
}
function textFor(parts: readonly string[], slots: readonly Slot[], call: BoundStatement): string {
  return parts.reduce((text, part, i) => {
    const slot = slots[i - 1]!
    if (!('rows' in slot)) return `${text}?${part}`
    const row = `(${slot.columns.map(() => '?').join(',')})`
    const count = 2 ** doublingsFor(valueFor(call, slot.rows) as unknown[])
    return `${text}${Array<string>(count).fill(row).join(',')}${part}`
  })
}

const codeOf = (error: unknown): string => (error instanceof Database.SqliteError ? error.code : '')

/** What an error says about the disk; null: nothing. */
function writeErrorOf(error: unknown): string | null {
  const code = codeOf(error)
  if (code.startsWith('SQLITE_FULL')) return 'takes no writes: the disk is full'
  return /^SQLITE_(IOERR|READONLY|CANTOPEN|CORRUPT|NOTADB)/.test(code) ? `takes no writes (${code})` : null
}

/** @throws StartupError when the file cannot be opened. */
function open(file: string, clock: Clock, readonly: boolean): Connection {
  try {
    return connect(file, clock, readonly)
  } catch (error) {
    throw new StartupError(`the database file "${file}" cannot be opened: ${(error as Error).message}`)
  }
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
 * Reads beside the process that owns the file.
 * @throws StartupError when the file does not exist or cannot be opened.
 */
export function openSqliteReader(file: string, clock: Clock): Pick<Driver, 'dialect' | 'read' | 'close'> {
  const reader = open(file, clock, true)
  return { dialect: sqliteDialect, read: async (script) => readSnapshot(reader, script), close: async () => void reader.db.close() }
}

/** @throws StartupError when the file cannot be opened. */
export function openSqlite(file: string, clock: Clock): Driver {
  const writer = open(file, clock, false)
  const reader = open(file, clock, true)
  const { notify, onNotify } = createNotifier()
  const group = createGroupCommit(writer, notify)
  return {
    dialect: sqliteDialect,
    maxConcurrentWrites: 1,
    get writeError() {
      return group.writeError
    },
    write: group.write,
    read: async (script) => readSnapshot(reader, script),
    isItemError: (error) => /^SQLITE_(CONSTRAINT|MISMATCH|TOOBIG|ERROR|RANGE)/.test(codeOf(error)),
    // After `close`, every error means that there is no database.
    isUnavailable: (error) => !reader.db.open || writeErrorOf(error) !== null || /^SQLITE_(BUSY|LOCKED|NOMEM)/.test(codeOf(error)),
    notify,
    onNotify,
    async close() {
      group.flush()
      reader.db.close()
      writer.db.close()
    },
  }
}

/** Notifications of one microtask are merged: there is one node. */
function createNotifier(): Pick<Driver, 'notify' | 'onNotify'> {
  const listeners = new Set<(channel: string) => void>()
  let pending = new Set<string>()
  const deliver = (): void => {
    const channels = pending
    pending = new Set()
    for (const channel of channels) for (const listener of listeners) listener(channel)
  }
  return {
    notify(channel) {
      if (pending.size === 0) queueMicrotask(deliver)
      pending.add(channel)
    },
    onNotify(listener) {
      listeners.add(listener)
      return () => listeners.delete(listener)
    },
  }
}

/** Runs scripts in order of priority, many in one commit. Notifications are sent after the commit. */
function createGroupCommit(writer: Connection, notify: (channel: string) => void) {
  let waiting: QueuedScript[] = []
  let writeError: string | null = null

  /** In a savepoint of its own, a script that fails leaves the others of its commit alone. */
  const run = (script: QueuedScript, notifies: Set<string>, apart: boolean): ScriptResult => {
    if (!apart) return { script, value: writer.run(script.make(), notifies) }
    writer.db.exec('savepoint s')
    try {
      const value = writer.run(script.make(), notifies)
      writer.db.exec('release s')
      return { script, value }
    } catch (error) {
      // On a full disk, an I/O error or exhausted memory, SQLite itself rolls back the whole transaction.
      if (!writer.db.inTransaction) throw error
      writer.db.exec('rollback to s; release s')
      return { script, error }
    }
  }
  const commit = (scripts: readonly QueuedScript[], notifies: Set<string>, apart: boolean): ScriptResult[] => {
    writer.begin.run()
    try {
      const results = scripts.map((script) => run(script, notifies, apart))
      writer.commit.run()
      return results
    } catch (error) {
      if (writer.db.inTransaction) writer.db.exec('rollback')
      throw error
    }
  }

  // A commit of fifty rows takes hardly longer than a commit of one. A long commit is a sign of load: then the event loop gets twice that time before
  // the next commit, and what arrives meanwhile shares it.
  let pausedUntil = 0
  const flushSoon = (): void => {
    setImmediate(() => (performance.now() < pausedUntil ? flushSoon() : flush()))
  }
  const flush = (): void => {
    if (waiting.length === 0) return
    const startedAt = performance.now()
    const scripts = waiting.sort((a, b) => a.order - b.order)
    waiting = []
    const notifies = new Set<string>()
    let results: ScriptResult[]
    try {
      results = commit(scripts, notifies, false)
    } catch {
      // A script failed, which is rare. Everything was rolled back and is repeated with a savepoint for each.
      try {
        results = commit(scripts, notifies, true)
      } catch (error) {
        writeError = writeErrorOf(error) ?? writeError
        for (const script of scripts) script.reject(error)
        return
      }
    }
    const endedAt = performance.now()
    const tookMs = endedAt - startedAt
    pausedUntil = tookMs < SHORT_COMMIT_MS ? 0 : endedAt + Math.min(2 * tookMs, MAX_PAUSE_MS)
    writeError = results.reduce<string | null>((found, result) => found ?? ('error' in result ? writeErrorOf(result.error) : null), null)
    for (const result of results) {
      if ('error' in result) result.script.reject(result.error)
      else result.script.resolve(result.value)
    }
    notifies.forEach(notify)
  }
  return {
    get writeError() {
      return writeError
    },
    write: <R>(order: WritePriority, make: () => Script<R>) =>
      new Promise<R>((resolve, reject) => {
        if (waiting.length === 0) flushSoon()
        waiting.push({ order, make, resolve: resolve as (value: unknown) => void, reject })
      }),
    flush,
  }
}

/**
 * Owns the store until this process ends, through an exclusive lock on a file beside the database. The system releases it however the process ends.
 * Returns the function that releases it earlier.
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

/**
 * PostgreSQL (15 or later): any number of equal nodes. Each script is one transaction. Independent statements travel together.
 * LISTEN/NOTIFY is only a hint: polling makes up for what it loses.
 */
import pg from 'pg'
import type { Clock } from '../core/clock.ts'
import { StartupError } from '../core/errors.ts'
import { type Driver, type RenderedStatement, render, valueFor, type WritePriority, writePriority } from './driver.ts'
import { type BoundStatement, postgresDialect, type Row, type Script, type Statement } from './script.ts'

const CHANNEL = 'ringback'
/** Notifications gather for this long and share one NOTIFY, which takes a lock of the whole server at commit. */
const NOTIFY_EVERY_MS = 10
/** NOTIFY refuses payloads of 8,000 bytes and more. */
const MAX_PAYLOAD = 7_500
/** Serialization failure and deadlock: the transaction is repeated. */
const RETRYABLE_CODES = new Set(['40001', '40P01'])
const MAX_REPEATS = 8
/**
 * Transactions that lock lanes run one after another on a node. Side by side they would wait for each other in the database, and claims would skip
 * each other's lanes, so that deliveries with a free slot wait.
 */
const LANE_LOCKING: ReadonlySet<WritePriority> = new Set([writePriority.settlement, writePriority.claim])
/**
 * The server ends the session of a node that stalls inside a transaction for this long, so that its locks are released. Statements of a transaction
 * follow each other in milliseconds.
 */
const MAX_STILL_MS = 10_000
/** After this, a server that does not answer counts as gone. */
const QUERY_TIMEOUT_MS = 60_000
/** The OID of int8. */
const INT8 = 20

/** @throws StartupError when the server does not answer. */
export async function openPostgres(url: string, clock: Clock, onError: (error: Error) => void): Promise<Driver> {
  const settings = settingsFor(url)
  const pool = await openPool(settings, onError)
  const notifier = createNotifier(pool, settings, clock, onError)
  const transact = createTransactions(pool, notifier.notify)
  const inTurn = createQueue()
  let writeError: string | null = null
  return {
    dialect: postgresDialect,
    maxConcurrentWrites: 1,
    get writeError() {
      return writeError
    },
    async write<R>(priority: WritePriority, make: () => Script<R>) {
      // Calls of this turn of the event loop still join the batch.
      await new Promise((resolve) => setImmediate(resolve))
      const run = () => transact('begin', make)
      for (let repeats = 0; ; repeats++) {
        try {
          const value = await (LANE_LOCKING.has(priority) ? inTurn(run) : run())
          writeError = null
          return value
        } catch (error) {
          writeError = writeErrorOf(error) ?? writeError
          if (repeats === MAX_REPEATS || !RETRYABLE_CODES.has((error as { code?: string }).code ?? '')) throw error
        }
      }
    },
    read: (script) => transact('begin isolation level repeatable read read only', () => script),
    isItemError: (error) => /^2[23]/.test((error as { code?: string }).code ?? ''),
    isUnavailable,
    notify: notifier.notify,
    onNotify: notifier.subscribe,
    async close() {
      await notifier.close()
      await pool.end()
    },
  }
}

function settingsFor(url: string) {
  const types: pg.CustomTypesConfig = {
    // Epoch milliseconds and counters stay far below 2^53.
    getTypeParser: ((oid: number, format: 'text' | 'binary') =>
      oid === INT8 ? Number : pg.types.getTypeParser(oid, format)) as typeof pg.types.getTypeParser,
  }
  return {
    connectionString: url,
    types,
    pipeline: true,
    application_name: 'ringback',
    keepAlive: true,
    keepAliveInitialDelayMillis: 10_000,
    query_timeout: QUERY_TIMEOUT_MS,
  }
}

async function openPool(settings: pg.ClientConfig, onError: (error: Error) => void): Promise<pg.Pool> {
  const pool = new pg.Pool({ ...settings, max: 10, connectionTimeoutMillis: 10_000 })
  pool.on('error', onError)
  // The pool does not listen to clients in use, and an error without a listener ends the process. The query of the client fails as well.
  pool.on('connect', (client) => void client.on('error', () => {}))
  await pool.query('select 1').catch((error: Error) => {
    throw new StartupError(`the PostgreSQL server of RINGBACK_DATABASE_URL does not answer: ${error.message}`)
  })
  return pool
}

/** Runs one function after another. */
function createQueue(): <R>(run: () => Promise<R>) => Promise<R> {
  let last: Promise<unknown> = Promise.resolve()
  return (run) => {
    const done = last.then(run)
    last = done.catch(() => {})
    return done
  }
}

/** Statements by name: each is rendered once and prepared once for each connection. */
function createStatements(): (client: pg.PoolClient, call: BoundStatement) => Promise<readonly Row[]> {
  const known = new Map<Statement, RenderedStatement & { readonly name: string }>()
  const compile = (statement: Statement): RenderedStatement & { readonly name: string } => {
    const found = known.get(statement)
    if (found) return found
    const compiled = { ...render(postgresDialect, statement), name: `rb${known.size}` }
    if (!statement.dynamic) known.set(statement, compiled)
    return compiled
  }
  return async (client, call) => {
    const { text, parameters, name } = compile(call.statement)
    const values = parameters.map((parameter) => {
      const value = 'name' in parameter ? valueFor(call, parameter.name) : parameter.value
      return Array.isArray(value) ? JSON.stringify(value) : value
    })
    return (await client.query(call.statement.dynamic ? { text, values } : { name, text, values })).rows
  }
}

type Transact = <R>(begin: string, make: () => Script<R>) => Promise<R>

/** Runs scripts as transactions. Notifications are sent after the commit. */
function createTransactions(pool: pg.Pool, notify: (channel: string) => void): Transact {
  const execute = createStatements()
  /** `sent` gathers the statements whose rows are not needed. */
  const run = async <R>(client: pg.PoolClient, script: Script<R>, notifies: Set<string>, sent: Promise<unknown>[]): Promise<R> => {
    const one = (call: BoundStatement): Promise<readonly Row[]> => {
      for (const channel of call.notifies ?? []) notifies.add(channel)
      return execute(client, call)
    }
    let turn = script.next()
    while (!turn.done) {
      const asked: readonly BoundStatement[] = Array.isArray(turn.value) ? turn.value : [turn.value]
      const answers = asked.map(one)
      if (asked.every((call) => call.discardRows)) {
        for (const answer of answers) answer.catch(() => {})
        sent.push(...answers)
        turn = script.next([] as never)
      } else {
        const rows = await Promise.all(answers)
        turn = script.next((Array.isArray(turn.value) ? rows : rows[0]) as never)
      }
    }
    return turn.value
  }
  return async (begin, make) => {
    const client = await pool.connect().catch((error: Error) => {
      connectErrors.add(error)
      throw error
    })
    let broken: Error | undefined
    const notifies = new Set<string>()
    // Young tables look tiny to the planner, and prepared plans stay. So every statement must use an index and read it in order only as far as it
    // needs: gathering and sorting costs nothing for one row, and seconds for a million. The settings travel with the first statement.
    const sent: Promise<unknown>[] = [
      client.query(
        `${begin}; set local enable_seqscan = off; set local enable_bitmapscan = off; set local idle_in_transaction_session_timeout = ${MAX_STILL_MS}`,
      ),
    ]
    sent[0]!.catch(() => {})
    try {
      const value = await run(client, make(), notifies, sent)
      // The commit travels behind the statements that were not awaited. After an error among them it rolls back, and the error is thrown.
      sent.push(client.query('commit'))
      await Promise.all(sent)
      notifies.forEach(notify)
      return value
    } catch (error) {
      await client.query('rollback').catch((failure: Error) => {
        broken = failure
      })
      // The cause may be a statement that was not awaited, and not the next one, which found the transaction aborted.
      const stopped = (await Promise.allSettled(sent)).find((one) => one.status === 'rejected')
      throw stopped?.reason ?? error
    } finally {
      client.release(broken)
    }
  }
}

/** Notifies every node. This node's subscribers are called at once, and not again when the server sends the notification back. */
function createNotifier(pool: pg.Pool, settings: pg.ClientConfig, clock: Clock, onError: (error: Error) => void) {
  const subscribers = new Set<(channel: string) => void>()
  const self = Buffer.from(clock.bytes(9)).toString('base64url')
  const listener = listen(settings, clock, self, (channel) => {
    for (const subscriber of subscribers) subscriber(channel)
  })
  const pending = new Set<string>()
  const flush = async (): Promise<void> => {
    while (pending.size > 0) {
      let payload = self
      for (const channel of pending) {
        if (payload.length + channel.length > MAX_PAYLOAD) break
        payload += ` ${channel}`
        pending.delete(channel)
      }
      await pool.query({ name: 'rb_notify', text: 'select pg_notify($1, $2)', values: [CHANNEL, payload] })
    }
  }
  return {
    notify(channel: string): void {
      for (const subscriber of subscribers) queueMicrotask(() => subscriber(channel))
      if (pending.size === 0)
        clock.after(NOTIFY_EVERY_MS, () => {
          flush().catch((error: Error) => {
            // Notifications are hints: the other nodes poll.
            pending.clear()
            onError(error)
          })
        })
      pending.add(channel)
    },
    subscribe(subscriber: (channel: string) => void) {
      subscribers.add(subscriber)
      return () => subscribers.delete(subscriber)
    },
    /** Other nodes learn at once of work that this node released at its end. */
    async close(): Promise<void> {
      await flush().catch(onError)
      listener.close()
    },
  }
}

/** What an error says about the server; null: nothing. Classes 53 and 58: resources, disk; 25006: a standby. */
function writeErrorOf(error: unknown): string | null {
  const code = String((error as { code?: unknown }).code ?? '')
  if (code === '53100') return 'takes no writes: the disk is full'
  return /^(53|58|25006)/.test(code) ? `takes no writes (${code})` : null
}

/** What failed while a connection was opened: the statement was never sent. */
const connectErrors = new WeakSet<object>()
/**
 * Classes 08 (connection), 53 and 58 (resources, disk), 57 (shutdown, canceled, a timeout of the server); 25006 (a standby), 25P03 and 25P04 (idle or
 * too long in a transaction), 40001 and 40P01 (a conflict, a deadlock); and Node's codes for sockets and TLS.
 */
const UNAVAILABLE_CODES = /^(08|53|57|58|25006|25P0[34]|40001|40P01|E(?!RR_)|ERR_(SSL|STREAM))/
/** What pg throws without a code when the connection is lost, or does not answer within `QUERY_TIMEOUT_MS`. */
const LOST_CONNECTION = /^(Connection terminated|Query read timeout|Client (was closed|has encountered a connection error))/
function isUnavailable(error: unknown): boolean {
  if (!(error instanceof Error)) return false
  const { code } = error as { code?: unknown }
  return connectErrors.has(error) || (typeof code === 'string' ? UNAVAILABLE_CODES : LOST_CONNECTION).test(String(code ?? error.message))
}

/** Listens on a connection of its own, which is opened again whenever it breaks. `*` means: anything may have changed. */
function listen(settings: pg.ClientConfig, clock: Clock, self: string, receive: (channel: string) => void): { close(): void } {
  let closed = false
  let client: pg.Client | undefined
  let cancel = (): void => {}
  const reopen = (delayMs: number): void => {
    if (closed) return
    cancel = clock.after(delayMs, () => void open(delayMs))
  }
  const open = async (delayMs: number): Promise<void> => {
    client = new pg.Client(settings)
    client.on('error', () => {})
    client.once('end', () => reopen(Math.min(5_000, delayMs * 2 + 100)))
    client.on('notification', ({ payload }) => {
      const [from, ...channels] = (payload ?? '').split(' ')
      if (from !== self) channels.forEach(receive)
    })
    try {
      await client.connect()
      await client.query(`listen ${CHANNEL}`)
      // Notifications were lost while nothing listened.
      receive('*')
    } catch {
      client.end().catch(() => {})
    }
  }
  void open(100)
  return {
    close() {
      closed = true
      cancel()
      client?.end().catch(() => {})
    },
  }
}

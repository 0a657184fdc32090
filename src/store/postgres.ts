/**
 * PostgreSQL (15 or later): any number of equal nodes. Each script is one transaction; statements that need nothing of each other
 * travel together. LISTEN/NOTIFY only hints; polling repairs what it loses.
 */
import pg from 'pg'
import type { Clock } from '../core/clock.ts'
import { StartupError } from '../core/errors.ts'
import { type Driver, type RenderedStatement, render, valueFor, type WritePriority, writePriority } from './driver.ts'
import { type BoundStatement, postgresDialect, type Row, type Script, type Statement } from './script.ts'

const CHANNEL = 'ringback'
/** How long words to other nodes gather before one NOTIFY says them all: NOTIFY takes a lock of the whole server at commit. */
const NOTIFY_EVERY_MS = 10
/** NOTIFY refuses payloads of 8,000 bytes and more. */
const MAX_PAYLOAD = 7_500
/** Serialization failure and deadlock: the transaction is repeated. */
const RETRYABLE_CODES = new Set(['40001', '40P01'])
const MAX_REPEATS = 8
/**
 * What locks lanes goes one transaction after another on a node. Side by side they would wait for each other in the database, and
 * pass each other's lanes by, so that deliveries whose lane has room stand in line for a claim.
 */
const LANE_LOCKING: ReadonlySet<WritePriority> = new Set([writePriority.settlement, writePriority.claim])

/**
 * A node that stands still amid a transaction, its process stopped or its machine paused, keeps what it locked no longer than this:
 * the server ends its session. Statements of a transaction follow each other in milliseconds.
 */
const MAX_STILL_MS = 10_000
/** A server that swallows packets is given up after this. */
const QUERY_TIMEOUT_MS = 60_000

const INT8 = 20

/** @throws StartupError when the server does not answer. */
export async function openPostgres(url: string, clock: Clock, onError: (error: Error) => void): Promise<Driver> {
  const types: pg.CustomTypesConfig = {
    // Epoch milliseconds and counters stay far below 2^53.
    getTypeParser: ((oid: number, format: 'text' | 'binary') =>
      oid === INT8 ? Number : pg.types.getTypeParser(oid, format)) as typeof pg.types.getTypeParser,
  }
  const settings = {
    connectionString: url,
    types,
    pipeline: true,
    application_name: 'ringback',
    keepAlive: true,
    keepAliveInitialDelayMillis: 10_000,
    query_timeout: QUERY_TIMEOUT_MS,
  }
  const pool = new pg.Pool({ ...settings, max: 10, connectionTimeoutMillis: 10_000 })
  pool.on('error', onError)
  // While a client is lent out its own errors are nobody's, and an error without a listener ends the process. Its query fails too.
  pool.on('connect', (client) => void client.on('error', () => {}))
  await pool.query('select 1').catch((error: Error) => {
    throw new StartupError(`the PostgreSQL server of RINGBACK_DATABASE_URL does not answer: ${error.message}`)
  })

  let refusal: string | null = null
  const known = new Map<Statement, RenderedStatement & { readonly name: string }>()
  const compile = (statement: Statement): RenderedStatement & { readonly name: string } => {
    const found = known.get(statement)
    if (found) return found
    const compiled = { ...render(postgresDialect, statement), name: `rb${known.size}` }
    if (!statement.dynamic) known.set(statement, compiled)
    return compiled
  }
  const execute = async (client: pg.PoolClient, call: BoundStatement): Promise<readonly Row[]> => {
    const { text, parameters: slots, name } = compile(call.statement)
    const values = slots.map((slot) => {
      const value = 'name' in slot ? valueFor(call, slot.name) : slot.value
      return Array.isArray(value) ? JSON.stringify(value) : value
    })
    return (await client.query(call.statement.dynamic ? { text, values } : { name, text, values })).rows
  }
  /** `sent` gathers what was sent and is not waited for. */
  const run = async <R>(client: pg.PoolClient, script: Script<R>, tells: Set<string>, sent: Promise<unknown>[]): Promise<R> => {
    const one = (call: BoundStatement): Promise<readonly Row[]> => {
      for (const word of call.notifies ?? []) tells.add(word)
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
  const once = async <R>(begin: string, make: () => Script<R>): Promise<R> => {
    const client = await pool.connect()
    let broken: Error | undefined
    const tells = new Set<string>()
    // Young tables look tiny to the planner, and prepared plans stay: an index is always meant, and to be walked along in its order as far as
    // is asked for. What is gathered of it and sorted then costs nothing where a row is expected, and seconds where a million are. Sent along
    // with the first statement.
    const sent: Promise<unknown>[] = [
      client.query(
        `${begin}; set local enable_seqscan = off; set local enable_bitmapscan = off; set local idle_in_transaction_session_timeout = ${MAX_STILL_MS}`,
      ),
    ]
    sent[0]!.catch(() => {})
    try {
      const value = await run(client, make(), tells, sent)
      // The commit travels behind what was not waited for; after an error among that, it rolls back, and the error is told.
      sent.push(client.query('commit'))
      await Promise.all(sent)
      tells.forEach(tell)
      return value
    } catch (error) {
      await client.query('rollback').catch((failure: Error) => {
        broken = failure
      })
      // What stopped the transaction may be a statement nobody waited for, and not the one after it that found it stopped.
      const stopped = (await Promise.allSettled(sent)).find((one) => one.status === 'rejected')
      throw stopped?.reason ?? error
    } finally {
      client.release(broken)
    }
  }

  let lanesFree: Promise<unknown> = Promise.resolve()
  const turn = <R>(place: WritePriority, make: () => Script<R>): Promise<R> => {
    if (!LANE_LOCKING.has(place)) return once('begin', make)
    const done = lanesFree.then(() => once('begin', make))
    lanesFree = done.catch(() => {})
    return done
  }

  const listeners = new Set<(word: string) => void>()
  // A node hears its own words at once, and not again from the server.
  const self = Buffer.from(clock.bytes(9)).toString('base64url')
  const listener = listen(settings, clock, self, (word) => {
    for (const each of listeners) each(word)
  })
  const told = new Set<string>()
  const say = async (): Promise<void> => {
    while (told.size > 0) {
      let words = self
      for (const word of told) {
        if (words.length + word.length > MAX_PAYLOAD) break
        words += ` ${word}`
        told.delete(word)
      }
      await pool.query({ name: 'rb_tell', text: 'select pg_notify($1, $2)', values: [CHANNEL, words] })
    }
  }
  const tell = (word: string): void => {
    for (const each of listeners) queueMicrotask(() => each(word))
    if (told.size === 0)
      clock.after(NOTIFY_EVERY_MS, () => {
        say().catch((error: Error) => {
          // Hints only: the others poll.
          told.clear()
          onError(error)
        })
      })
    told.add(word)
  }

  return {
    dialect: postgresDialect,
    maxConcurrentWrites: 1,
    get writeError() {
      return refusal
    },
    async write<R>(place: WritePriority, make: () => Script<R>) {
      // What is asked in this turn of the event loop still joins the batch.
      await new Promise((resolve) => setImmediate(resolve))
      for (let repeats = 0; ; repeats++) {
        try {
          const value = await turn(place, make)
          refusal = null
          return value
        } catch (error) {
          refusal = refusalOf(error) ?? refusal
          if (repeats === MAX_REPEATS || !RETRYABLE_CODES.has((error as { code?: string }).code ?? '')) throw error
        }
      }
    },
    read: (script) => once('begin isolation level repeatable read read only', () => script),
    isItemError: (error) => /^2[23]/.test((error as { code?: string }).code ?? ''),
    isUnavailable,
    notify: tell,
    onNotify(each) {
      listeners.add(each)
      return () => listeners.delete(each)
    },
    async close() {
      // Work given back at the end is news for the others.
      await say().catch(onError)
      listener.close()
      await pool.end()
    },
  }
}

/** What an error says about the server, and not about what was written; null: nothing. Classes 53 and 58: out of room, or of its disk; 25006: a standby. */
function refusalOf(error: unknown): string | null {
  const code = String((error as { code?: unknown }).code ?? '')
  if (code === '53100') return 'takes no writes: the disk is full'
  return /^(53|58|25006)/.test(code) ? `takes no writes (${code})` : null
}

/**
 * Classes 08 (connection), 53 and 58 (resources, disk), 57P (shutdown); and what Node and pg throw without a code of the server when the connection
 * is gone or does not answer in time.
 */
function isUnavailable(error: unknown): boolean {
  const { code, message } = error as { code?: unknown; message?: unknown }
  if (typeof code === 'string') return /^(08|53|57P|58|25006|25P03)/.test(code) || /^E[A-Z]{3,}/.test(code)
  return /connection terminated|connection error|timeout|client was closed|cannot use a pool/i.test(String(message))
}

/** Hears what other nodes tell, over a connection of its own that is opened again whenever it breaks. `*` means: look at everything. */
function listen(settings: pg.ClientConfig, clock: Clock, self: string, hear: (word: string) => void): { close(): void } {
  let closed = false
  let client: pg.Client | undefined
  let cancel = (): void => {}
  const again = (delayMs: number): void => {
    if (closed) return
    cancel = clock.after(delayMs, () => void open(delayMs))
  }
  const open = async (delayMs: number): Promise<void> => {
    client = new pg.Client(settings)
    client.on('error', () => {})
    client.once('end', () => again(Math.min(5_000, delayMs * 2 + 100)))
    client.on('notification', ({ payload }) => {
      const [from, ...words] = (payload ?? '').split(' ')
      if (from !== self) words.forEach(hear)
    })
    try {
      await client.connect()
      await client.query(`listen ${CHANNEL}`)
      // Whatever was said while nobody listened.
      hear('*')
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

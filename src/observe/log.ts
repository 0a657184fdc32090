/** The log: JSON lines without secrets, and the two wide lines, one for each run of a task and one for each attempt of a delivery. */
import { write, writeSync } from 'node:fs'
import { type Logger, pino } from 'pino'
import type { LogLevel } from '../config/settings.ts'
import type { Clock } from '../core/clock.ts'
import { toErrorLog } from '../core/errors.ts'
import type { Millis } from '../core/model.ts'
import type { EventSink } from './events.ts'

/** Without `child`, whose bindings pino writes past {@link censored}. */
export type Log = Pick<Logger, 'isLevelEnabled' | Exclude<LogLevel, 'silent'>>

/** A log and the way to be done with it. */
export interface LogHandle {
  readonly log: Log
  /** Resolves when every line has left the process, or cannot. Nothing may be written afterwards. */
  close(): Promise<void>
}

export interface LogOptions {
  readonly level: LogLevel
  readonly clock: Pick<Clock, 'wall' | 'after'>
  /** An open file descriptor; 1, the standard output, when absent. */
  readonly fd?: number
}

/** Opens the log. Writing never waits for the reader: lines are gathered, sent in the background, and written out when the process exits. */
export function openLog({ level, clock, fd = 1 }: LogOptions): LogHandle {
  const lines = gatherLines(fd, clock)
  const log = pino(
    {
      level,
      base: null,
      timestamp: stamp(clock),
      formatters: { level: (label) => ({ level: label }), log: censored },
      // Errors are fit to be shown already: pino's own serializer would take what they became for an error again.
      serializers: { err: (shown) => shown },
    },
    lines,
  )
  return { log, close: lines.close }
}

/** Lines are gathered until there are this many characters or {@link LINGER_MS} have passed: one system call then carries about a hundred of them. */
const GATHERED = 16_384
const LINGER_MS: Millis = 50
/** What may wait for a reader that has stalled; past it, lines are dropped. */
const MAX_WAITING = 16 * 1024 * 1024
/** How long a closing log waits for such a reader. */
const CLOSING_MS: Millis = 1000

/**
 * Own lines and not sonic-boom's: with `minLength` that measures its whole buffer for every line (5.0 µs a line against 2.0), and its
 * `flushSync` never returns on a full disk. Here a closed pipe or a full disk costs lines, never the process.
 */
function gatherLines(fd: number, clock: Pick<Clock, 'after'>): { write(line: string): void; close(): Promise<void> } {
  let waiting = ''
  let sending = false
  let lingering = false
  let closed = false
  let drained = (): void => {}

  const send = (): void => {
    if (sending) return
    if (waiting === '') {
      drained()
      return
    }
    sending = true
    const chunk = Buffer.from(waiting)
    waiting = ''
    put(chunk)
  }
  const put = (chunk: Buffer): void =>
    write(fd, chunk, (error, written) => {
      if (error?.code === 'EAGAIN') return void clock.after(LINGER_MS, () => put(chunk))
      if (error?.code === 'EPIPE') closed = true
      if (!error && written < chunk.length) return put(chunk.subarray(written))
      sending = false
      if (waiting.length >= GATHERED || closed) send()
    })
  const sendNow = (): void => {
    try {
      writeSync(fd, waiting)
    } catch {
      // The process ends: there is nobody left to tell.
    }
  }
  process.once('exit', sendNow)

  return {
    write(line) {
      if (closed || waiting.length > MAX_WAITING) return
      waiting += line
      if (waiting.length >= GATHERED) send()
      else if (!lingering) {
        lingering = true
        clock.after(LINGER_MS, () => {
          lingering = false
          send()
        })
      }
    },
    close: () =>
      new Promise((resolve) => {
        closed = true
        drained = () => {
          process.removeListener('exit', sendNow)
          resolve()
        }
        clock.after(CLOSING_MS, resolve)
        send()
      }),
  }
}

/** RFC 3339 with milliseconds, made once for all lines of one millisecond. */
function stamp(clock: Pick<Clock, 'wall'>): () => string {
  let at = Number.NaN
  let text = ''
  return () => {
    const now = clock.wall()
    if (now !== at) {
      at = now
      text = `,"time":"${new Date(now).toISOString()}"`
    }
    return text
  }
}

/** Members that never reach the log, wherever they stand. Custom header values are secrets too, so headers are left out whole. */
const SECRETS = new Set([
  'authorization',
  'Authorization',
  'cookie',
  'headers',
  'key',
  'apiKey',
  'masterKey',
  'masterKeyPrevious',
  'adminToken',
  'token',
  'password',
  'secret',
  'previousSecret',
  'privateJwk',
])
const CENSORED = '***'
/** Deeper than this is not looked at, so it is not shown either: a cycle ends here. */
const DEEPEST = 5

/** `fields` with its secrets starred. A flat object without any is given back as it is: that is every wide line. */
function censored(fields: Record<string, unknown>): Record<string, unknown> {
  for (const name in fields) {
    const value = fields[name]
    if (SECRETS.has(name) || (typeof value === 'object' && value !== null)) return censoredCopy(fields, 0)
  }
  return fields
}

function censoredCopy(fields: object, depth: number): Record<string, unknown> {
  return Object.fromEntries(Object.entries(fields).map(([name, value]) => [name, SECRETS.has(name) ? CENSORED : shown(value, depth)]))
}

function shown(value: unknown, depth: number): unknown {
  if (value instanceof Error) return toErrorLog(value)
  // What knows its JSON (a Date, a URL) is no bag of fields.
  if (typeof value !== 'object' || value === null || 'toJSON' in value) return value
  if (depth >= DEEPEST) return '…'
  return Array.isArray(value) ? value.map((item) => shown(item, depth + 1)) : censoredCopy(value, depth + 1)
}

/** Writes the facts of a node's events to the log. `info` lines cost nothing when that level is off. */
export function logEvents(log: Log, events: EventSink): void {
  events.on('trouble', ({ error }) => log.warn({ err: rootCause(error) }, 'trouble'))
  events.on('task.threw', (facts) => log.error(facts, 'a handler threw'))
  events.on('http.failed', ({ code, fields }) =>
    code === 'internal' ? log.error(fields, 'a request failed') : log.warn(fields, 'a request was refused for lack of capacity'),
  )
  events.on('secrets.reencrypted', (facts) =>
    log.info(facts, 'every secret is encrypted with the current master key: the previous one may be removed'),
  )
  const info = (facts: () => object, message: string): void => {
    if (log.isLevelEnabled('info')) log.info(facts(), message)
  }
  events.on('task.run', (run) =>
    info(() => {
      const { task, ...facts } = run
      return { taskId: task.id, type: task.type, clientId: task.clientId, try: task.tries, ...facts }
    }, 'task.run'),
  )
  events.on('delivery.attempted', (facts) => info(() => facts, 'delivery.attempted'))
  events.on('chore.ran', (facts) => {
    if (facts.count > 0) info(() => facts, 'chore.ran')
  })
}

/** The error that says what happened, below those that say what it means for the caller. */
function rootCause(error: unknown): unknown {
  const root = error instanceof Error && error.cause instanceof Error ? error.cause : error
  return root instanceof Error ? toErrorLog(root) : root
}

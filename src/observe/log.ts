/** The log: JSON lines without secrets, and the two wide lines, one for each run of a task and one for each attempt of a delivery. */
import { write, writeSync } from 'node:fs'
import { type Logger, pino } from 'pino'
import type { LogLevel } from '../config/settings.ts'
import type { Clock } from '../core/clock.ts'
import { toErrorLog } from '../core/errors.ts'
import type { AttemptOutcome, EventType, Millis, State } from '../core/model.ts'

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

/** One run of a task, as the log tells it. */
export interface RunLog {
  readonly taskId: string
  readonly type: string
  readonly clientId: string
  readonly try: number
  /** The state it left the task in; `stale` when the lease was lost. */
  readonly outcome: State | 'stale'
  readonly durationMs: Millis
  /** From due to started. */
  readonly waitMs: Millis
  /** Null unless the run failed or is retried. */
  readonly errorCode: string | null
}

/** Writes `task.run`, at `info`. Costs nothing when that level is off. */
export function logRun(log: Log, facts: RunLog): void {
  if (log.isLevelEnabled('info')) log.info(facts, 'task.run')
}

/** One attempt of a delivery, as the log tells it. */
export interface AttemptLog {
  readonly deliveryId: string
  readonly eventId: string
  readonly eventType?: EventType
  readonly endpointId: string
  readonly try: number
  readonly outcome: AttemptOutcome
  readonly httpStatus: number | null
  readonly durationMs: Millis
  /** Null: this was the last one. */
  readonly nextDelayMs: Millis | null
}

/** Writes `delivery.attempted`, at `info`. Costs nothing when that level is off. */
export function logAttempt(log: Log, facts: AttemptLog): void {
  if (log.isLevelEnabled('info')) log.info(facts, 'delivery.attempted')
}

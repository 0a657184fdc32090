/** The log: JSON lines without secrets, among them one wide line per run of a task and per attempt of a delivery. */
import { write, writeSync } from 'node:fs'
import { type Logger, pino } from 'pino'
import type { LogLevel } from '../config/settings.ts'
import type { Clock } from '../core/clock.ts'
import { toErrorLog } from '../core/errors.ts'
import type { Millis } from '../core/model.ts'
import type { EventSink } from './events.ts'

/** Without `child`: pino writes its bindings without {@link censored}. */
export type Log = Pick<Logger, 'isLevelEnabled' | Exclude<LogLevel, 'silent'>>

export interface LogHandle {
  readonly log: Log
  /** Resolves when every line is written or the reader has stalled for a second. Later lines are dropped. */
  close(): Promise<void>
}

export interface LogOptions {
  readonly level: LogLevel
  readonly clock: Pick<Clock, 'wall' | 'after'>
  /** An open file descriptor. Default: 1, standard output. */
  readonly fd?: number
}

/** Opens the log. Logging never waits for the reader: lines are buffered, written in the background, and flushed when the process exits. */
export function openLog({ level, clock, fd = 1 }: LogOptions): LogHandle {
  const lines = createLineBuffer(fd, clock)
  const log = pino(
    {
      level,
      base: null,
      timestamp: stamp(clock),
      formatters: { level: (label) => ({ level: label }), log: censored },
      // `toErrorLog` has converted errors already. Without this, pino would convert them again.
      serializers: { err: (converted) => converted },
    },
    lines,
  )
  return { log, close: lines.close }
}

/** Lines are buffered up to this many characters or for {@link FLUSH_AFTER_MS}: one system call then writes about a hundred of them. */
const FLUSH_AT = 16_384
const FLUSH_AFTER_MS: Millis = 50
/** Characters buffered for a stalled reader. Further lines are dropped. */
const MAX_BUFFERED = 16 * 1024 * 1024
/** How long `close` waits for a stalled reader. */
const CLOSE_TIMEOUT_MS: Millis = 1000

/**
 * Replaces sonic-boom, which with `minLength` measures its whole buffer for every line (5.0 µs per line instead of 2.0), and whose `flushSync`
 * never returns on a full disk. Here a closed pipe or a full disk loses lines, but never ends the process.
 */
function createLineBuffer(fd: number, clock: Pick<Clock, 'after'>): { write(line: string): void; close(): Promise<void> } {
  let buffer = ''
  let isWriting = false
  let isScheduled = false
  let closed = false
  let onDrained = (): void => {}

  const flush = (): void => {
    if (isWriting) return
    if (buffer === '') {
      onDrained()
      return
    }
    isWriting = true
    const chunk = Buffer.from(buffer)
    buffer = ''
    writeChunk(chunk)
  }
  const writeChunk = (chunk: Buffer): void =>
    write(fd, chunk, (error, written) => {
      if (error?.code === 'EAGAIN') return void clock.after(FLUSH_AFTER_MS, () => writeChunk(chunk))
      if (error?.code === 'EPIPE') closed = true
      if (!error && written < chunk.length) return writeChunk(chunk.subarray(written))
      isWriting = false
      if (buffer.length >= FLUSH_AT || closed) flush()
    })
  const flushNow = (): void => {
    try {
      writeSync(fd, buffer)
    } catch {
      // The process ends, so the error cannot be reported.
    }
  }
  process.once('exit', flushNow)

  return {
    write(line) {
      if (closed || buffer.length > MAX_BUFFERED) return
      buffer += line
      if (buffer.length >= FLUSH_AT) flush()
      else if (!isScheduled) {
        isScheduled = true
        clock.after(FLUSH_AFTER_MS, () => {
          isScheduled = false
          flush()
        })
      }
    },
    close: () =>
      new Promise((resolve) => {
        closed = true
        onDrained = () => {
          process.removeListener('exit', flushNow)
          resolve()
        }
        clock.after(CLOSE_TIMEOUT_MS, resolve)
        flush()
      }),
  }
}

/** RFC 3339 with milliseconds, formatted once per millisecond. */
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

/** Members that never reach the log, at any depth. Header values may be secrets too, so `headers` is censored as a whole. */
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
/** Deeper members are not inspected, so they are left out. This also ends cycles. */
const MAX_DEPTH = 5

/** Replaces secrets by stars. Returns a flat object without secrets unchanged: that is every wide line. */
function censored(fields: Record<string, unknown>): Record<string, unknown> {
  for (const name in fields) {
    const value = fields[name]
    if (SECRETS.has(name) || (typeof value === 'object' && value !== null)) return censoredCopy(fields, 0)
  }
  return fields
}

function censoredCopy(fields: object, depth: number): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(fields).map(([name, value]) => [name, SECRETS.has(name) ? CENSORED : censoredValue(value, depth)]),
  )
}

function censoredValue(value: unknown, depth: number): unknown {
  if (value instanceof Error) return toErrorLog(value)
  // An object with `toJSON`, such as a Date or a URL, has no fields to censor.
  if (typeof value !== 'object' || value === null || 'toJSON' in value) return value
  if (depth >= MAX_DEPTH) return '…'
  return Array.isArray(value) ? value.map((item) => censoredValue(item, depth + 1)) : censoredCopy(value, depth + 1)
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

/** The original error. The errors around it describe what it means for a caller. */
function rootCause(error: unknown): unknown {
  const root = error instanceof Error && error.cause instanceof Error ? error.cause : error
  return root instanceof Error ? toErrorLog(root) : root
}

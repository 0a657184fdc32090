/** One try of a task from its input to how it ended, in whatever thread. Nothing here knows the store. */
import { RESULT_LIMIT_BYTES, resultTooLarge, type TryResult } from '../core/lifecycle.ts'
import type { Json, Millis, Task } from '../core/model.ts'
import { Permanent, Postpone, parseStoredInput, type RunContext, type TaskType } from '../tasks/define.ts'
import { Interrupted } from './pump.ts'

/** After a client asked to cancel, how long the handler may still return a result. */
export const CANCEL_GRACE_MS = 10_000
/** After the node began to shut down, the same. */
const SHUTDOWN_GRACE_MS = 1_000

/** A run's own reasons to stop, beside the pump's. */
export class TryTimeout extends Error {
  readonly code: 'timeout' | 'deadline_exceeded'
  constructor(code: 'timeout' | 'deadline_exceeded', message: string) {
    super(message)
    this.code = code
  }
}

/** What a handler is told of its task, as plain data: it can be sent to another thread. */
export interface TryInput {
  readonly input: Json
  readonly metadata: Json
  readonly task: Omit<RunContext['task'], 'metadata'>
}
export const toTryInput = (task: Task): TryInput => ({
  input: task.input,
  metadata: task.metadata,
  task: {
    id: task.id,
    type: task.type,
    clientId: task.clientId,
    try: task.tries,
    maxTries: task.maxTries,
    generation: task.generation,
    fence: task.fence,
    deadlineAt: task.deadlineAt,
    traceparent: task.traceparent,
    tracestate: task.tracestate,
  },
})

/** Parses the input, runs the handler, judges what it gave or threw. Never throws. */
export async function runTry(given: TryInput, type: TaskType, context: Omit<RunContext, 'task'>): Promise<TryResult> {
  const { signal } = context
  try {
    const input = await parseStoredInput(given, type)
    if (input.kind === 'rejected') return { kind: 'threw', permanent: true, error: input.error }
    const metadata = given.metadata === '{}' ? {} : JSON.parse(given.metadata)
    return serialise(await type.run(input.value, { ...context, task: { ...given.task, metadata } }))
  } catch (error) {
    if (signal.aborted && !(error instanceof Permanent)) return resultOfAbort(signal.reason)
    return resultOfError(error)
  }
}

function serialise(result: unknown): TryResult {
  const text: Json | undefined = JSON.stringify(result ?? null)
  if (text === undefined)
    return resultOfError(new Permanent(`The handler returned a ${typeof result}, which JSON cannot hold.`, { code: 'handler_error' }))
  if (text.length > RESULT_LIMIT_BYTES / 4 && Buffer.byteLength(text) > RESULT_LIMIT_BYTES) return resultTooLarge
  return { kind: 'returned', result: text }
}

/** How a try ended whose signal fired, unless it returned a result in time. */
export function resultOfAbort(reason: unknown): TryResult {
  if (reason instanceof TryTimeout)
    return {
      kind: 'threw',
      permanent: reason.code === 'deadline_exceeded',
      error: { code: reason.code, message: reason.message, details: null },
    }
  if (reason instanceof Interrupted && reason.reason === 'canceled') return { kind: 'canceled' }
  return { kind: 'interrupted' }
}

/** How long a handler may still return a result after its signal fired: none is heeded once a try has timed out, or is not ours any more. */
export function abortGraceMs(reason: unknown): Millis {
  if (!(reason instanceof Interrupted) || reason.reason === 'leaseLost') return 0
  return reason.reason === 'canceled' ? CANCEL_GRACE_MS : SHUTDOWN_GRACE_MS
}

const ERROR_CODE_PATTERN = /^[a-z0-9_.]{1,64}$/
const MAX_MESSAGE = 2_000
/** How a try ended that threw. */
export function resultOfError(error: unknown): TryResult {
  if (error instanceof Postpone) return { kind: 'postponed', delayMs: Math.max(0, Math.round(error.delaySeconds * 1000)) }
  const message = messageOf(error).slice(0, MAX_MESSAGE).toWellFormed()
  if (!(error instanceof Permanent))
    return { kind: 'threw', error: { code: 'handler_error', message, details: null }, stack: stackOf(error, message) }
  const code = ERROR_CODE_PATTERN.test(error.code) ? error.code : 'handler_error'
  return { kind: 'threw', permanent: true, error: { code, message, details: toJsonValue(error.details) } }
}
/** Characters of a stack that the log takes. */
const MAX_STACK = 8_000
function stackOf(error: unknown, message: string): string {
  try {
    return String((error instanceof Error && error.stack) || message).slice(0, MAX_STACK)
  } catch {
    return message
  }
}
/** Handlers throw anything: what has no text, or throws when asked for it, too. */
function messageOf(error: unknown): string {
  try {
    return String(error instanceof Error ? error.message : error)
  } catch {
    return 'The handler threw what cannot be told as text.'
  }
}
function toJsonValue(details: unknown): unknown {
  try {
    return JSON.parse(JSON.stringify(details ?? null))
  } catch {
    return null
  }
}

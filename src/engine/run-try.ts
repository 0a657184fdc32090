/** Runs one try of a task, in any thread and without the store. */
import { RESULT_LIMIT_BYTES, resultTooLarge, type TryResult } from '../core/lifecycle.ts'
import type { Json, Millis, Task } from '../core/model.ts'
import { Permanent, Postpone, parseStoredInput, type RunContext, type TaskType } from '../tasks/define.ts'
import { Interrupted } from './pump.ts'

/** How long a handler may still return a result after a cancel was requested. */
export const CANCEL_GRACE_MS = 10_000
/** The same after the node began to shut down. */
const SHUTDOWN_GRACE_MS = 1_000

/** The time limits of a try, which fire its signal as {@link Interrupted} does. */
export class TryTimeout extends Error {
  readonly code: 'timeout' | 'deadline_exceeded'
  constructor(code: 'timeout' | 'deadline_exceeded', message: string) {
    super(message)
    this.code = code
  }
}

/** The task of a try as plain data, which can be sent to another thread. */
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

/** Parses the input, runs the handler, and classifies its result or error. Never throws. */
export async function runTry(tryInput: TryInput, type: TaskType, context: Omit<RunContext, 'task'>): Promise<TryResult> {
  const { signal } = context
  try {
    const input = await parseStoredInput(tryInput, type)
    if (input.kind === 'rejected') return { kind: 'threw', permanent: true, error: input.error }
    const metadata = tryInput.metadata === '{}' ? {} : JSON.parse(tryInput.metadata)
    return serialise(await type.run(input.value, { ...context, task: { ...tryInput.task, metadata } }))
  } catch (error) {
    if (signal.aborted && !(error instanceof Permanent)) return resultOfAbort(signal.reason)
    return resultOfError(error)
  }
}

function serialise(result: unknown): TryResult {
  const text: Json | undefined = JSON.stringify(result ?? null)
  if (text === undefined)
    return resultOfError(new Permanent(`The handler returned a ${typeof result}, which JSON cannot represent.`, { code: 'handler_error' }))
  if (text.length > RESULT_LIMIT_BYTES / 4 && Buffer.byteLength(text) > RESULT_LIMIT_BYTES) return resultTooLarge
  return { kind: 'returned', result: text }
}

/** The result of a try whose signal fired and that returned nothing in time. */
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

/** How long a handler may still return a result after its signal fired. 0 after a timeout or a lost lease. */
export function abortGraceMs(reason: unknown): Millis {
  if (!(reason instanceof Interrupted) || reason.reason === 'leaseLost') return 0
  return reason.reason === 'canceled' ? CANCEL_GRACE_MS : SHUTDOWN_GRACE_MS
}

const ERROR_CODE_PATTERN = /^[a-z0-9_.]{1,64}$/
const MAX_MESSAGE = 2_000
/** The result of a try that threw. */
export function resultOfError(error: unknown): TryResult {
  if (error instanceof Postpone) return { kind: 'postponed', delayMs: Math.max(0, Math.round(error.delaySeconds * 1000)) }
  const message = messageOf(error).slice(0, MAX_MESSAGE).toWellFormed()
  if (!(error instanceof Permanent))
    return { kind: 'threw', error: { code: 'handler_error', message, details: null }, stack: stackOf(error, message) }
  const code = ERROR_CODE_PATTERN.test(error.code) ? error.code : 'handler_error'
  return { kind: 'threw', permanent: true, error: { code, message, details: toJsonValue(error.details) } }
}
/** Characters of a stack in the log. */
const MAX_STACK = 8_000
function stackOf(error: unknown, message: string): string {
  try {
    return String((error instanceof Error && error.stack) || message).slice(0, MAX_STACK)
  } catch {
    return message
  }
}
/** A handler may throw any value, even one whose conversion to text throws. */
function messageOf(error: unknown): string {
  try {
    return String(error instanceof Error ? error.message : error)
  } catch {
    return 'The handler threw a value that cannot be converted to text.'
  }
}
function toJsonValue(details: unknown): unknown {
  try {
    return JSON.parse(JSON.stringify(details ?? null))
  } catch {
    return null
  }
}

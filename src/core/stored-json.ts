/** Rows hold JSON that was written as JSON. Where a disk or a stranger has damaged it, the row does without it, and its neighbours notice nothing. */
import type { Failure, Json, Task } from './model.ts'

export function isJson(text: string): boolean {
  try {
    JSON.parse(text)
    return true
  } catch {
    return false
  }
}

/** What the text says; `otherwise` where it says nothing, or nothing of that kind. */
export function parseStored<T extends object>(text: Json | null, otherwise: T): T {
  let value: unknown
  try {
    value = JSON.parse(text ?? 'null')
  } catch {
    return otherwise
  }
  return typeof value === 'object' && value !== null && Array.isArray(value) === Array.isArray(otherwise) ? (value as T) : otherwise
}

/** Texts of a task, and what stands for those that cannot be read. */
const FALLBACKS = Object.entries({ input: 'null', metadata: '{}', callback: '{}', result: 'null', error: null, lastError: null } as const)
/** The usual texts need no look. */
const PLAIN: ReadonlySet<string | null> = new Set([null, '{}', 'null'])

/** The task without what cannot be read of it; the very same where there is no such thing. */
export function sanitizeStored(task: Task): Task {
  let read = task
  for (const [member, otherwise] of FALLBACKS) {
    const text = task[member as 'input']
    if (!PLAIN.has(text) && !isJson(text!)) read = { ...read, [member]: otherwise }
  }
  return read
}

/** Why a task cannot run, now or ever: no later try would find its row whole. Null: nothing of the kind. */
export function corruptionOf({ input, metadata }: Pick<Task, 'input' | 'metadata'>): Failure | null {
  const damaged = !isJson(input) ? 'input' : metadata !== '{}' && !isJson(metadata) ? 'metadata' : null
  return damaged && { code: 'input_rejected', message: `The ${damaged} in the store is not JSON.`, details: null }
}

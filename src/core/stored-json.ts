/** Reading JSON of rows that a disk or somebody else may have damaged: one damaged row must not fail a list or a batch. */
import type { Failure, Json, Task } from './model.ts'

export function isJson(text: string): boolean {
  try {
    JSON.parse(text)
    return true
  } catch {
    return false
  }
}

/** The parsed text; `otherwise` where it is null, damaged or of another kind. */
export function parseStored<T extends object>(text: Json | null, otherwise: T): T {
  let value: unknown
  try {
    value = JSON.parse(text ?? 'null')
  } catch {
    return otherwise
  }
  return typeof value === 'object' && value !== null && Array.isArray(value) === Array.isArray(otherwise) ? (value as T) : otherwise
}

/** The JSON members of a task, with the replacement of a damaged one. */
const FALLBACKS = Object.entries({ input: 'null', metadata: '{}', callback: '{}', result: 'null', error: null, lastError: null } as const)
/** The usual texts, known to be valid. */
const VALID: ReadonlySet<string | null> = new Set([null, '{}', 'null'])

/** The task with damaged members replaced; the same object where none is damaged. */
export function sanitizeStored(task: Task): Task {
  let read = task
  for (const [member, otherwise] of FALLBACKS) {
    const text = task[member as 'input']
    if (!VALID.has(text) && !isJson(text!)) read = { ...read, [member]: otherwise }
  }
  return read
}

/** The failure of a task whose input or metadata is damaged, which no retry repairs; null: neither is. */
export function corruptionOf({ input, metadata }: Pick<Task, 'input' | 'metadata'>): Failure | null {
  const damaged = !isJson(input) ? 'input' : metadata !== '{}' && !isJson(metadata) ? 'metadata' : null
  return damaged && { code: 'input_rejected', message: `The ${damaged} in the store is not JSON.`, details: null }
}

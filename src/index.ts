/** The public names of the package. */
import type { Ringback, RingbackOptions } from './platform.ts'

export { type ErrorCode, RingbackError, StartupError } from './core/errors.ts'
export type { Ringback, RingbackOptions } from './platform.ts'
export {
  defineTask,
  exponential,
  Permanent,
  Postpone,
  type RetryPolicy,
  type RunContext,
  type Schema,
  type TaskDefinition,
  type TaskType,
  type TypedTask,
  type WorkerTaskDefinition,
} from './tasks/define.ts'

/**
 * Creates the platform inside your own application.
 * @throws StartupError when settings are invalid, a thread cannot load a task type, the store cannot be opened, or the master key is not the store's.
 */
export async function createRingback(options: RingbackOptions): Promise<Ringback> {
  // Loaded on demand: threads import this file for their task types, and would wait seconds for parts they never use.
  return (await import('./platform.ts')).createRingback(options)
}

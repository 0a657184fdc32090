/** The front door: every public name and nothing else. */
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
 * The platform inside an application of your own.
 * @throws StartupError when settings do not fit together, a task type cannot run where it should, the store cannot be opened, or the master key is not the store's.
 */
export async function createRingback(options: RingbackOptions): Promise<Ringback> {
  // Loaded by who starts a platform: each thread that loads task types comes through here too, and would wait seconds for what it never uses.
  return (await import('./platform.ts')).createRingback(options)
}

/** The front door: every public name and nothing else. */
export { type ErrorCode, RingbackError, StartupError } from './errors.ts'
export { createRingback, type Ringback, type RingbackOptions } from './platform.ts'
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
} from './task.ts'

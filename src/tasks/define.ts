/** Defines task types: `defineTask`, what a handler receives, and what it may throw. */
import type { TaskSignature } from '../core/documents.ts'
import { type Fault, RingbackError, StartupError } from '../core/errors.ts'
import type { Failure, Millis, Task } from '../core/model.ts'
import { corruptionOf } from '../core/stored-json.ts'

/** The part of Standard Schema (https://standardschema.dev) that Ringback uses. Libraries such as zod ≥ 4.2 also provide `jsonSchema`. */
export interface Schema<Output = unknown> {
  readonly '~standard': {
    readonly version: 1
    readonly vendor: string
    readonly validate: (value: unknown) => Validated<Output> | Promise<Validated<Output>>
    readonly types?: { readonly input: unknown; readonly output: Output } | undefined
    readonly jsonSchema?: { readonly input: (options: { target: 'draft-2020-12' }) => Record<string, unknown> } | undefined
  }
}
type Validated<Output> = { readonly value: Output; readonly issues?: undefined } | { readonly issues: readonly SchemaIssue[] }
interface SchemaIssue {
  readonly message: string
  readonly path?: readonly (PropertyKey | { readonly key: PropertyKey })[] | undefined
}

/** The second argument of a handler. */
export interface RunContext {
  readonly task: {
    readonly id: string
    readonly type: string
    readonly clientId: string
    /** 1 on the first try. */
    readonly try: number
    readonly maxTries: number
    readonly generation: number
    /** Grows with every start. Pass it to the systems you write to, so that they can refuse a stale run. */
    readonly fence: number
    readonly metadata: Readonly<Record<string, string>>
    readonly deadlineAt: Millis | null
    readonly traceparent: string | null
    readonly tracestate: string | null
  }
  /** Fires on timeout, cancel, lost lease and shutdown. */
  readonly signal: AbortSignal
  /** Reports progress, 0 to 100 (at most 99.9 until the task completes). A lower value than before is ignored. */
  progress(percent: number, message?: string): void
  readonly log: { info(fields: object, message?: string): void; warn(fields: object, message?: string): void }
}

export interface RetryPolicy {
  /** 1 to 100. */
  readonly tries: number
  /** From a failed try to the next one. If it throws, `exponential()` decides. `random` is from 0 to 1. */
  delayMs(triesSpent: number, random: number): Millis
}

/** Delays of 2, 8, 32, 128 s … (base × factor^n), at most `capSeconds` (1 h), each multiplied by a random 50 to 100 %. */
export function exponential(options: { tries?: number; baseSeconds?: number; factor?: number; capSeconds?: number } = {}): RetryPolicy {
  const { tries = 5, baseSeconds = 2, factor = 4, capSeconds = 3600 } = options
  return {
    tries,
    delayMs: (spent, random) => Math.round(Math.min(capSeconds, baseSeconds * factor ** (spent - 1)) * 1000 * (0.5 + random / 2)),
  }
}

interface Definition<Input, Result> {
  /** `^[a-z0-9_-]+(\.[a-z0-9_-]+)*$`, at most 128 characters. `system.` is reserved. */
  readonly type: string
  readonly description?: string
  readonly input?: Schema<Input>
  /** For schema libraries that do not provide JSON Schema. */
  readonly inputJsonSchema?: Record<string, unknown>
  readonly result?: Schema<Result>
  readonly timeoutSeconds?: number
  /** How long its tasks are kept after they end. Default: `RINGBACK_RETENTION_DAYS`. */
  readonly retentionSeconds?: number
  readonly retry?: RetryPolicy
  /** Running tasks of this type, over all nodes. */
  readonly concurrency?: number
}
export interface TaskDefinition<Input, Result> extends Definition<Input, Result> {
  /** Default: the node's main thread. `thread`: a thread of its pool, for CPU-bound work; there a handler that ignores its signal is killed. */
  readonly where?: 'thread'
  /** `import.meta.url` of the module that exports this task type: a thread imports it. Default: the configuration file of `ringback serve`. */
  readonly module?: string
  /** Returns the result. Throws to retry, `Permanent` to fail now, `Postpone` to wait without spending a try. */
  run(input: Input, context: RunContext): Promise<Result> | Result
}
/** Run by workers in any language, which claim its tasks over HTTP. */
export interface WorkerTaskDefinition<Input, Result> extends Definition<Input, Result> {
  readonly where: 'worker'
}

/** A validated task type with all defaults. */
export interface TaskType {
  readonly type: string
  /** Where it runs: the node's main thread, a thread of its pool, or a worker over HTTP. */
  readonly where: 'process' | 'thread' | 'worker'
  readonly description: string
  readonly inputJsonSchema: Record<string, unknown>
  readonly resultJsonSchema: Record<string, unknown> | null
  readonly timeoutSeconds: number
  /** Null: `RINGBACK_RETENTION_DAYS`. */
  readonly retentionSeconds: number | null
  readonly retry: RetryPolicy
  readonly concurrency: number | null
  /** The URL of the module that exports it, if given. */
  readonly module: string | null
  /** @throws RingbackError `validation_failed` with pointers under `#/input`. */
  parseInput(value: unknown): unknown | Promise<unknown>
  /** @throws RingbackError `validation_failed` with pointers under `#/result`. */
  parseResult(value: unknown): unknown | Promise<unknown>
  /** @throws Error for a type that workers run. */
  run(input: unknown, context: RunContext): unknown
}
/** A task type with the types of its input and its result, for typed clients. */
export interface TypedTask<Type extends string, Input, Result> extends TaskType, TaskSignature<Type, Input, Result> {
  readonly type: Type
}

const TYPE_NAME = /^[a-z0-9_-]+(\.[a-z0-9_-]+)*$/

/** @throws StartupError that names the invalid member of the definition and its value. */
export function defineTask<const Type extends string, Input = unknown, Result = unknown>(
  definition: (TaskDefinition<Input, Result> | WorkerTaskDefinition<Input, Result>) & { readonly type: Type },
): TypedTask<Type, Input, Result> {
  const { type, input, result } = definition
  const refuse = (fault: string): never => {
    throw new StartupError(`task type ${JSON.stringify(type)} ${fault}`)
  }
  if (!TYPE_NAME.test(type) || type.length > 128) refuse('must be a dotted lower-case name such as "report.build", at most 128 characters')
  const timeoutSeconds = definition.timeoutSeconds ?? 3600
  if (!(timeoutSeconds >= 1 && timeoutSeconds <= 604_800)) refuse(`has timeoutSeconds ${timeoutSeconds}; it must be from 1 to 604800`)
  const retentionSeconds = definition.retentionSeconds ?? null
  if (retentionSeconds !== null && !(retentionSeconds >= 60 && retentionSeconds <= 315_360_000))
    refuse(`has retentionSeconds ${retentionSeconds}; it must be from 60 to 315360000`)
  const concurrency = definition.concurrency ?? null
  if (concurrency !== null && !(Number.isInteger(concurrency) && concurrency >= 1))
    refuse(`has concurrency ${concurrency}; it must be a whole number from 1 up`)
  const where = definition.where ?? 'process'
  const run = 'run' in definition ? definition.run : null
  const module = 'module' in definition ? (definition.module ?? null) : null
  if (where !== 'process' && where !== 'thread' && where !== 'worker')
    refuse(`has where ${JSON.stringify(where)}; it must be "thread", "worker" or left out`)
  if (where === 'worker' && run) refuse('has both where: "worker" and run; remove run, or remove where to run it in this process')
  if (where !== 'worker' && !run) refuse('has no run; add one, or where: "worker" if workers run it')
  if (module !== null && !(where === 'thread' && URL.canParse(module)))
    refuse(`has module ${JSON.stringify(module)}; it must be import.meta.url and requires where: "thread"`)
  return Object.freeze({
    type,
    where,
    description: definition.description ?? '',
    inputJsonSchema: definition.inputJsonSchema ?? jsonSchema(type, 'input', input) ?? {},
    resultJsonSchema: result ? (jsonSchema(type, 'result', result) ?? {}) : null,
    timeoutSeconds,
    retentionSeconds,
    retry: policyOf(type, definition.retry ?? exponential()),
    concurrency,
    module,
    parseInput: parser('input', input),
    parseResult: parser('result', result),
    run(value: unknown, context: RunContext) {
      if (!run) throw new Error(`task type "${type}" has where: "worker" and cannot run in this process`)
      return run.call(definition, value as Input, context)
    },
  })
}

/** A copy whose `delayMs` never throws: a failed try must be settled in any case. */
function policyOf(type: string, policy: RetryPolicy): RetryPolicy {
  const { tries } = policy
  if (!(Number.isInteger(tries) && tries >= 1 && tries <= 100))
    throw new StartupError(`task type "${type}" has a retry policy with tries ${tries}; it must be a whole number from 1 to 100`)
  return Object.freeze({
    tries,
    delayMs(spent: number, random: number) {
      try {
        return policy.delayMs(spent, random)
      } catch {
        return exponential().delayMs(spent, random)
      }
    },
  })
}

function parser(member: 'input' | 'result', schema: Schema | undefined): (value: unknown) => unknown {
  const accept = (parsed: Validated<unknown>): unknown => {
    if (!parsed.issues) return parsed.value
    const errors = parsed.issues.slice(0, 50).map((issue): Fault => ({ pointer: pointer(member, issue.path), detail: issue.message }))
    const [first] = errors
    const which = first ? `: at ${first.pointer}, ${first.detail}` : ''
    throw new RingbackError('validation_failed', `The ${member} does not fit the schema of its task type${which}.`, { errors })
  }
  return (value) => {
    if (!schema) return value
    const parsed = schema['~standard'].validate(value)
    return parsed instanceof Promise ? parsed.then(accept) : accept(parsed)
  }
}

/** Parses the input before each try, because a deployment may have changed the schema. A rejected input fails the task without retries. */
export async function parseStoredInput(
  task: Pick<Task, 'input' | 'metadata'>,
  type: Pick<TaskType, 'parseInput'>,
): Promise<{ readonly kind: 'parsed'; readonly value: unknown } | { readonly kind: 'rejected'; readonly error: Failure }> {
  const corruption = corruptionOf(task)
  if (corruption !== null) return { kind: 'rejected', error: corruption }
  try {
    return { kind: 'parsed', value: await type.parseInput(JSON.parse(task.input)) }
  } catch (error) {
    const details = error instanceof RingbackError ? error.errors : null
    const message = 'The input no longer fits the schema of its task type.'
    return { kind: 'rejected', error: { code: 'input_rejected', message, details } }
  }
}

function pointer(member: string, path: SchemaIssue['path'] = []): string {
  const steps = path.map((step) =>
    String(typeof step === 'object' ? step.key : step)
      .replaceAll('~', '~0')
      .replaceAll('/', '~1'),
  )
  return [`#/${member}`, ...steps].join('/')
}

function jsonSchema(type: string, member: string, schema: Schema | undefined): Record<string, unknown> | undefined {
  if (!schema) return undefined
  const source = schema['~standard'].jsonSchema
  if (!source)
    throw new StartupError(
      `the ${member} schema of task type "${type}" does not provide JSON Schema; add ${member}JsonSchema, or use a library that does, such as zod 4.2 or later`,
    )
  return source.input({ target: 'draft-2020-12' })
}

/** Thrown by a handler: fails the task without further tries. `code` matches `^[a-z0-9_.]{1,64}$`. */
export class Permanent extends Error {
  override readonly name = 'Permanent'
  readonly code: string
  readonly details: unknown
  constructor(message: string, options: { code?: string; details?: unknown; cause?: unknown } = {}) {
    super(message, { cause: options.cause })
    this.code = options.code ?? 'handler_error'
    this.details = options.details ?? null
  }
}

/** Thrown by a handler: the task waits and the try does not count. */
export class Postpone extends Error {
  override readonly name = 'Postpone'
  readonly delaySeconds: number
  constructor(delaySeconds: number) {
    super(`postponed for ${delaySeconds} s`)
    this.delaySeconds = delaySeconds
  }
}

export function isTaskType(it: unknown): it is TaskType {
  return typeof it === 'object' && it !== null && 'type' in it && 'run' in it && 'parseInput' in it
}

/** Task types: how they are defined, what a run is given, and the registry of those this node knows. */
import type { TaskSignature } from '../core/documents.ts'
import { type Fault, RingbackError, StartupError } from '../core/errors.ts'
import type { Failure, Millis, Task } from '../core/model.ts'
import { corruptionOf } from '../core/stored-json.ts'

/** The part of Standard Schema (https://standardschema.dev) that Ringback uses; zod ≥ 4.2 and others also give JSON Schema. */
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

/** What a handler is given beside its input. */
export interface RunContext {
  readonly task: {
    readonly id: string
    readonly type: string
    readonly clientId: string
    /** 1 on the first try. */
    readonly try: number
    readonly maxTries: number
    readonly generation: number
    /** Grows with every start and never falls: hand it to what you write to, so that it can refuse a run that was overtaken. */
    readonly fence: number
    readonly metadata: Readonly<Record<string, string>>
    readonly deadlineAt: Millis | null
    readonly traceparent: string | null
    readonly tracestate: string | null
  }
  /** Fires on timeout, cancel, lost lease and shutdown. */
  readonly signal: AbortSignal
  /** Reports how far the run is, 0 to 100 (shown up to 99.9 until it completes), and what it does. Never falls within one try. */
  progress(percent: number, message?: string): void
  readonly log: { info(fields: object, message?: string): void; warn(fields: object, message?: string): void }
}

/** How often, and in how many milliseconds after a failed try the next one begins; a policy that throws waits as `exponential()` does. */
export interface RetryPolicy {
  /** 1 to 100. */
  readonly tries: number
  delayMs(triesSpent: number, random: number): Millis
}

/** Retries that wait 2, 8, 32, 128 s… (base × factor^n), each jittered to 50–100 %, at most `capSeconds` (1 h). */
export function exponential(options: { tries?: number; baseSeconds?: number; factor?: number; capSeconds?: number } = {}): RetryPolicy {
  const { tries = 5, baseSeconds = 2, factor = 4, capSeconds = 3600 } = options
  return {
    tries,
    delayMs: (spent, random) => Math.round(Math.min(capSeconds, baseSeconds * factor ** (spent - 1)) * 1000 * (0.5 + random / 2)),
  }
}

interface Definition<Input, Result> {
  /** Dotted name, `^[a-z0-9_-]+(\.[a-z0-9_-]+)*$`, at most 128 characters; `system.` is Ringback's own. */
  readonly type: string
  readonly description?: string
  readonly input?: Schema<Input>
  /** For schema libraries that give no JSON Schema of their own. */
  readonly inputJsonSchema?: Record<string, unknown>
  readonly result?: Schema<Result>
  readonly timeoutSeconds?: number
  /** How long its tasks are kept after their end; left out: as long as the installation says. */
  readonly retentionSeconds?: number
  readonly retry?: RetryPolicy
  /** At most this many running across all nodes. */
  readonly concurrency?: number
}
export interface TaskDefinition<Input, Result> extends Definition<Input, Result> {
  /** Left out: in the node's own thread. `thread`: in one of its pool, for work that computes; there a handler that ignores its signal is ended. */
  readonly where?: 'thread'
  /**
   * `import.meta.url` of the module that exports this task type: a thread loads it anew, since a function cannot be sent there.
   * `ringback serve` takes its configuration file where it is left out.
   */
  readonly module?: string
  /** Returns the result, throws to be retried, throws `Permanent` to fail now or `Postpone` to wait without spending a try. */
  run(input: Input, context: RunContext): Promise<Result> | Result
}
/** Pulled over HTTP by workers in any language: nothing of it runs here. */
export interface WorkerTaskDefinition<Input, Result> extends Definition<Input, Result> {
  readonly where: 'worker'
}

/** A defined task type, complete: what the registry holds. */
export interface TaskType {
  readonly type: string
  /** Who runs it: the nodes themselves, in their own thread or in one of a pool, or workers that pull its tasks over HTTP. */
  readonly where: 'process' | 'thread' | 'worker'
  readonly description: string
  readonly inputJsonSchema: Record<string, unknown>
  readonly resultJsonSchema: Record<string, unknown> | null
  readonly timeoutSeconds: number
  /** Null: as long as the installation says. */
  readonly retentionSeconds: number | null
  readonly retry: RetryPolicy
  readonly concurrency: number | null
  /** The URL of the module that exports it; null: none was named. */
  readonly module: string | null
  /** @throws RingbackError `validation_failed` with pointers under `#/input`. */
  parseInput(value: unknown): unknown | Promise<unknown>
  /** @throws RingbackError `validation_failed` with pointers under `#/result`. */
  parseResult(value: unknown): unknown | Promise<unknown>
  /** Of a worker's type it is never called. */
  run(input: unknown, context: RunContext): unknown
}
/** A task type with the types of its input and its result, for typed clients. */
export interface TypedTask<Type extends string, Input, Result> extends TaskType, TaskSignature<Type, Input, Result> {
  readonly type: Type
}

const TYPE_NAME = /^[a-z0-9_-]+(\.[a-z0-9_-]+)*$/

/** @throws StartupError when the definition cannot work, saying which member and why. */
export function defineTask<const Type extends string, Input = unknown, Result = unknown>(
  definition: (TaskDefinition<Input, Result> | WorkerTaskDefinition<Input, Result>) & { readonly type: Type },
): TypedTask<Type, Input, Result> {
  const { type, input, result } = definition
  if (!TYPE_NAME.test(type) || type.length > 128)
    throw new StartupError(`task type "${type}" must be dotted lower-case words such as "report.build", at most 128 characters`)
  const timeoutSeconds = definition.timeoutSeconds ?? 3600
  if (!(timeoutSeconds >= 1 && timeoutSeconds <= 604_800))
    throw new StartupError(`task type "${type}" has timeoutSeconds ${timeoutSeconds}; it must be from 1 to 604800`)
  const retentionSeconds = definition.retentionSeconds ?? null
  if (retentionSeconds !== null && !(retentionSeconds >= 60 && retentionSeconds <= 315_360_000))
    throw new StartupError(`task type "${type}" has retentionSeconds ${retentionSeconds}; it must be from 60 to 315360000`)
  const concurrency = definition.concurrency ?? null
  if (concurrency !== null && !(Number.isInteger(concurrency) && concurrency >= 1))
    throw new StartupError(`task type "${type}" has concurrency ${concurrency}; it must be a whole number from 1 up`)
  const where = definition.where ?? 'process'
  const run = 'run' in definition ? definition.run : null
  const module = 'module' in definition ? (definition.module ?? null) : null
  if (where !== 'process' && where !== 'thread' && where !== 'worker')
    throw new StartupError(`task type "${type}" has where ${JSON.stringify(where)}; it must be "thread", "worker" or left out`)
  if (where === 'worker' && run) throw new StartupError(`task type "${type}" is run by workers, so it has no run; leave where or run out`)
  if (where !== 'worker' && !run) throw new StartupError(`task type "${type}" has no run; add one, or where: "worker" if workers run it`)
  if (module !== null && !(where === 'thread' && URL.canParse(module)))
    throw new StartupError(
      `task type "${type}" has module ${JSON.stringify(module)}; it goes with where: "thread" and must be import.meta.url`,
    )
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
      if (!run) throw new Error(`a task of type "${type}", which workers run, was started here`)
      return run.call(definition, value as Input, context)
    },
  })
}

/** The policy as it is called everywhere: apart from its object, and never throwing, since a try that broke must be judged all the same. */
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

/** The input of a task, parsed again before each try, so that a deployment with a narrower schema is seen. Rejected, no later try would do better. */
export async function parseStoredInput(
  task: Pick<Task, 'input' | 'metadata'>,
  type: Pick<TaskType, 'parseInput'>,
): Promise<{ readonly kind: 'parsed'; readonly value: unknown } | { readonly kind: 'rejected'; readonly error: Failure }> {
  const damage = corruptionOf(task)
  if (damage !== null) return { kind: 'rejected', error: damage }
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
      `the ${member} schema of task type "${type}" gives no JSON Schema; add ${member}JsonSchema, or use a library such as zod 4.2 or later`,
    )
  return source.input({ target: 'draft-2020-12' })
}

/** Thrown by a handler: fail now, whatever tries are left. `code` matches `^[a-z0-9_.]{1,64}$`. */
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

/** Thrown by a handler: not now. The task waits and the try is given back. */
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

/** The task types of this node, by name. */
export interface Registry {
  get(type: string): TaskType | undefined
  list(): readonly TaskType[]
}

/** @throws StartupError when two definitions share a name. */
export function createRegistry(types: readonly TaskType[]): Registry {
  const byName = new Map<string, TaskType>()
  for (const type of types) {
    if (byName.has(type.type)) throw new StartupError(`two task types are called "${type.type}"; give one of them another name`)
    byName.set(type.type, type)
  }
  const all = [...byName.values()].sort((a, b) => (a.type < b.type ? -1 : 1))
  return { get: (type) => byName.get(type), list: () => all }
}

/** Task types: how they are defined, what a run is given, and the registry of those this node knows. */
import { type Fault, RingbackError, StartupError } from './errors.ts'
import type { Millis } from './model.ts'

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
type Validated<Output> = { readonly value: Output; readonly issues?: undefined } | { readonly issues: readonly Issue[] }
interface Issue {
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

/** Delays in milliseconds before the second, third… try; the last repeats. */
export interface RetryPolicy {
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

export interface TaskDefinition<Input, Result> {
  /** Dotted name, `^[a-z0-9_-]+(\.[a-z0-9_-]+)*$`, at most 128 characters; `system.` is Ringback's own. */
  readonly type: string
  readonly description?: string
  readonly input?: Schema<Input>
  /** For schema libraries that give no JSON Schema of their own. */
  readonly inputJsonSchema?: Record<string, unknown>
  readonly result?: Schema<Result>
  readonly timeoutSeconds?: number
  readonly retry?: RetryPolicy
  /** At most this many running across all nodes. */
  readonly concurrency?: number
  /** Returns the result, throws to be retried, throws `Permanent` to fail now or `Postpone` to wait without spending a try. */
  run(input: Input, context: RunContext): Promise<Result> | Result
}

/** A defined task type, complete: what the registry holds. */
export interface TaskType {
  readonly type: string
  readonly description: string
  readonly inputJsonSchema: Record<string, unknown>
  readonly resultJsonSchema: Record<string, unknown> | null
  readonly timeoutSeconds: number
  readonly retry: RetryPolicy
  readonly concurrency: number | null
  /** @throws RingbackError `validation_failed` with pointers under `#/input`. */
  parseInput(value: unknown): unknown | Promise<unknown>
  run(input: unknown, context: RunContext): unknown
}
/** A task type that still knows what it takes and gives, for typed clients. */
export interface TypedTask<Type extends string, Input, Result> extends TaskType {
  readonly type: Type
  readonly '~types'?: { readonly input: Input; readonly result: Result }
}

const TYPE_NAME = /^[a-z0-9_-]+(\.[a-z0-9_-]+)*$/

/** @throws StartupError when the definition cannot work, saying which member and why. */
export function defineTask<const Type extends string, Input = unknown, Result = unknown>(
  definition: TaskDefinition<Input, Result> & { readonly type: Type },
): TypedTask<Type, Input, Result> {
  const { type, input, result } = definition
  if (!TYPE_NAME.test(type) || type.length > 128)
    throw new StartupError(`task type "${type}" must be dotted lower-case words such as "report.build", at most 128 characters`)
  const timeoutSeconds = definition.timeoutSeconds ?? 3600
  if (!(timeoutSeconds >= 1 && timeoutSeconds <= 604_800))
    throw new StartupError(`task type "${type}" has timeoutSeconds ${timeoutSeconds}; it must be from 1 to 604800`)
  const concurrency = definition.concurrency ?? null
  if (concurrency !== null && !(Number.isInteger(concurrency) && concurrency >= 1))
    throw new StartupError(`task type "${type}" has concurrency ${concurrency}; it must be a whole number from 1 up`)
  const parseInput = (value: unknown): unknown => {
    if (!input) return value
    const parsed = input['~standard'].validate(value)
    return parsed instanceof Promise ? parsed.then(accept) : accept(parsed)
  }
  return Object.freeze({
    type,
    description: definition.description ?? '',
    inputJsonSchema: definition.inputJsonSchema ?? jsonSchema(type, 'input', input) ?? {},
    resultJsonSchema: result ? (jsonSchema(type, 'result', result) ?? {}) : null,
    timeoutSeconds,
    retry: definition.retry ?? exponential(),
    concurrency,
    parseInput,
    run: (value: unknown, context: RunContext) => definition.run(value as Input, context),
  })
}

function accept(parsed: Validated<unknown>): unknown {
  if (!parsed.issues) return parsed.value
  const errors = parsed.issues.slice(0, 50).map((issue): Fault => ({ pointer: pointer(issue.path), detail: issue.message }))
  throw new RingbackError('validation_failed', 'The input does not fit the schema of its task type.', { errors })
}

function pointer(path: Issue['path'] = []): string {
  const steps = path.map((step) =>
    String(typeof step === 'object' ? step.key : step)
      .replaceAll('~', '~0')
      .replaceAll('/', '~1'),
  )
  return ['#/input', ...steps].join('/')
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

/** From a valid body to new tasks. All refusals of a task happen here, before the 202. */
import { isUnder } from '../../core/callback-url.ts'
import { type Fault, RingbackError } from '../../core/errors.ts'
import { newId } from '../../core/id.ts'
import type { Endpoint, Json, Millis } from '../../core/model.ts'
import type { NewTask } from '../../store/interfaces.ts'
import type { TaskType } from '../../tasks/define.ts'
import type { AppContext } from '../context.ts'
import { parseTraceContext } from '../request/headers.ts'
import { MAX_JSON_DEPTH, scanJson } from '../request/json.ts'
import { validationFailed } from '../request/problem.ts'
import type { ApiCall } from '../request/route.ts'
import type { CreateTask } from '../shapes/tasks.ts'
import { checkCallbackUrl, listAllEndpoints } from './endpoint-document.ts'

/** The pointer of the body: `#` or `#/tasks/3`. */
type PointerRoot = string

/** @throws RingbackError 422, with pointers */
export function toNewTask(context: AppContext, call: ApiCall, clientId: string, body: CreateTask): NewTask | Promise<NewTask> {
  return plan(context, call, clientId, body, rawInput(call, body.input), null, '#')
}

/** @throws RingbackError `validation_failed` for a body that nests too deep to be serialized by recursion */
export function checkJsonDepth(call: ApiCall): void {
  scanBody(call, 0)
}
/** The member `input` of the body, as written. */
export const rawInput = (call: ApiCall, input: unknown): Json => rawMember(call, 'input', input)
/** A member of the body, as written. */
export function rawMember(call: ApiCall, member: string, value: unknown): Json {
  const { values } = scanBody(call, 1, member)
  return values.length === 1 ? (values[0] as Json) : JSON.stringify(value)
}

/** The tasks of a batch. Throws with the faults of all items, 50 at most. */
export async function toNewTasks(context: AppContext, call: ApiCall, clientId: string, bodies: readonly CreateTask[]): Promise<NewTask[]> {
  const { values } = scanBody(call, 3)
  const batchId = newId(context.clock, 'batch')
  const tasks: NewTask[] = []
  const faults: Fault[] = []
  for (const [index, body] of bodies.entries()) {
    const input = values.length === bodies.length ? (values[index] as Json) : JSON.stringify(body.input)
    try {
      tasks.push(await plan(context, call, clientId, body, input, batchId, `#/tasks/${index}`))
    } catch (error) {
      if (!(error instanceof RingbackError) || error.code !== 'validation_failed') throw error
      faults.push(...error.errors)
    }
  }
  if (faults.length > 0) throw validationFailed(faults.slice(0, 50))
  return tasks
}

/**
 * The values of a member, as written. Callers use them only if there are as many as expected: the schema has checked that each object has the
 * member, so equal counts prove that none has it twice.
 */
function scanBody(call: ApiCall, level: number, member = 'input'): { values: readonly string[] } {
  const scanned = scanJson(call.text, member, level)
  if (scanned.depth > MAX_JSON_DEPTH)
    throw validationFailed([{ pointer: '#', detail: `nests ${scanned.depth} levels deep; ${MAX_JSON_DEPTH} is the maximum` }])
  return scanned
}

/** Synchronous if the task has no callback of its own and the schema of its type is synchronous. */
function plan(
  context: AppContext,
  call: ApiCall,
  clientId: string,
  body: CreateTask,
  input: Json,
  batchId: string | null,
  root: PointerRoot,
): NewTask | Promise<NewTask> {
  const type = requireTaskType(context, body.type, root)
  const checked = validateInput(type, body.input, root)
  const times = planTimes(body, call.receivedAt, root)
  const trace = parseTraceContext(call.header('traceparent'), call.header('tracestate'))
  const write = (callback: Json | null): NewTask => ({
    id: newId(context.clock, 'task'),
    clientId,
    type: body.type,
    input,
    metadata: body.metadata ? JSON.stringify(body.metadata) : '{}',
    callback,
    dueAt: times.dueAt,
    startBy: times.startBy,
    deadlineAt: times.deadlineAt,
    timeoutSeconds: body.timeoutSeconds ?? type.timeoutSeconds,
    maxTries: body.maxTries ?? type.retry.tries,
    priority: body.priority ?? 0,
    concurrencyKey: body.concurrencyKey ?? null,
    batchId,
    traceparent: trace.traceparent,
    tracestate: trace.tracestate,
  })
  const { callback } = body
  if (checked === undefined && !callback) return write(callback === null ? null : '{}')
  return Promise.resolve(checked).then(async () =>
    write(callback ? await toStoredCallback(context, clientId, callback, root) : callback === null ? null : '{}'),
  )
}

/** @throws RingbackError `task_type_not_found` */
export function requireTaskType(context: AppContext, name: string, root: PointerRoot): TaskType {
  const type = name.startsWith('system.') ? undefined : context.registry.get(name)
  if (type) return type
  throw new RingbackError('task_type_not_found', `There is no task type "${name}"; GET /v1/task-types lists the task types.`, {
    errors: [{ pointer: `${root}/type`, detail: 'names no task type' }],
  })
}

export function validateInput(type: TaskType, input: unknown, root: PointerRoot): Promise<void> | undefined {
  try {
    const parsed = type.parseInput(input)
    if (parsed instanceof Promise)
      return parsed.then(
        () => {},
        (error) => rethrowAt(error, root),
      )
    return undefined
  } catch (error) {
    return rethrowAt(error, root)
  }
}

/** Schema faults point to `#/input`. In a batch they point into the item. */
function rethrowAt(error: unknown, root: PointerRoot): never {
  if (!(error instanceof RingbackError) || root === '#') throw error
  throw new RingbackError(error.code, error.message, {
    errors: error.errors.map((fault) => ({ ...fault, pointer: root + fault.pointer.slice(1) })),
  })
}

/** @throws RingbackError `validation_failed` for times that have passed or contradict each other */
function planTimes(body: CreateTask, now: Millis, root: PointerRoot): Pick<NewTask, 'dueAt' | 'startBy' | 'deadlineAt'> {
  const { runAt = null, delaySeconds = null, startBy = null, deadlineAt = null } = body
  if (runAt === null && delaySeconds === null && startBy === null && deadlineAt === null) return START_NOW
  const faults: Fault[] = []
  const fault = (member: string, detail: string): void => void faults.push({ pointer: `${root}/${member}`, detail })
  if (runAt !== null && delaySeconds !== null) fault('delaySeconds', 'cannot be given together with runAt')
  if (runAt !== null && runAt < now) fault('runAt', 'has passed')
  const dueAt = runAt ?? (delaySeconds === null ? null : now + Math.round(delaySeconds * 1000))
  const start = dueAt ?? now
  if (startBy !== null && startBy <= now) fault('startBy', 'has passed')
  else if (startBy !== null && startBy < start) fault('startBy', 'is before the task may start')
  if (deadlineAt !== null && deadlineAt <= now) fault('deadlineAt', 'has passed')
  else if (deadlineAt !== null && deadlineAt <= start) fault('deadlineAt', 'is not after the task may start')
  if (faults.length > 0) throw validationFailed(faults)
  return { dueAt, startBy, deadlineAt }
}

const START_NOW = { dueAt: null, startBy: null, deadlineAt: null }

export type CallbackBody = NonNullable<CreateTask['callback']>

/** The stored callback. A URL of its own belongs to the endpoint that it is under. */
export async function toStoredCallback(context: AppContext, clientId: string, body: CallbackBody, root: PointerRoot): Promise<Json> {
  const { events, retrySchedule } = body
  const endpointId = await planTarget(context, clientId, body, `${root}/callback`)
  return JSON.stringify({ endpointId, url: body.url, events, retrySchedule })
}

async function planTarget(context: AppContext, clientId: string, body: CallbackBody, root: PointerRoot): Promise<string | undefined> {
  const unknown = (): RingbackError => validationFailed([{ pointer: `${root}/endpointId`, detail: 'names none of your endpoints' }])
  if (body.endpointId !== undefined && body.url === undefined) {
    if (body.endpointId.includes('\0') || !(await context.endpointOwners.owns(clientId, body.endpointId))) throw unknown()
    return body.endpointId
  }
  let named: Endpoint | null = null
  if (body.endpointId !== undefined) {
    named = body.endpointId.includes('\0') ? null : await context.store.endpoints.find(body.endpointId, clientId)
    if (!named) throw unknown()
  }
  if (body.url === undefined) return undefined
  const url = checkCallbackUrl(context, body.url, `${root}/url`)
  const candidates = named ? [named] : await listAllEndpoints(context, clientId)
  const parents = candidates.filter((endpoint) => endpoint.verifiedAt !== null && isUnder(url.href, endpoint.url))
  // The endpoint with the longest path is the closest.
  const [closest] = parents.sort((a, b) => new URL(b.url).pathname.length - new URL(a.url).pathname.length)
  if (closest) return closest.id
  throw new RingbackError(
    'callback_url_not_verified',
    'The callback URL is under none of your verified endpoints: it must have the origin and the path of one, on whole segments.',
    { errors: [{ pointer: `${root}/url`, detail: 'is under no verified endpoint' }] },
  )
}

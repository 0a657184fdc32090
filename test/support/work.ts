/** Complete clients, endpoints and tasks for tests. */
import { systemClock } from '../../src/core/clock.ts'
import { type IdPrefix, newId } from '../../src/core/id.ts'
import type { Callback, Failure, Task } from '../../src/core/model.ts'
import type { OpenTaskBudget } from '../../src/engine/open-tasks.ts'
import type {
  AddResult,
  ClaimOptions,
  DeliverySettlement,
  EndpointInsert,
  NewTask,
  OwedDelivery,
  Settlement,
  Store,
} from '../../src/store/interfaces.ts'

const clock = systemClock()
export const idOf = (prefix: IdPrefix): string => newId(clock, prefix)

export const newTask = (given: Omit<Partial<NewTask>, 'callback'> & { clientId: string; callback?: Callback | null }): NewTask => ({
  id: idOf('task'),
  type: 'report.build',
  input: '{"month":"2026-11"}',
  metadata: '{}',
  dueAt: null,
  startBy: null,
  deadlineAt: null,
  timeoutSeconds: 60,
  maxTries: 5,
  priority: 0,
  concurrencyKey: null,
  batchId: null,
  traceparent: null,
  tracestate: null,
  ...given,
  callback: given.callback === null ? null : JSON.stringify(given.callback ?? {}),
})

export const newEndpoint = (given: Partial<EndpointInsert> & { clientId: string }): EndpointInsert => {
  const id = idOf('endpoint')
  return {
    id,
    url: `https://receiver.example/${id}`,
    description: '',
    events: '["task.completed","task.failed","task.canceled"]',
    taskTypes: '["*"]',
    headers: null,
    headerNames: '[]',
    format: 'standard',
    payload: 'full',
    maxPerMinute: null,
    maxInFlight: 100,
    retrySchedule: null,
    secret: 'sealed',
    secretHint: 'abcd',
    verification: 'none',
    verified: true,
    ...given,
  }
}

export async function addClient(store: Store, name = 'Client'): Promise<string> {
  const id = idOf('client')
  await store.access.addClient({ client: { id, name } })
  return id
}
export async function addEndpoint(store: Store, given: Partial<EndpointInsert> & { clientId: string }): Promise<string> {
  return added(await store.endpoints.add({ endpoint: newEndpoint(given), max: MANY })).id
}
/** Room for every task. */
export const ROOM: OpenTaskBudget = { reserve: async (_, wanted) => wanted, isFull: async () => false }
/** More than any test gives a client. */
export const MANY = 1_000_000
export function added<T>(answer: AddResult<T>): T {
  if (answer.kind !== 'added') throw new Error(`it was not added: ${answer.kind}`)
  return answer.value
}
export async function addTask(store: Store, given: Parameters<typeof newTask>[0]): Promise<Task> {
  const submitted = await store.tasks.add({ tasks: [newTask(given)], idempotency: null })
  if (submitted.kind !== 'added') throw new Error(`the task was ${submitted.kind}`)
  return submitted.tasks[0]!
}
/** As many like it, in one request. */
export async function addTasks(store: Store, count: number, given: Parameters<typeof newTask>[0]): Promise<readonly Task[]> {
  const submitted = await store.tasks.add({ tasks: Array.from({ length: count }, () => newTask(given)), idempotency: null })
  if (submitted.kind !== 'added') throw new Error(`the tasks were ${submitted.kind}`)
  return submitted.tasks
}

export const LEASE_MS = 30_000
export const claim = (given: Partial<ClaimOptions> = {}): ClaimOptions => ({ limit: 100, leaseMs: LEASE_MS, leasedBy: 'boot_a', ...given })
/** Claims tasks of these types, without a limit across nodes. */
export async function claimTasks(
  store: Store,
  given: Partial<ClaimOptions> = {},
  types: readonly string[] = ['report.build'],
): Promise<readonly Task[]> {
  const { items } = await store.tasks.claim({ ...claim(given), types: types.map((type) => ({ type, concurrency: null })) })
  return items
}
export async function claimOne(store: Store, given: Partial<ClaimOptions> = {}, types?: readonly string[]): Promise<Task> {
  const [task] = await claimTasks(store, { limit: 1, ...given }, types)
  if (!task) throw new Error('nothing was claimable')
  return task
}
export const claimDeliveries = async (store: Store, given: Partial<ClaimOptions> = {}): Promise<readonly OwedDelivery[]> =>
  (await store.deliveries.claim(claim(given))).items

export async function findTask(store: Store, id: string): Promise<Task> {
  const found = await store.tasks.find(id, null)
  if (found.kind !== 'found') throw new Error(`the task is ${found.kind}`)
  return found.value
}

type Leased = { readonly id: string; readonly fence: number }
const failure: Failure = { code: 'handler_error', message: 'it broke', details: null }
export const completed = ({ id, fence }: Leased, result = '{"rows":1}'): Settlement => ({
  id,
  fence,
  outcome: { kind: 'complete', result },
})
export const failed = ({ id, fence }: Leased, error: Failure = failure): Settlement => ({ id, fence, outcome: { kind: 'fail', error } })
export const released = ({ id, fence }: Leased, delayMs = 0): Settlement => ({ id, fence, outcome: { kind: 'release', delayMs } })
export const retried = ({ id, fence }: Leased, delayMs = 0): Settlement => ({
  id,
  fence,
  outcome: { kind: 'retry', delayMs, error: { code: 'handler_error', message: 'it broke', try: 1, at: '2026-11-22T10:00:00.000Z' } },
})

const attempt = {
  startedAt: 1,
  durationMs: 0,
  httpStatus: 200,
  error: null,
  timings: '{}',
  keyId: null,
  retryAfterSeconds: null,
  responseHeaders: '{}',
  responseExcerpt: null,
  remoteAddress: null,
} as const
type Sending = Leased & { readonly endpointId: string }
const sent = (
  { id, fence, endpointId }: Sending,
  outcome: DeliverySettlement['outcome'],
  succeeded: boolean,
  endpoint: Partial<DeliverySettlement['endpoint']> = {},
): DeliverySettlement => ({
  id,
  fence,
  outcome,
  attempt: { ...attempt, outcome: succeeded ? 'success' : 'http_error', httpStatus: succeeded ? 200 : 500 },
  endpoint: { id: endpointId, url: null, signal: succeeded ? 'success' : 'failure', succeeded, disable: null, holdMs: null, ...endpoint },
})
export const delivered = (sending: Sending): DeliverySettlement => sent(sending, { kind: 'complete', result: null }, true)
export const undelivered = (sending: Sending, delayMs = 0, endpoint: Partial<DeliverySettlement['endpoint']> = {}): DeliverySettlement =>
  sent(sending, { kind: 'retry', delayMs, error: null }, false, endpoint)
export const undeliverable = (sending: Sending, endpoint: Partial<DeliverySettlement['endpoint']> = {}): DeliverySettlement =>
  sent(sending, { kind: 'fail', error: failure }, false, endpoint)

/** What scripts need to render, where nothing of it is looked at. */
export const view = {
  publicUrl: () => '',
  retrySchedule: [5],
  newId: idOf,
  newChallenge: () => '',
  onCorruption: () => {},
  limitedQueues: new Set<string>(),
  retentionMs: () => 7 * 86_400_000,
}

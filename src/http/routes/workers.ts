/** Workers over HTTP: they claim tasks, renew leases with heartbeats, and report the end of each try. Every call except the claim sends its lease. */
import type { z } from '@hono/zod-openapi'
import { RingbackError } from '../../core/errors.ts'
import { decideOutcome, evaluateTimeLimits, RESULT_LIMIT_BYTES, resultTooLarge, type TryResult } from '../../core/lifecycle.ts'
import { type Json, type Task, WORKER_PREFIX } from '../../core/model.ts'
import type { LeaseEnd, LeaseRef, TaskClaimOptions } from '../../store/interfaces.ts'
import { exponential, parseStoredInput } from '../../tasks/define.ts'
import type { Registry } from '../../tasks/registry.ts'
import { type AppContext, idParam, recheckScope } from '../context.ts'
import { workerExamples as examples } from '../openapi/examples/workers.ts'
import type { Caller } from '../request/auth.ts'
import { createLeaseTokens, type LeaseTokens } from '../request/lease-token.ts'
import { type ApiReply, validationFailed } from '../request/problem.ts'
import { jsonReply, notFound, toTimestamp, toTimestampOrNull, unwrapFound } from '../request/replies.ts'
import { type ApiCall, type NamedExample, type ResponseSpec, type Route, response, route } from '../request/route.ts'
import * as shapes from '../shapes/workers.ts'
import { checkJsonDepth, rawMember } from './create-tasks.ts'

/** Results up to twice the limit are read, so that the task can fail with `result_too_large`. Larger bodies get 413. */
const COMPLETE_LIMIT_BYTES = 2 * RESULT_LIMIT_BYTES

export function workerRoutes(context: AppContext): Route[] {
  const tokens = createLeaseTokens(context)
  const common = { tag: 'Workers', scope: 'worker' } as const
  return [
    route.post('/v1/worker/claim', 'claimTasks', {
      ...common,
      summary: 'Claim tasks to run, or wait for them',
      description:
        'Answers as soon as there is a task, after `waitSeconds` at the latest. If the caller disconnects before the answer, the tasks are released.',
      body: shapes.claimTasks,
      bodyExamples: [examples.claimTasks],
      responses: {
        200: response('The tasks, each with its lease. Empty when the time is over.', shapes.claimedTasks, [examples.claimedTasks]),
      },
      errorCodes: ['task_type_not_found', 'temporary_reduced_capacity'],
      async handle(call, { body }) {
        const types = claimable(context.registry, call.caller, body.types)
        const leasedBy = WORKER_PREFIX + (call.caller.keyId ?? 'operator')
        const { signal } = call.request
        const taken = await context.claims.claim({ types, limit: body.limit, leasedBy }, body.waitSeconds * 1000, signal)
        if (taken.length === 0) return claimReply(context, tokens, taken)
        // The tasks of a caller who disconnects before the last byte are released.
        const release = (): void => context.claims.release(taken)
        try {
          await recheckScope(context, call, 'worker')
          const reply = await claimReply(context, tokens, taken)
          if (signal.aborted) release()
          else signal.addEventListener('abort', release, { once: true })
          return reply
        } catch (error) {
          release()
          throw error
        }
      },
    }),
    leaseRoute(context, tokens, {
      verb: 'heartbeat',
      summary: 'Renew a lease, and report progress',
      description: 'Renews the lease, but not beyond `timeoutSeconds` of the try or `deadlineAt` of the task.',
      body: shapes.heartbeat,
      bodyExamples: [examples.heartbeat],
      response: response('The renewed lease.', shapes.leaseKept, [examples.leaseKept]),
      async handle(body, lease) {
        if (!lease.holds) throw lost()
        const { task, now } = lease
        const times = [context.leaseMs, task.startedAt! + task.timeoutSeconds * 1000 - now, (task.deadlineAt ?? Infinity) - now]
        const leaseMs = Math.min(...times)
        context.claims.touchTypes([task.type])
        const [renewal] = await context.store.maintenance.renew({ kind: 'task', leases: [lease], leaseMs })
        if (!renewal?.renewed) throw lost()
        if (body.progress != null || body.message != null) {
          const { progress, message } = body
          const report = { progress: Math.min(99.9, progress ?? 0), message: message == null ? task.progressMessage : plain(message, 500) }
          const reported = await context.store.tasks.reportProgress({ ...held(lease), ...report, notify: true })
          if (reported.kind === 'stale') throw lost()
        }
        const kept = { leaseExpiresAt: toTimestamp(now + leaseMs), leaseSeconds: leaseMs / 1000 }
        return jsonReply(200, { ...kept, cancelRequested: renewal.cancelRequested })
      },
    }),
    leaseRoute(context, tokens, {
      verb: 'complete',
      summary: 'Complete a task with its result',
      description:
        'The result must fit the schema of the type, otherwise 422 (the lease stays). A result above 8 MiB fails the task with `result_too_large`.',
      body: shapes.completeTask,
      bodyExamples: [examples.completeTask],
      bodyLimitBytes: COMPLETE_LIMIT_BYTES,
      response: ENDED,
      async handle(body, lease, call) {
        return end(context, lease, 'complete', async () => {
          const result: Json = rawMember(call, 'result', body.result)
          if (Buffer.byteLength(result) > RESULT_LIMIT_BYTES) return resultTooLarge
          await context.registry.get(lease.task.type)?.parseResult(body.result)
          return { kind: 'returned', result }
        })
      },
    }),
    leaseRoute(context, tokens, {
      verb: 'fail',
      summary: 'Fail a try',
      description:
        'Unless `retryable` is false, the retry policy of the type decides on the next try, after `retryAfterSeconds` at the earliest.',
      body: shapes.failTask,
      bodyExamples: [examples.failTask],
      response: ENDED,
      handle({ error, retryable, retryAfterSeconds }, lease, call) {
        checkJsonDepth(call)
        return end(context, lease, 'fail', () => ({
          kind: 'threw',
          permanent: !(retryable ?? true),
          error: { code: error.code ?? 'handler_error', message: plain(error.message, 2_000), details: error.details ?? null },
          notBeforeMs: retryAfterSeconds == null ? null : retryAfterSeconds * 1000,
        }))
      },
    }),
    leaseRoute(context, tokens, {
      verb: 'release',
      summary: 'Release a task. The try does not count',
      description: 'For a worker that stops. With `delaySeconds`: for a task that must wait.',
      body: shapes.releaseTask,
      bodyExamples: [examples.releaseTask],
      response: ENDED,
      handle: ({ delaySeconds }, lease) =>
        end(context, lease, 'release', () => ({ kind: 'postponed', delayMs: (delaySeconds ?? 0) * 1000 })),
    }),
  ]
}

const ENDED = response('The lease has ended, now or in an earlier call.', shapes.leaseEnded, [examples.leaseEnded])

/** Task types in the form that the store claims. @throws RingbackError `insufficient_scope`, `task_type_not_found`, `validation_failed` */
function claimable(registry: Registry, { taskTypes }: Caller, names: readonly string[]): TaskClaimOptions['types'] {
  const types = names.map((name, index) => {
    const pointer = `#/types/${index}`
    if (taskTypes !== null && !taskTypes.includes(name))
      throw new RingbackError('insufficient_scope', `The key is not for tasks of type "${name}"; it claims ${taskTypes.join(', ')}.`, {
        headers: { 'WWW-Authenticate': 'Bearer realm="ringback", error="insufficient_scope", scope="worker"' },
        errors: [{ pointer, detail: 'may not be claimed with this key' }],
      })
    const type = registry.get(name)
    if (!type || name.startsWith('system.'))
      throw new RingbackError('task_type_not_found', `There is no task type "${name}" on this node.`, {
        errors: [{ pointer, detail: 'names no task type' }],
      })
    if (type.where !== 'worker')
      throw validationFailed([{ pointer, detail: 'is run by the nodes: it is not declared with where: "worker"' }])
    return { type: name, concurrency: type.concurrency }
  })
  const byName = new Map(types.map((type) => [type.type, type]))
  return [...byName.values()].sort((a, b) => (a.type < b.type ? -1 : 1))
}

/** The claimed tasks. A task whose input no longer fits the schema fails here. */
async function claimReply(context: AppContext, tokens: LeaseTokens, taken: readonly Task[]): Promise<ApiReply> {
  const documents = await Promise.all(
    taken.map(async (task) => {
      const input = await parseStoredInput(task, context.registry.get(task.type)!)
      if (input.kind === 'parsed') return toClaimedTaskDocument(task, await tokens.issue(task.id, task.fence))
      await settle(context, task, { kind: 'threw', permanent: true, error: input.error })
      return null
    }),
  )
  const tasks = documents.filter((text) => text !== null)
  return {
    status: 200,
    headers: { 'Content-Type': 'application/json', 'Cache-Control': 'no-store' },
    body: `{"tasks":[${tasks.join(',')}]}`,
  }
}

function toClaimedTaskDocument(task: Task, token: string): string {
  const { id, type, clientId, tries, maxTries, generation, fence, deadlineAt, timeoutSeconds, traceparent, tracestate } = task
  // The time limits of the task may end before its lease.
  const { startedAt, leasedUntil } = task
  const expiresAt = Math.min(leasedUntil!, startedAt! + timeoutSeconds * 1000, deadlineAt ?? Infinity)
  const lease = { token, expiresAt: toTimestamp(expiresAt), seconds: Math.max(0, expiresAt - startedAt!) / 1000 }
  const rest = {
    id,
    type,
    clientId,
    try: tries,
    maxTries,
    generation,
    fence,
    lease,
    deadlineAt: toTimestampOrNull(deadlineAt),
    timeoutSeconds,
  }
  const text = JSON.stringify({ ...rest, traceparent, tracestate })
  // The input as written.
  return `${text.slice(0, -1)},"input":${task.input},"metadata":${task.metadata}}`
}

/** The lease of a request, and the task as it is now. */
interface PresentedLease extends LeaseRef {
  readonly task: Task
  /** The store's clock. */
  readonly now: number
  /** Whether the task runs under this lease. */
  readonly holds: boolean
}
const held = ({ id, fence }: LeaseRef): LeaseRef => ({ id, fence })

interface LeaseShape<Body> {
  readonly verb: LeaseEnd | 'heartbeat'
  readonly summary: string
  readonly description: string
  readonly body: Body
  readonly bodyExamples: readonly NamedExample[]
  readonly bodyLimitBytes?: number
  readonly response: ResponseSpec
}

/** A route that takes a lease. A try whose time limits have passed ends here, whatever the request reports. */
function leaseRoute<Body extends z.ZodType<{ readonly lease: string }>>(
  context: AppContext,
  tokens: LeaseTokens,
  shape: LeaseShape<Body> & { handle(body: z.output<Body>, lease: PresentedLease, call: ApiCall): Promise<ApiReply> },
): Route {
  const { verb, response, handle, ...rest } = shape
  return route.post(`/v1/worker/tasks/{id}/${verb}`, `${verb}Task`, {
    ...rest,
    tag: 'Workers',
    scope: 'worker',
    responses: { 200: response },
    errorCodes: ['task_expired', 'lease_lost'],
    async find(call) {
      const [now, found] = await Promise.all([context.store.now(), context.store.tasks.find(idParam(call, 'task'), null)])
      const task = unwrapFound(found, 'task')
      const { taskTypes } = call.caller
      if (taskTypes !== null && !taskTypes.includes(task.type)) throw notFound('task')
      return { now, task }
    },
    async handle(call, { body, found }) {
      const { task, now } = found
      const fence = await tokens.verify(task.id, body.lease)
      if (fence === null)
        throw validationFailed([{ pointer: '#/lease', detail: 'is no lease of this task; send the lease.token of the claim' }])
      const holds = task.state === 'running' && task.fence === fence
      const late = holds ? evaluateTimeLimits(task, now) : null
      if (late) {
        await settle(context, task, late)
        throw lost()
      }
      return handle(body, { id: task.id, fence, task, now, holds }, call)
    },
  })
}

/** Ends a lease, or finds that an earlier call ended it in the same way. @throws RingbackError `lease_lost` */
async function end(
  context: AppContext,
  lease: PresentedLease,
  as: LeaseEnd,
  getResult: () => TryResult | Promise<TryResult>,
): Promise<ApiReply> {
  const settled = lease.holds ? await settle(context, lease.task, await getResult(), as) : null
  const task = settled ?? (await context.store.tasks.findEnded(held(lease), as))
  if (task === null) throw lost()
  return jsonReply(200, { status: task.state })
}

/** The settled task. Null: the lease was lost. */
async function settle(context: AppContext, task: Task, ended: TryResult, as?: LeaseEnd): Promise<Task | null> {
  const { clock, store, registry, events } = context
  const outcome = decideOutcome(task, ended, (registry.get(task.type)?.retry ?? exponential()).delayMs, clock)
  const settled = await store.tasks.settle({ id: task.id, fence: task.fence, outcome, ...(as && { endedAs: as }) })
  if (settled.kind === 'stale') return null
  const { value } = settled
  const errorCode = 'error' in outcome ? (outcome.error?.code ?? null) : null
  const durationMs = Math.max(0, value.updatedAt - task.startedAt!)
  events.emit('task.run', { task, outcome: value.state, durationMs, waitMs: Math.max(0, task.startedAt! - task.dueAt), errorCode })
  return value
}

const lost = (): RingbackError =>
  new RingbackError('lease_lost', 'The lease has ended, or the task was settled otherwise; drop the task: another worker may have it.')

/** Text that every store accepts, cut to `max` characters. */
const plain = (text: string, max: number): string => text.slice(0, max).replaceAll('\0', '\ufffd').toWellFormed()

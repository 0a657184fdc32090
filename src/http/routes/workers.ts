/** Workers over HTTP: they pull tasks, keep their leases by heartbeats, and say how each try ended. Every call but the claim presents its lease. */
import type { z } from '@hono/zod-openapi'
import { RingbackError } from '../../core/errors.ts'
import { decideOutcome, evaluateTimeLimits, RESULT_LIMIT_BYTES, resultTooLarge, type TryResult } from '../../core/lifecycle.ts'
import { type Json, type Task, WORKER_PREFIX } from '../../core/model.ts'
import type { LeaseEnd, LeaseRef, TaskClaimOptions } from '../../store/interfaces.ts'
import { exponential, parseStoredInput, type Registry } from '../../tasks/define.ts'
import { type AppContext, idParam, jsonReply, notFound, toTimestamp, toTimestampOrNull, unwrapFound } from '../context.ts'
import type { Caller } from '../request/auth.ts'
import { createLeaseTokens, type LeaseTokens } from '../request/lease-token.ts'
import { type ApiReply, validationFailed } from '../request/problem.ts'
import { type ApiCall, type Route, route } from '../request/route.ts'
import * as shapes from '../shapes/index.ts'
import { checkJsonDepth, rawMember } from './create-tasks.ts'

/** A result that is too large is read, so that the task can fail for it; what is over twice as large is refused unread. */
const COMPLETE_LIMIT_BYTES = 2 * RESULT_LIMIT_BYTES

export function workerRoutes(context: AppContext): Route[] {
  const tokens = createLeaseTokens(context)
  const common = { tag: 'Workers', scope: 'worker', method: 'post' } as const
  return [
    route(
      {
        ...common,
        path: '/v1/worker/claim',
        name: 'claimTasks',
        summary: 'Claim tasks to run, or wait for some',
        description:
          'Answers as soon as there is a task, at the latest after `waitSeconds`. A claim whose caller hung up before it was answered is given back.',
        body: shapes.claimTasks,
        responses: { 200: { description: 'The tasks, each with its lease; none when the time was over.', schema: shapes.claimedTasks } },
        errorCodes: ['task_type_not_found', 'temporary_reduced_capacity'],
      },
      {
        async handle(call, { body }) {
          const types = claimable(context.registry, call.caller, body.types)
          const by = WORKER_PREFIX + (call.caller.keyId ?? 'operator')
          const hungUp = call.request.signal
          const taken = await context.claims.claim({ types, limit: body.limit, leasedBy: by }, body.waitSeconds * 1000, hungUp)
          if (taken.length === 0) return claimReply(context, tokens, taken)
          // What was taken for somebody who is gone goes back, until the last byte has left.
          const giveBack = (): void => context.claims.release(taken)
          try {
            // The key may have been revoked while it waited.
            await context.authenticator.authenticate(call.header('authorization'), context.clock.now())
            const reply = await claimReply(context, tokens, taken)
            if (hungUp.aborted) giveBack()
            else hungUp.addEventListener('abort', giveBack, { once: true })
            return reply
          } catch (error) {
            giveBack()
            throw error
          }
        },
      },
    ),
    leaseRoute(context, tokens, {
      verb: 'heartbeat',
      summary: 'Keep a lease, and report progress',
      description: 'Renews the lease, but not beyond the end of the try’s `timeoutSeconds` or the task’s `deadlineAt`.',
      body: shapes.heartbeat,
      answer: { description: 'The lease is kept.', schema: shapes.leaseKept },
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
        'The result must fit the schema of the type (422, and the lease goes on). One over 8 MiB fails the task with `result_too_large`.',
      body: shapes.completeTask,
      bodyLimitBytes: COMPLETE_LIMIT_BYTES,
      answer: ENDED,
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
      summary: 'Say that a try failed',
      description:
        'It is tried again by the retry policy of its type, and not sooner than `retryAfterSeconds`, unless `retryable` is false.',
      body: shapes.failTask,
      answer: ENDED,
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
      summary: 'Give a task back, and its try',
      description: 'For a worker that stops, and, with `delaySeconds`, for a task that must wait.',
      body: shapes.releaseTask,
      answer: ENDED,
      handle: ({ delaySeconds }, lease) =>
        end(context, lease, 'release', () => ({ kind: 'postponed', delayMs: (delaySeconds ?? 0) * 1000 })),
    }),
  ]
}

const ENDED = { description: 'The lease has ended so; this time, or when it was said before.', schema: shapes.leaseEnded }

/** Types as the store claims them. @throws RingbackError `insufficient_scope`, `task_type_not_found`, `validation_failed` */
function claimable(registry: Registry, { taskTypes }: Caller, names: readonly string[]): TaskClaimOptions['types'] {
  const types = names.map((name, index) => {
    const pointer = `#/types/${index}`
    if (taskTypes !== null && !taskTypes.includes(name))
      throw new RingbackError('insufficient_scope', `The key is not for tasks of type "${name}"; it claims ${taskTypes.join(', ')}.`, {
        headers: { 'WWW-Authenticate': 'Bearer realm="ringback", error="insufficient_scope", scope="worker"' },
        errors: [{ pointer, detail: 'is no type that this key may claim' }],
      })
    const type = registry.get(name)
    if (!type || name.startsWith('system.'))
      throw new RingbackError('task_type_not_found', `There is no task type "${name}" on this node.`, {
        errors: [{ pointer, detail: 'names no task type' }],
      })
    if (type.where !== 'worker')
      throw validationFailed([{ pointer, detail: 'is run by the nodes themselves: it is not declared where: "worker"' }])
    return { type: name, concurrency: type.concurrency }
  })
  const byName = new Map(types.map((type) => [type.type, type]))
  return [...byName.values()].sort((a, b) => (a.type < b.type ? -1 : 1))
}

/** The tasks that may be run; an input that no longer fits its schema ends its task here. */
async function claimReply(context: AppContext, tokens: LeaseTokens, taken: readonly Task[]): Promise<ApiReply> {
  const shown = await Promise.all(
    taken.map(async (task) => {
      const input = await parseStoredInput(task, context.registry.get(task.type)!)
      if (input.kind === 'parsed') return toClaimedTaskDocument(task, await tokens.issue(task.id, task.fence))
      await settle(context, task, { kind: 'threw', permanent: true, error: input.error })
      return null
    }),
  )
  const tasks = shown.filter((text) => text !== null)
  return {
    status: 200,
    headers: { 'Content-Type': 'application/json', 'Cache-Control': 'no-store' },
    body: `{"tasks":[${tasks.join(',')}]}`,
  }
}

function toClaimedTaskDocument(task: Task, token: string): string {
  const { id, type, clientId, tries, maxTries, generation, fence, deadlineAt, timeoutSeconds, traceparent, tracestate } = task
  // Its times may end before its lease does.
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
  // The input as it was sent.
  return `${text.slice(0, -1)},"input":${task.input},"metadata":${task.metadata}}`
}

/** A lease as it was presented, beside the task as it is. */
interface PresentedLease extends LeaseRef {
  readonly task: Task
  /** The store's clock. */
  readonly now: number
  /** Whether it is the lease under which the task runs. */
  readonly holds: boolean
}
const held = ({ id, fence }: LeaseRef): LeaseRef => ({ id, fence })

interface LeaseShape<Body> {
  readonly verb: LeaseEnd | 'heartbeat'
  readonly summary: string
  readonly description: string
  readonly body: Body
  readonly bodyLimitBytes?: number
  readonly answer: { readonly description: string; readonly schema: z.ZodType }
}

/** A route that presents a lease. A try whose own time is over ends here, whatever was to be said of it. */
function leaseRoute<Body extends z.ZodType<{ readonly lease: string }>>(
  context: AppContext,
  tokens: LeaseTokens,
  shape: LeaseShape<Body> & { handle(body: z.output<Body>, lease: PresentedLease, call: ApiCall): Promise<ApiReply> },
): Route {
  const { verb, answer, handle, ...rest } = shape
  return route(
    {
      ...rest,
      tag: 'Workers',
      scope: 'worker',
      method: 'post',
      path: `/v1/worker/tasks/{id}/${verb}`,
      name: `${verb}Task`,
      responses: { 200: answer },
      errorCodes: ['task_expired', 'lease_lost'],
    },
    {
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
          throw validationFailed([{ pointer: '#/lease', detail: 'is no lease of this task; send lease.token as the claim gave it' }])
        const holds = task.state === 'running' && task.fence === fence
        const late = holds ? evaluateTimeLimits(task, now) : null
        if (late) {
          await settle(context, task, late)
          throw lost()
        }
        return handle(body, { id: task.id, fence, task, now, holds }, call)
      },
    },
  )
}

/** Ends a lease, or knows that it was ended so before. @throws RingbackError `lease_lost` */
async function end(
  context: AppContext,
  lease: PresentedLease,
  as: LeaseEnd,
  judge: () => TryResult | Promise<TryResult>,
): Promise<ApiReply> {
  const settled = lease.holds ? await settle(context, lease.task, await judge(), as) : null
  const task = settled ?? (await context.store.tasks.findEnded(held(lease), as))
  if (task === null) throw lost()
  return jsonReply(200, { status: task.state })
}

/** The task as its settlement left it; null: the lease was lost. */
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
  new RingbackError('lease_lost', 'The lease has ended, or its task was settled otherwise; leave the task: another worker may have it.')

/** Text that any store holds, cut where it is too long: a failure that is told badly is told nevertheless. */
const plain = (text: string, most: number): string => text.slice(0, most).replaceAll('\0', '\ufffd').toWellFormed()

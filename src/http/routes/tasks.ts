/** The task routes: create, read, wait, list, cancel, retry, erase. */
import { RingbackError } from '../../core/errors.ts'
import { isTerminal, type Millis, type Task } from '../../core/model.ts'
import type { Idempotency, SubmitResult, TaskChange, TaskListQuery } from '../../store/interfaces.ts'
import { type AppContext, idParam, recheckScope, requireClientId } from '../context.ts'
import { taskExamples as examples } from '../openapi/examples/tasks.ts'
import { ifNoneMatchHits, preferredWait } from '../request/headers.ts'
import { fingerprintOf, parseIdempotencyKey } from '../request/idempotency.ts'
import { clientFilter, cursorScope, omitUndefined, pageReply, startPosition } from '../request/lists.ts'
import type { ApiReply } from '../request/problem.ts'
import { emptyReply, notFound, taskExpired, unwrapFound } from '../request/replies.ts'
import { type ApiCall, type Route, response, route } from '../request/route.ts'
import * as fields from '../shapes/fields.ts'
import * as shapes from '../shapes/tasks.ts'
import { bulkRoutes } from './bulk.ts'
import { toNewTask, toNewTasks } from './create-tasks.ts'
import { newTaskReply, notModifiedReply, TASK_CACHE_HEADERS, taskEtag, taskReply, toTaskDocuments } from './task-document.ts'

const READ_HEADERS = ['ETag', 'Retry-After', 'Cache-Control', 'Vary']
const UNCHANGED = 'The task still has the revision of If-None-Match.'
const CREATE_ERRORS = [
  'idempotency_key_invalid',
  'idempotency_key_reused',
  'task_type_not_found',
  'invalid_callback_url',
  'callback_url_forbidden',
  'callback_url_not_verified',
  'task_expired',
  'temporary_reduced_capacity',
] as const

export function taskRoutes(context: AppContext): Route[] {
  return [...createRoutes(context), ...bulkRoutes(context), ...readRoutes(context), ...actionRoutes(context)]
}

/** Scopes of an Idempotency-Key: the same key may be used once in each. */
const CREATE = 'POST /v1/tasks'
const CREATE_BATCH = 'POST /v1/tasks/batch'

function createRoutes(context: AppContext): Route[] {
  return [
    route.post('/v1/tasks', 'createTask', {
      tag: 'Tasks',
      summary: 'Submit a task',
      description: 'Answers 202 once the task is on disk. With `wait`: 200 if the task ends in time.',
      scope: 'tasks:write',
      clientOnly: true,
      query: fields.waitQuery,
      body: shapes.createTask,
      bodyExamples: [examples.createTask, examples.createLater],
      requestHeaders: ['Idempotency-Key', 'Prefer', 'traceparent', 'tracestate'],
      responses: {
        202: response(
          'The stored task.',
          shapes.task,
          [examples.pendingTask],
          ['Location', ...READ_HEADERS, 'Idempotent-Replayed', 'Preference-Applied'],
        ),
        200: response(
          'The task ended while the call waited.',
          shapes.task,
          [examples.completedTask, examples.failedTask],
          ['Location', 'ETag', 'Cache-Control', 'Vary', 'Idempotent-Replayed', 'Preference-Applied'],
        ),
      },
      errorCodes: CREATE_ERRORS,
      checkHeaders: readKey,
      replay: (call) =>
        replay(context, call, CREATE, (tasks) => submittedReply(context, call, tasks[0] as Task, waitOf(call, unvalidatedWait(call)))),
      async handle(call, { query, body }) {
        const plan = toNewTask(context, call, requireClientId(call), body)
        const planned = plan instanceof Promise ? await plan : plan
        context.checkCapacity(requireClientId(call), 1, call.receivedAt)
        const submitted = await context.store.tasks.add({ tasks: [planned], idempotency: idempotencyOf(call, CREATE) })
        const [task] = accepted(submitted)
        const answer = submittedReply(context, call, task as Task, waitOf(call, query.wait))
        const reply = answer instanceof Promise ? await answer : answer
        if (submitted.kind === 'replayed') reply.headers['Idempotent-Replayed'] = 'true'
        return reply
      },
    }),
    route.post('/v1/tasks/batch', 'createTasks', {
      tag: 'Tasks',
      summary: 'Submit up to 100 tasks, all or none',
      description:
        'Atomic: one invalid item refuses all, with pointers such as `#/tasks/3/input/month`. The response keeps the order of the items.',
      scope: 'tasks:write',
      clientOnly: true,
      body: shapes.createBatch,
      bodyExamples: [examples.createBatch],
      requestHeaders: ['Idempotency-Key', 'traceparent', 'tracestate'],
      responses: {
        202: response('The stored tasks.', shapes.batch, [examples.batch], ['Location', 'Retry-After', 'Idempotent-Replayed']),
      },
      errorCodes: CREATE_ERRORS,
      checkHeaders: readKey,
      replay: (call) => replay(context, call, CREATE_BATCH, (tasks) => batchReply(context, tasks)),
      async handle(call, { body }) {
        const planned = await toNewTasks(context, call, requireClientId(call), body.tasks)
        context.checkCapacity(requireClientId(call), planned.length, call.receivedAt)
        const submitted = await context.store.tasks.add({ tasks: planned, idempotency: idempotencyOf(call, CREATE_BATCH) })
        const reply = await batchReply(context, accepted(submitted))
        if (submitted.kind === 'replayed') reply.headers['Idempotent-Replayed'] = 'true'
        return reply
      },
    }),
  ]
}

function readKey(call: ApiCall): void {
  const header = call.header('idempotency-key')
  if (header !== undefined) call.idempotencyKey = parseIdempotencyKey(header)
}

function idempotencyOf(call: ApiCall, scope: string): Idempotency | null {
  if (call.idempotencyKey === null) return null
  call.fingerprint ??= fingerprintOf(call.json)
  return { clientId: requireClientId(call), scope, key: call.idempotencyKey, fingerprint: call.fingerprint }
}

async function replay(
  context: AppContext,
  call: ApiCall,
  scope: string,
  show: (tasks: readonly Task[]) => ApiReply | Promise<ApiReply>,
): Promise<ApiReply | null> {
  const idempotency = idempotencyOf(call, scope)
  const submitted = idempotency && (await context.store.tasks.findSubmitted(idempotency))
  if (!submitted) return null
  const reply = await show(accepted(submitted))
  reply.headers['Idempotent-Replayed'] = 'true'
  return reply
}

/** @throws RingbackError `idempotency_key_reused`, `task_expired` */
function accepted(submitted: SubmitResult): readonly Task[] {
  if (submitted.kind === 'added' || submitted.kind === 'replayed') return submitted.tasks
  if (submitted.kind === 'gone') throw taskExpired()
  throw new RingbackError(
    'idempotency_key_reused',
    'This Idempotency-Key was used with another body within 24 hours; use a new key for a new request.',
  )
}

/** `?wait` before the query is validated, for a replay. A malformed one counts as none. */
const unvalidatedWait = (call: ApiCall): number | undefined => fields.wait.safeParse(call.c.req.query('wait')).data

interface Wait {
  readonly seconds: number
  /** The value of `Preference-Applied`. Null: no preference was sent. */
  readonly applied: string | null
}

/** The query wins over `Prefer`, which some proxies remove. */
function waitOf(call: ApiCall, query: number | undefined): Wait {
  if (query !== undefined) return { seconds: query, applied: null }
  const preferred = preferredWait(call.header('prefer'))
  return preferred === null ? NO_WAIT : { seconds: preferred, applied: `wait=${preferred}` }
}
const NO_WAIT: Wait = { seconds: 0, applied: null }

function submittedReply(context: AppContext, call: ApiCall, task: Task, wait: Wait): ApiReply | Promise<ApiReply> {
  // The task is on disk, so the limit of waiting calls must not refuse it: reply without waiting.
  if (wait.seconds > 0 && !isTerminal(task.state) && context.waitLimiter.limitError(call.caller))
    return waitedReply(context, task, NO_WAIT, context.clock.now())
  if (wait.seconds > 0 && !isTerminal(task.state))
    return waitForTask(context, call, task, wait.seconds, (now) => isTerminal(now.state)).then((last) =>
      waitedReply(context, last, wait, context.clock.now()),
    )
  return waitedReply(context, task, wait, Math.max(call.receivedAt, task.updatedAt))
}

function waitedReply(context: AppContext, task: Task, wait: Wait, now: Millis): ApiReply | Promise<ApiReply> {
  const finish = (reply: ApiReply): ApiReply => {
    if (wait.applied !== null) reply.headers['Preference-Applied'] = wait.applied
    return located(context, reply, task)
  }
  if (wait.seconds === 0 && task.state === 'pending' && task.revision === 1) return finish(newTaskReply(context, task, now))
  return taskReply(context, task, wait.seconds > 0 && isTerminal(task.state) ? 200 : 202, now).then(finish)
}

/** The task as soon as `done` holds, or as it is when the time is over. */
async function waitForTask(context: AppContext, call: ApiCall, task: Task, seconds: number, done: (task: Task) => boolean): Promise<Task> {
  const changed = await context.waitLimiter.runWithSlot(call.caller, () =>
    context.watchers.waitForTask(task.id, done, seconds * 1000, call.request.signal),
  )
  return changed ?? unwrapFound(await context.store.tasks.find(task.id, call.caller.clientId), 'task')
}

async function batchReply(context: AppContext, tasks: readonly Task[]): Promise<ApiReply> {
  const id = tasks[0]?.batchId ?? ''
  const documents = await toTaskDocuments(context, tasks)
  return {
    status: 202,
    headers: {
      'Content-Type': 'application/json',
      ...TASK_CACHE_HEADERS,
      Location: `${context.publicUrl()}/v1/tasks?batchId=${id}`,
      'Retry-After': '1',
    },
    body: `{"id":"${id}","data":[${documents.join(',')}]}`,
  }
}

function readRoutes(context: AppContext): Route[] {
  const headers = [...READ_HEADERS, 'Preference-Applied']
  const find = async (call: ApiCall): Promise<Task> =>
    unwrapFound(await context.store.tasks.find(idParam(call, 'task'), call.caller.clientId), 'task')
  return [
    route.get('/v1/tasks/{id}', 'getTask', {
      tag: 'Tasks',
      summary: 'Get a task, or wait for it',
      description:
        'With `wait`, answers when the task has ended, after that many seconds at the latest. With `wait` and `If-None-Match`, answers on the first change.',
      scope: 'tasks:read',
      query: fields.waitQuery,
      requestHeaders: ['If-None-Match', 'Prefer'],
      responses: {
        200: response('The task.', shapes.task, [examples.runningTask, examples.completedTask, examples.failedTask], headers),
        304: { description: UNCHANGED, headers },
      },
      errorCodes: ['task_expired'],
      find,
      handle: (call, { query, found }) => readTask(context, call, found, waitOf(call, query.wait)),
    }),
    rawRoute('input', find),
    rawRoute('result', find),
    route.get('/v1/tasks', 'listTasks', {
      tag: 'Tasks',
      summary: 'List tasks',
      description: 'A page may be shorter than `limit`. Continue while `hasMore` is true.',
      scope: 'tasks:read',
      query: shapes.taskListQuery,
      responses: { 200: response('A page of tasks.', shapes.taskList, [examples.taskList], ['Link', 'Cache-Control', 'Vary']) },
      errorCodes: ['invalid_cursor'],
      handle: (call, { query }) => listTasks(context, call, query),
    }),
  ]
}

async function readTask(context: AppContext, call: ApiCall, found: Task, wait: Wait): Promise<ApiReply> {
  const known = call.header('if-none-match')
  const unchanged = (task: Task): boolean => ifNoneMatchHits(known, String(task.revision))
  let task = found
  if (wait.seconds > 0 && !isTerminal(task.state) && (known === undefined || unchanged(task))) {
    task = await waitForTask(
      context,
      call,
      task,
      wait.seconds,
      known === undefined ? (now) => isTerminal(now.state) : (now) => !unchanged(now),
    )
    await recheckScope(context, call, 'tasks:read')
  }
  const reply = await (unchanged(task) ? notModifiedReply(context, task) : taskReply(context, task, 200))
  if (wait.applied !== null) reply.headers['Preference-Applied'] = wait.applied
  return reply
}

function rawRoute(member: 'input' | 'result', find: (call: ApiCall) => Promise<Task>): Route {
  const headers = ['ETag', 'Cache-Control', 'Vary']
  const example = member === 'input' ? examples.taskInput : examples.taskResult
  return route.get(`/v1/tasks/{id}/${member}`, member === 'input' ? 'getTaskInput' : 'getTaskResult', {
    tag: 'Tasks',
    summary: `Get the ${member} of a task, whatever its size`,
    description: `The JSON as it ${member === 'input' ? 'was sent' : 'was returned'}. Needed when the task shows null because the ${member} exceeds 64 KiB.`,
    scope: 'tasks:read',
    requestHeaders: ['If-None-Match'],
    responses: { 200: response(`The ${member}.`, shapes.anyJson, [example], headers), 304: { description: UNCHANGED, headers } },
    errorCodes: member === 'result' ? ['task_expired', 'task_not_completed'] : ['task_expired'],
    find,
    handle(call, { found: task }) {
      if (member === 'result' && task.state !== 'completed')
        throw new RingbackError('task_not_completed', `The task is ${task.state}; only a completed task has a result.`)
      const headers = { ...TASK_CACHE_HEADERS, ETag: taskEtag(task) }
      if (ifNoneMatchHits(call.header('if-none-match'), String(task.revision))) return { status: 304, headers, body: null }
      const body = member === 'input' ? task.input : (task.result ?? 'null')
      return { status: 200, headers: { 'Content-Type': 'application/json', ...headers }, body }
    },
  })
}

async function listTasks(context: AppContext, call: ApiCall, query: shapes.ListTasksQuery): Promise<ApiReply> {
  const { limit, cursor, order, clientId, status, metadata, ...rest } = query
  const same = omitUndefined(rest)
  const owner = clientFilter(call.caller, clientId)
  const scope = cursorScope(call, 'tasks', { order, owner, status, metadata: metadata && Object.entries(metadata), ...same })
  const [member] = Object.entries(metadata ?? {})
  const filter: TaskListQuery = {
    ...same,
    clientId: owner,
    order,
    limit,
    after: await startPosition(context, scope, cursor),
    ...(status && { states: status }),
    ...(member && { metadata: { key: member[0], value: member[1] } }),
  }
  const page = await context.store.tasks.list(filter)
  const documents = await toTaskDocuments(context, page.items)
  return pageReply(
    context,
    call,
    scope,
    page,
    (_, index) => documents[index] as string,
    ({ createdAt, id }) => ({ at: createdAt, id }),
    { ...TASK_CACHE_HEADERS },
  )
}

function actionRoutes(context: AppContext): Route[] {
  const find = async (call: ApiCall): Promise<Task> =>
    unwrapFound(await context.store.tasks.find(idParam(call, 'task'), call.caller.clientId), 'task')
  return [
    route.post('/v1/tasks/{id}/cancel', 'cancelTask', {
      tag: 'Tasks',
      summary: 'Cancel a task',
      description: 'A pending task is canceled at once. A running task is asked to stop; it may still complete first.',
      scope: 'tasks:write',
      responses: {
        200: response('The task is canceled.', shapes.task, [examples.canceledTask], ['Location', 'ETag']),
        202: response('The run was asked to stop.', shapes.task, [examples.stoppingTask], ['Location', 'Retry-After', 'ETag']),
      },
      errorCodes: ['task_expired', 'task_not_cancelable'],
      find,
      async handle(call, { found }) {
        const change = await context.store.tasks.cancel({ id: found.id, clientId: call.caller.clientId, by: call.author })
        const task = changedTask(change)
        if (change.kind === 'refused')
          throw new RingbackError('task_not_cancelable', `The task is ${task.state}; only a pending or running task can be canceled.`)
        return located(context, await taskReply(context, task, isTerminal(task.state) ? 200 : 202), task)
      },
    }),
    route.post('/v1/tasks/{id}/retry', 'retryTask', {
      tag: 'Tasks',
      summary: 'Run a failed or canceled task again',
      description: 'Starts a new generation of the task under the same id, with all its tries.',
      scope: 'tasks:write',
      responses: { 202: response('The task, pending again.', shapes.task, [examples.retriedTask], ['Location', 'Retry-After', 'ETag']) },
      errorCodes: ['task_expired', 'task_not_retryable'],
      find,
      async handle(call, { found }) {
        if (call.caller.clientId !== null && (found.state === 'failed' || found.state === 'canceled'))
          context.checkCapacity(call.caller.clientId, 1, call.receivedAt)
        const change = await context.store.tasks.redo({ id: found.id, clientId: call.caller.clientId, by: call.author })
        const task = changedTask(change)
        if (change.kind === 'refused')
          throw new RingbackError('task_not_retryable', `The task is ${task.state}; only a failed or canceled task can be retried.`)
        return located(context, await taskReply(context, task, 202), task)
      },
    }),
    route.delete('/v1/tasks/{id}', 'deleteTask', {
      tag: 'Tasks',
      summary: 'Erase a task that has ended',
      description: 'Erases input, result, metadata and the bodies of its events, and cancels its open deliveries.',
      scope: 'tasks:write',
      responses: { 204: { description: 'Erased. From now on the task answers 410.' } },
      errorCodes: ['task_expired', 'task_not_terminal'],
      find,
      async handle(call, { found }) {
        const change = await context.store.tasks.erase({ id: found.id, clientId: call.caller.clientId, by: call.author })
        if (change.kind === 'missing') throw notFound('task')
        if (change.kind === 'refused')
          throw new RingbackError('task_not_terminal', `The task is ${change.task.state}; cancel it first, or wait until it has ended.`)
        return emptyReply()
      },
    }),
  ]
}

function changedTask(change: TaskChange): Task {
  if (change.kind === 'missing') throw notFound('task')
  if (change.kind === 'gone') throw taskExpired()
  return change.task
}

function located(context: AppContext, reply: ApiReply, task: Task): ApiReply {
  reply.headers.Location = `${context.publicUrl()}/v1/tasks/${task.id}`
  return reply
}

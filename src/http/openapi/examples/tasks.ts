/** Examples of tasks, task types and schedules. */
import { at, BASE, ENDPOINT, named, page, TASK } from './story.ts'

const BATCH = 'batch_01m82a2cn5e849zvhez4f4tdya'

const task = (id: string, changes: object = {}) => ({
  id,
  type: 'report.build',
  status: 'pending',
  progress: 0,
  progressMessage: null,
  result: null as unknown,
  resultUrl: null,
  error: null,
  lastError: null,
  input: { month: '2026-10' } as unknown,
  inputUrl: null,
  metadata: { orderId: 'A-17' } as Record<string, string>,
  priority: 0,
  concurrencyKey: null,
  tries: 0,
  maxTries: 5,
  generation: 1,
  revision: 1,
  batchId: null,
  scheduleId: null,
  createdAt: at(0),
  runAt: at(0),
  startedAt: null,
  updatedAt: at(0),
  finishedAt: null,
  startBy: null,
  deadlineAt: null,
  timeoutSeconds: 3_600,
  cancelRequestedAt: null,
  expiresAt: null,
  estimatedCompletionAt: null,
  waitingFor: null,
  callback: { endpointId: null, url: null, events: null, retrySchedule: null, status: 'pending' as string | null },
  links: {
    self: `${BASE}/v1/tasks/${id}`,
    events: `${BASE}/v1/tasks/${id}/events`,
    cancel: `${BASE}/v1/tasks/${id}/cancel`,
    deliveries: `${BASE}/v1/deliveries?taskId=${id}`,
  },
  ...changes,
})
const begun = { status: 'running', tries: 1, startedAt: at(1), updatedAt: at(3) }
const ended = { ...begun, finishedAt: at(9), updatedAt: at(9), expiresAt: '2026-11-29T10:00:09.000Z', revision: 9 }

export const pending = task(TASK)
export const started = task(TASK, { ...begun, updatedAt: at(1), revision: 2 })
export const running = task(TASK, {
  ...begun,
  progress: 42.5,
  progressMessage: 'page 3 of 7',
  revision: 5,
  estimatedCompletionAt: at(9),
})
export const completed = task(TASK, { ...ended, status: 'completed', progress: 100, result: { rows: 1_204 } })
export const failed = task(TASK, {
  ...ended,
  status: 'failed',
  progress: 42.5,
  error: { code: 'handler_error', message: 'the ledger of 2026-10 is still open', details: null },
})
export const canceled = task(TASK, { ...ended, status: 'canceled', tries: 0, startedAt: null, revision: 2 })
export const pagedJob = (type: string, input: object) =>
  task('task_01m82a2cmhfzn9hav3yz5hh6jf', {
    type: `system.${type}`,
    input,
    metadata: {},
    callback: { ...pending.callback, status: 'none' },
  })

const bulkInput = { states: ['pending'], type: 'report.build', metadata: null, createdAfter: null, createdBefore: at(0) }
const reportOf = (month: string) => ({ type: 'report.build', input: { month } })

export const taskExamples = named({
  createTask: ['A task', { ...reportOf('2026-10'), metadata: { orderId: 'A-17' } }],
  createLater: [
    'A task that runs in an hour and notifies one endpoint',
    {
      ...reportOf('2026-10'),
      delaySeconds: 3_600,
      callback: { endpointId: ENDPOINT, events: ['task.completed', 'task.failed'] },
      maxTries: 3,
    },
  ],
  createBatch: ['Two tasks, both or none', { tasks: ['2026-09', '2026-10'].map(reportOf) }],
  cancelTasks: ['All pending tasks of a type', { status: ['pending'], type: 'report.build' }],
  retryTasks: ['All failed tasks of an order', { status: ['failed'], metadata: { orderId: 'A-17' } }],
  pendingTask: ['A pending task', pending],
  runningTask: ['A running task', running],
  completedTask: ['A completed task', completed],
  failedTask: ['A failed task', failed],
  canceledTask: ['A canceled task', canceled],
  stoppingTask: ['A running task whose cancel was requested', { ...running, cancelRequestedAt: at(4), revision: 6 }],
  retriedTask: ['A new generation of a task', { ...pending, generation: 2, revision: 10 }],
  bulkTask: ['The task that changes the matching tasks', pagedJob('cancel', bulkInput)],
  batch: ['A batch', { id: BATCH, data: [{ ...pending, batchId: BATCH }] }],
  taskList: ['A page with more to follow', { ...page(completed), hasMore: true, nextCursor: 'WzE3OTUzNDE2MDAwMDBd' }],
  taskInput: ['The input of a task', pending.input],
  taskResult: ['The result of a task', completed.result],
  matched: ['The answer to a dry run', { matched: 1_204 }],
})

const taskType = {
  name: 'report.build',
  description: 'Builds the monthly report',
  inputSchema: { type: 'object', properties: { month: { type: 'string' } }, required: ['month'] },
  resultSchema: { type: 'object', properties: { rows: { type: 'number' } }, required: ['rows'] },
  timeoutSeconds: 3_600,
  maxTries: 5,
  concurrency: 8,
  typicalDurationMs: 8_200,
  pausedAt: null,
}

export const taskTypeExamples = named({
  taskType: ['A task type', taskType],
  pausedTaskType: ['A paused task type', { ...taskType, pausedAt: at(5) }],
  taskTypeList: ['Task types', page(taskType)],
})

const createSchedule = { cron: '30 6 1 * *', timezone: 'Europe/Berlin', ...reportOf('last') }
const schedule = {
  ...createSchedule,
  id: 'schedule_01m82a2cn5e849zvhez4f4tdy9',
  catchUp: 'one',
  paused: false,
  metadata: {},
  callback: null,
  timeoutSeconds: null,
  maxTries: null,
  priority: 0,
  concurrencyKey: null,
  nextAt: '2026-12-01T05:30:00.000Z',
  lastAt: null,
  upcoming: ['2026-12-01T05', '2027-01-01T05', '2027-02-01T05', '2027-03-01T05', '2027-04-01T04'].map((hour) => `${hour}:30:00.000Z`),
  createdAt: at(0),
  updatedAt: at(0),
  revision: 1,
}

export const scheduleExamples = named({
  createSchedule: ['The first of every month', createSchedule],
  patchSchedule: ['Pause a schedule', { paused: true }],
  schedule: ['A schedule', schedule],
  scheduleList: ['A page of schedules', page(schedule)],
})

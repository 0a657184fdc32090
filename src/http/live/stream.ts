/** Server-sent events: follow one task until it ends. Each change is rendered once, however many readers there are. */
import { RingbackError } from '../../core/errors.ts'
import { type EventType, isTerminal, type Json, type Millis, type Task } from '../../core/model.ts'
import { envelopeJson } from '../../core/wire.ts'
import { type AppContext, recheckScope } from '../context.ts'
import type { ApiReply } from '../request/problem.ts'
import { taskExpired } from '../request/replies.ts'
import type { ApiCall } from '../request/route.ts'
import { TASK_CACHE_HEADERS, toTaskDocuments } from '../routes/task-document.ts'
import type { TaskUpdate } from './waits.ts'

/** Proxies commonly close a silent connection after 30 or 60 s. */
const COMMENT_MS: Millis = 15_000
/** Minimum time between progress frames. Other changes are sent at once. */
const PROGRESS_EVERY_MS: Millis = 250

const STREAM_TYPE = 'text/event-stream'
// Proxies must neither buffer nor compress the stream. `X-Accel-Buffering` is for nginx.
const HEADERS = {
  'Content-Type': STREAM_TYPE,
  'Cache-Control': `${TASK_CACHE_HEADERS['Cache-Control']}, no-transform`,
  Vary: TASK_CACHE_HEADERS.Vary,
  'X-Accel-Buffering': 'no',
} as const

/** `task.snapshot` is not an event: it shows the task when no event type describes the change. */
type FrameType = EventType | 'task.snapshot'

/**
 * Answers `GET /v1/tasks/{id}/events` with a stream.
 * @throws RingbackError `quota_exceeded` and `temporary_reduced_capacity` over the limits of open streams
 */
export function createTaskStream(context: AppContext): (call: ApiCall, task: Task) => Promise<ApiReply> {
  const { clock, watchers } = context
  /** By task object, which all watchers of one change share. */
  const rendered = new WeakMap<Task, Promise<readonly Json[]>>()

  /** Whether the key of the stream is still valid. A store outage closes no stream. */
  async function isStillAllowed(call: ApiCall): Promise<boolean> {
    try {
      await recheckScope(context, call, 'tasks:read')
      return true
    } catch (error) {
      return !(error instanceof RingbackError) || error.status >= 500
    }
  }

  async function liveFrame(type: FrameType, task: Task): Promise<string> {
    const data = rendered.get(task) ?? toTaskDocuments(context, [task])
    rendered.set(task, data)
    const [document = ''] = await data
    return presentFrame(type, task, document)
  }

  /** `seen` is the task as the reader knows it. Null: the first frame shows the task. */
  function follow(call: ApiCall, found: Task, seen: Task | null): ReadableStream<Uint8Array> {
    const releaseSlot = context.streamLimiter.acquire(call.caller)
    const encoder = new TextEncoder()
    let known = seen
    let newest: TaskUpdate | null = seen === null ? { task: found, terminalEvent: null } : null
    let sentAt = clock.now()
    let lastFrameAt = Number.NEGATIVE_INFINITY
    let over = false
    let wake = (): void => {}

    let unwatch = (): void => {}
    const end = (): void => {
      if (over) return
      over = true
      unwatch()
      releaseSlot()
      call.request.signal.removeEventListener('abort', end)
      wake()
    }
    unwatch = watchers.watchTask(found.id, (update) => {
      if (update === null) return end()
      if (update.task.revision <= (newest?.task ?? known ?? found).revision) return
      newest = update
      // The terminal event is the last frame. A later generation of the task is for another stream.
      if (isTerminal(update.task.state)) unwatch()
      wake()
    })
    call.request.signal.addEventListener('abort', end, { once: true })

    const sleep = (ms: Millis): Promise<void> =>
      new Promise((resolve) => {
        const cancelTimer = clock.after(ms, resolve)
        wake = () => {
          cancelTimer()
          resolve()
        }
      })
    const msUntilFrame = (): Millis => {
      if (newest === null) return sentAt + COMMENT_MS - clock.now()
      return changeOf(known, newest.task) === 'task.progress' ? lastFrameAt + PROGRESS_EVERY_MS - clock.now() : 0
    }
    const nextFrame = async (): Promise<string> => {
      sentAt = clock.now()
      if (newest === null) return ':\n\n'
      const { task, terminalEvent } = newest
      const type = changeOf(known, task)
      newest = null
      known = task
      lastFrameAt = sentAt
      if (!isTerminal(task.state)) return liveFrame(type, task)
      end()
      return terminalEvent === null ? '' : frame(task.revision, type, terminalEvent)
    }

    return new ReadableStream<Uint8Array>(
      {
        // Called only when the reader has taken the last frame: a slow reader gets the newest state, and nothing queues up.
        async pull(controller) {
          for (let ms = msUntilFrame(); ms > 0 && !over; ms = msUntilFrame()) await sleep(ms)
          if (!over && !(await isStillAllowed(call))) end()
          const text = over ? '' : nextFrame()
          if (text !== '') controller.enqueue(encoder.encode(await text))
          if (over) controller.close()
        },
        cancel: end,
      },
      { highWaterMark: 0 },
    )
  }

  return async (call, task) => {
    const seenRevision = lastEventId(call, task)
    const headers = { ...HEADERS }
    if (isTerminal(task.state)) {
      if (seenRevision === task.revision)
        return { status: 204, headers: { 'Cache-Control': HEADERS['Cache-Control'], Vary: HEADERS.Vary }, body: null }
      const ending = (await context.store.events.findTerminal([task])).get(task.id)
      if (ending === undefined) throw taskExpired()
      const [data = ''] = seenRevision === null ? await toTaskDocuments(context, [task]) : []
      const first = seenRevision === null ? presentFrame('task.snapshot', task, data) : ''
      return { status: 200, headers, body: first + frame(task.revision, changeOf(null, task), ending) }
    }
    if (call.request.method === 'HEAD') return { status: 200, headers, body: null }
    return { status: 200, headers, body: follow(call, task, seenRevision === task.revision ? task : null) }
  }
}

/** The revision in `Last-Event-ID`. Null when the task never had it. */
function lastEventId(call: ApiCall, task: Task): number | null {
  const header = call.header('last-event-id')?.trim() ?? ''
  return /^\d{1,15}$/.test(header) && Number(header) <= task.revision ? Number(header) : null
}

const TERMINAL: Partial<Record<Task['state'], EventType>> = {
  completed: 'task.completed',
  failed: 'task.failed',
  canceled: 'task.canceled',
}

/** The event type that describes the change. `task.snapshot` if there is none: a failed try, a cancel request. */
function changeOf(before: Task | null, task: Task): FrameType {
  const ended = TERMINAL[task.state]
  if (ended) return ended
  if (before === null || task.state !== 'running') return 'task.snapshot'
  if (before.state !== 'running' || before.tries !== task.tries || before.generation !== task.generation) return 'task.started'
  return before.progress !== task.progress || before.progressMessage !== task.progressMessage ? 'task.progress' : 'task.snapshot'
}

const presentFrame = (type: FrameType, task: Task, data: Json): string =>
  frame(task.revision, type, envelopeJson({ id: null, type, at: task.updatedAt }, data))

/** One frame (HTML Living Standard §9.2.5). Each line break in the data, which JSON allows between tokens, starts a new `data:` line. */
function frame(id: number, event: string, data: string): string {
  const lines = /[\r\n]/.test(data) ? data.split(/\r\n|\r|\n/).join('\ndata: ') : data
  return `id: ${id}\nevent: ${event}\ndata: ${lines}\n\n`
}

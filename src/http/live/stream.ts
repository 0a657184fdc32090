/** Server-sent events: one task followed until it ends. What is shown of a change is rendered once, however many watch. */
import { RingbackError } from '../../core/errors.ts'
import { type EventType, isTerminal, type Json, type Millis, type Task } from '../../core/model.ts'
import { envelopeJson } from '../../core/wire.ts'
import { type AppContext, recheckScope, taskExpired } from '../context.ts'
import type { ApiReply } from '../request/problem.ts'
import type { ApiCall } from '../request/route.ts'
import { TASK_CACHE_HEADERS, toTaskDocuments } from '../routes/task-document.ts'
import type { TaskUpdate } from './waits.ts'

/** A silent connection is cut by proxies, commonly after 30 or 60 s. */
const COMMENT_MS: Millis = 15_000
/** Progress is shown this far apart; everything else at once. */
const PROGRESS_EVERY_MS: Millis = 250

const STREAM_TYPE = 'text/event-stream'
// Proxies must neither gather nor compress it: nginx is told so by a header of its own.
const HEADERS = {
  'Content-Type': STREAM_TYPE,
  'Cache-Control': `${TASK_CACHE_HEADERS['Cache-Control']}, no-transform`,
  Vary: TASK_CACHE_HEADERS.Vary,
  'X-Accel-Buffering': 'no',
} as const

/** `task.snapshot` is no event: it tells what the task is like, where no event type says what changed. */
type FrameType = EventType | 'task.snapshot'

/**
 * Answers `GET /v1/tasks/{id}/events` of who asked for a stream.
 * @throws RingbackError `quota_exceeded` and `temporary_reduced_capacity` over the limits of open streams
 */
export function createTaskStream(context: AppContext): (call: ApiCall, task: Task) => Promise<ApiReply> {
  const { clock, watchers: waits } = context
  /** By the object that all watchers of one change are given. */
  const rendered = new WeakMap<Task, Promise<readonly Json[]>>()

  /** Whether the key that opened a stream still may. A store that cannot say it closes nothing. */
  async function mayGoOn(call: ApiCall): Promise<boolean> {
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
    const [shown = ''] = await data
    return presentFrame(type, task, shown)
  }

  /** `shown` is the task as the reader knows it; null: it is to be told first. */
  function follow(call: ApiCall, found: Task, shown: Task | null): ReadableStream<Uint8Array> {
    const giveBack = context.streamLimiter.acquire(call.caller)
    const encoder = new TextEncoder()
    let known = shown
    let newest: TaskUpdate | null = shown === null ? { task: found, terminalEvent: null } : null
    let spokenAt = clock.now()
    let shownAt = Number.NEGATIVE_INFINITY
    let over = false
    let wake = (): void => {}

    let leave = (): void => {}
    const end = (): void => {
      if (over) return
      over = true
      leave()
      giveBack()
      call.request.signal.removeEventListener('abort', end)
      wake()
    }
    leave = waits.watchTask(found.id, (news) => {
      if (news === null) return end()
      if (news.task.revision <= (newest?.task ?? known ?? found).revision) return
      newest = news
      // The end is the last frame: whatever becomes of the task afterwards is another stream's.
      if (isTerminal(news.task.state)) leave()
      wake()
    })
    call.request.signal.addEventListener('abort', end, { once: true })

    const sleep = (ms: Millis): Promise<void> =>
      new Promise((resolve) => {
        const disarm = clock.after(ms, resolve)
        wake = () => {
          disarm()
          resolve()
        }
      })
    const silence = (): Millis => {
      if (newest === null) return spokenAt + COMMENT_MS - clock.now()
      return changeOf(known, newest.task) === 'task.progress' ? shownAt + PROGRESS_EVERY_MS - clock.now() : 0
    }
    const say = async (): Promise<string> => {
      spokenAt = clock.now()
      if (newest === null) return ':\n\n'
      const { task, terminalEvent: ending } = newest
      const type = changeOf(known, task)
      newest = null
      known = task
      shownAt = spokenAt
      if (!isTerminal(task.state)) return liveFrame(type, task)
      end()
      return ending === null ? '' : frame(task.revision, type, ending)
    }

    return new ReadableStream<Uint8Array>(
      {
        // Asked only when the reader has taken what was sent before: whoever reads slowly is told the newest, and nothing piles up.
        async pull(controller) {
          for (let ms = silence(); ms > 0 && !over; ms = silence()) await sleep(ms)
          if (!over && !(await mayGoOn(call))) end()
          const text = over ? '' : say()
          if (text !== '') controller.enqueue(encoder.encode(await text))
          if (over) controller.close()
        },
        cancel: end,
      },
      { highWaterMark: 0 },
    )
  }

  return async (call, task) => {
    const seen = lastEventId(call, task)
    const headers = { ...HEADERS }
    if (isTerminal(task.state)) {
      if (seen === task.revision)
        return { status: 204, headers: { 'Cache-Control': HEADERS['Cache-Control'], Vary: HEADERS.Vary }, body: null }
      const ending = (await context.store.events.findTerminal([task])).get(task.id)
      if (ending === undefined) throw taskExpired()
      const [data = ''] = seen === null ? await toTaskDocuments(context, [task]) : []
      const first = seen === null ? presentFrame('task.snapshot', task, data) : ''
      return { status: 200, headers, body: first + frame(task.revision, changeOf(null, task), ending) }
    }
    if (call.request.method === 'HEAD') return { status: 200, headers, body: null }
    return { status: 200, headers, body: follow(call, task, seen === task.revision ? task : null) }
  }
}

/** The revision a reader has seen; null when it names none that this task has had. */
function lastEventId(call: ApiCall, task: Task): number | null {
  const header = call.header('last-event-id')?.trim() ?? ''
  return /^\d{1,15}$/.test(header) && Number(header) <= task.revision ? Number(header) : null
}

const TERMINAL: Partial<Record<Task['state'], EventType>> = {
  completed: 'task.completed',
  failed: 'task.failed',
  canceled: 'task.canceled',
}

/** The event type that says what changed; `task.snapshot` where none does: a try that failed, a cancel that was asked for. */
function changeOf(before: Task | null, task: Task): FrameType {
  const ended = TERMINAL[task.state]
  if (ended) return ended
  if (before === null || task.state !== 'running') return 'task.snapshot'
  if (before.state !== 'running' || before.tries !== task.tries || before.generation !== task.generation) return 'task.started'
  return before.progress !== task.progress || before.progressMessage !== task.progressMessage ? 'task.progress' : 'task.snapshot'
}

const presentFrame = (type: FrameType, task: Task, data: Json): string =>
  frame(task.revision, type, envelopeJson({ id: null, type, at: task.updatedAt }, data))

/** One event of a stream (HTML Living Standard §9.2.5). A line break in the data, which JSON takes between its tokens, begins a line. */
function frame(id: number, event: string, data: string): string {
  const lines = /[\r\n]/.test(data) ? data.split(/\r\n|\r|\n/).join('\ndata: ') : data
  return `id: ${id}\nevent: ${event}\ndata: ${lines}\n\n`
}

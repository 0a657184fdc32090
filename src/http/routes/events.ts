/** The event routes: the feed of a client, in commit order, and the events of one task, as a list or a stream. */
import { RingbackError } from '../../core/errors.ts'
import type { Event, EventType, Task } from '../../core/model.ts'
import { isJson } from '../../core/stored-json.ts'
import { envelopeJson } from '../../core/wire.ts'
import { type AppContext, idParam, recheckScope } from '../context.ts'
import { createTaskStream } from '../live/stream.ts'
import { eventExamples as examples } from '../openapi/examples/events.ts'
import { prefersEventStream } from '../request/headers.ts'
import { clientFilter, cursorScope, listReply } from '../request/lists.ts'
import { type ApiReply, validationFailed } from '../request/problem.ts'
import { unwrapFound } from '../request/replies.ts'
import { type ApiCall, type Route, response, route } from '../request/route.ts'
import * as shapes from '../shapes/events.ts'

export function eventRoutes(context: AppContext): Route[] {
  const common = { tag: 'Events', scope: 'tasks:read' } as const
  const find = async (call: ApiCall): Promise<Task> =>
    unwrapFound(await context.store.tasks.find(idParam(call, 'task'), call.caller.clientId), 'task')
  const stream = createTaskStream(context)
  const list = response('Events in commit order.', shapes.eventList, [examples.eventList], ['Link'])
  return [
    route.get('/v1/events', 'listEvents', {
      ...common,
      summary: 'Read the feed of events',
      description:
        'Lists every terminal event and every endpoint event, and other events that an endpoint subscribes to. `nextCursor` is always set: send it as `after` in the next call. With `types`, a page may be short or empty: continue while `hasMore` is true.',
      query: shapes.feedQuery,
      responses: { 200: list },
      errorCodes: ['invalid_cursor'],
      handle: (call, { query }) => readFeed(context, call, query),
    }),
    route.get('/v1/tasks/{id}/events', 'listTaskEvents', {
      ...common,
      summary: 'List the events of a task, or follow it',
      description:
        'With `Accept: text/event-stream`, a stream follows the task until it ends: `id` is the revision, `event` the event type, `data` the envelope. Without `Last-Event-ID` the first frame is `task.snapshot`. The last frame is the terminal event.',
      query: shapes.taskEventsQuery,
      requestHeaders: ['Last-Event-ID'],
      responses: {
        200: { ...list, alternative: { type: 'text/event-stream', schema: shapes.streamEvent, examples: [examples.snapshot] } },
        204: { description: 'The task has ended at the revision of Last-Event-ID. The stream is over.' },
      },
      errorCodes: ['task_expired', 'invalid_cursor'],
      find,
      async handle(call, { query, found }) {
        if (prefersEventStream(call.header('accept'))) return stream(call, found)
        const scope = cursorScope(call, 'taskEvents', { task: found.id })
        const after = await startSeq(context, scope, query.after, found.clientId)
        const search: EventQuery = { clientId: found.clientId, taskId: found.id, after, limit: query.limit }
        return feedReply(context, call, scope, search, await readOneMore(context, search))
      },
    }),
  ]
}

interface EventQuery {
  readonly clientId: string
  readonly taskId?: string
  readonly types?: readonly EventType[]
  readonly after: number
  /** The search ends here, before the end of the feed. */
  readonly upTo?: number
  readonly limit: number
}

async function readFeed(
  context: AppContext,
  call: ApiCall,
  query: {
    after?: string | undefined
    types?: EventType[] | undefined
    limit: number
    wait?: number | undefined
    clientId?: string | undefined
  },
): Promise<ApiReply> {
  const clientId = clientFilter(call.caller, query.clientId)
  if (clientId === null)
    throw validationFailed([{ pointer: '#/query/clientId', detail: 'is required of the operator: each client has its own feed' }])
  const scope = cursorScope(call, 'events', { clientId })
  const after = await startSeq(context, scope, query.after, clientId)
  const upTo = query.types ? await context.store.events.findFeedReach(clientId, after) : null
  const search: EventQuery = {
    clientId,
    after,
    limit: query.limit,
    ...(query.types && { types: query.types }),
    ...(upTo !== null && { upTo }),
  }
  let events = await readOneMore(context, search)
  if (events.length === 0 && upTo === null && query.wait) {
    const findNew = async (): Promise<readonly Event[] | null> => {
      const found = await readOneMore(context, search)
      return found.length > 0 ? found : null
    }
    const ms = query.wait * 1000
    events =
      (await context.waitLimiter.runWithSlot(call.caller, () =>
        context.watchers.waitForFeed(clientId, findNew, ms, call.request.signal),
      )) ?? []
    await recheckScope(context, call, 'tasks:read')
  }
  return feedReply(context, call, scope, search, events)
}

const readOneMore = (context: AppContext, search: EventQuery): Promise<readonly Event[]> =>
  context.store.events.list({ ...search, limit: search.limit + 1 })

/** `after` is the id of an event or a cursor of this feed. */
async function startSeq(context: AppContext, scope: string, after: string | undefined, clientId: string): Promise<number> {
  if (after === undefined) return 0
  if (!after.startsWith('event_')) return Number((await context.cursors.decode(scope, after, 'after'))[0])
  const seq = await context.store.events.findSeq(after, clientId)
  if (seq !== null) return seq
  throw new RingbackError('invalid_cursor', 'There is no such event in this feed; start without `after`.', {
    errors: [{ pointer: '#/query/after', detail: 'names no event of this feed' }],
  })
}

/** `found` has one event more than the page if there are more. */
async function feedReply(
  context: AppContext,
  call: ApiCall,
  scope: string,
  search: EventQuery,
  found: readonly Event[],
): Promise<ApiReply> {
  const events = fitting(found.slice(0, search.limit))
  const isAll = events.length === found.length
  const last = (isAll ? search.upTo : undefined) ?? events.at(-1)?.seq ?? search.after
  const cursor = await context.cursors.encode(scope, [last])
  return listReply(context, call, events.map(toEventDocument), !isAll || search.upTo !== undefined, cursor, {}, 'after')
}

/** An event whose stored bytes are damaged is shown without data, so that the rest of the page stays readable. */
const toEventDocument = ({ id, type, createdAt, body }: Event): string =>
  isJson(body) ? body : envelopeJson({ id, type, at: createdAt }, 'null')

const MAX_PAGE_CHARS = 4 * 1024 * 1024

function fitting(events: readonly Event[]): readonly Event[] {
  let size = 0
  const end = events.findIndex(({ body }, index) => {
    size += body.length
    return index > 0 && size > MAX_PAGE_CHARS
  })
  return end < 0 ? events : events.slice(0, end)
}

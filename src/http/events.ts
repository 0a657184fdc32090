/** The feed: the same envelopes that webhooks carry, in commit order, for a receiver that was down. */
import { RingbackError } from '../errors.ts'
import type { Event, EventType, Task } from '../model.ts'
import { boundTo, type House, idParam, listOwner, listReply, present } from './house.ts'
import { invalid, type Reply } from './problem.ts'
import { type Call, type Route, route } from './route.ts'
import * as shapes from './shapes.ts'

export function eventRoutes(house: House): Route[] {
  const common = { tag: 'Events', method: 'get', scope: 'tasks:read' } as const
  const find = async (call: Call): Promise<Task> => present(await house.store.findTask(idParam(call, 'task'), call.caller.clientId), 'task')
  const answers = { 200: { description: 'Events in commit order.', schema: shapes.eventList, headers: ['Link'] } }
  return [
    route(
      {
        ...common,
        path: '/v1/events',
        name: 'listEvents',
        summary: 'Read the feed of events',
        description:
          'Every terminal and endpoint event, others where something subscribes. `nextCursor` is always set: go on with it as `after`, also when there is no more yet.',
        query: shapes.feedQuery,
        answers,
        refusals: ['invalid_cursor'],
      },
      { handle: (call, { query }) => readFeed(house, call, query) },
    ),
    route(
      {
        ...common,
        path: '/v1/tasks/{id}/events',
        name: 'listTaskEvents',
        summary: 'List the events of a task',
        query: shapes.taskEventsQuery,
        answers,
        refusals: ['task_expired', 'invalid_cursor'],
      },
      {
        find,
        async handle(call, { query, found }) {
          const bound = boundTo(call, 'taskEvents', { task: found.id })
          const after = await placeOf(house, bound, query.after, found.clientId)
          const asked: Asked = { clientId: found.clientId, taskId: found.id, after, limit: query.limit }
          return feedReply(house, call, bound, asked, await readOneMore(house, asked))
        },
      },
    ),
  ]
}

interface Asked {
  readonly clientId: string
  readonly taskId?: string
  readonly types?: readonly EventType[]
  readonly after: number
  readonly limit: number
}

async function readFeed(
  house: House,
  call: Call,
  query: {
    after?: string | undefined
    types?: EventType[] | undefined
    limit: number
    wait?: number | undefined
    clientId?: string | undefined
  },
): Promise<Reply> {
  const clientId = listOwner(call.caller, query.clientId)
  if (clientId === null)
    throw invalid([{ pointer: '#/query/clientId', detail: 'is required of the operator: each client has a feed of its own' }])
  const bound = boundTo(call, 'events', { clientId })
  const after = await placeOf(house, bound, query.after, clientId)
  const asked: Asked = { clientId, after, limit: query.limit, ...(query.types && { types: query.types }) }
  let events = await readOneMore(house, asked)
  if (events.length === 0 && query.wait) {
    const look = async (): Promise<readonly Event[] | null> => {
      const found = await readOneMore(house, asked)
      return found.length > 0 ? found : null
    }
    events = (await house.waits.until(look, query.wait * 1000, call.request.signal)) ?? []
  }
  return feedReply(house, call, bound, asked, events)
}

const readOneMore = (house: House, asked: Asked): Promise<readonly Event[]> => house.store.listEvents({ ...asked, limit: asked.limit + 1 })

/** `after` is an event's id or a cursor of this feed. */
async function placeOf(house: House, bound: string, after: string | undefined, clientId: string): Promise<number> {
  if (after === undefined) return 0
  if (!after.startsWith('event_')) return Number((await house.cursors.read(bound, after))[0])
  const seq = await house.store.findEventSeq(after, clientId)
  if (seq !== null) return seq
  throw new RingbackError('invalid_cursor', 'There is no such event in this feed; start without `after`.', {
    errors: [{ pointer: '#/query/after', detail: 'names no event of this feed' }],
  })
}

/** One event more than asked for tells that there is more. */
async function feedReply(house: House, call: Call, bound: string, asked: Asked, found: readonly Event[]): Promise<Reply> {
  const events = fitting(found.slice(0, asked.limit))
  const last = events.at(-1)?.seq ?? asked.after
  const cursor = await house.cursors.write(bound, [last])
  return listReply(
    house,
    call,
    events.map(({ body }) => body),
    events.length < found.length,
    cursor,
    {},
    'after',
  )
}

const LARGEST_PAGE = 4 * 1024 * 1024

function fitting(events: readonly Event[]): readonly Event[] {
  let size = 0
  const end = events.findIndex(({ body }, index) => {
    size += body.length
    return index > 0 && size > LARGEST_PAGE
  })
  return end < 0 ? events : events.slice(0, end)
}

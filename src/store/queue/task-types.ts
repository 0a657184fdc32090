/** The shared state of task types: which are paused, and when a worker was last seen. */
import type { Millis } from '../../core/model.ts'
import type { QueueState } from '../interfaces.ts'
import { bind, execute, first, rows, type Script, sql, statement } from '../script.ts'

const PREFIX = 'task/'
export const queueOf = (type: string): string => PREFIX + type
export const typeOf = (queue: string): string => queue.slice(PREFIX.length)
/** Notified when a type was paused or resumed. */
export const TASK_TYPES_CHANNEL = 'queues'

export type QueueRow = { id: string; pausedAt: Millis | null; workerSeenAt: Millis | null }
export const toQueueState = ({ id, ...state }: QueueRow): QueueState => ({ type: typeOf(id), ...state })
const columns = sql.raw('id, paused_at as "pausedAt", worker_seen_at as "workerSeenAt"')

export const readQueues = statement(() => sql`select ${columns} from queues where id >= 'task/' and id < 'task0' order by id`)
/** Types without a record are left out. */
export function* listQueues(): Script<readonly QueueState[]> {
  return (yield* rows<QueueRow>(readQueues())).map(toQueueState)
}

const pause = statement(
  (d) => sql`insert into queues (id, paused_at) values (${bind('id')}, ${d.now})
    on conflict (id) do update set paused_at = coalesce(queues.paused_at, excluded.paused_at) returning ${columns}`,
)
const resume = statement(
  () => sql`insert into queues (id) values (${bind('id')}) on conflict (id) do update set paused_at = null returning ${columns}`,
)
/** No task of a paused type is claimed. Its turns stay, so resuming it only notifies the pumps. */
export function* setTypePaused(type: string, paused: boolean): Script<QueueState> {
  const change = paused ? pause : resume
  const row = yield* first<QueueRow>({
    ...change({ id: queueOf(type) }),
    notifies: paused ? [TASK_TYPES_CHANNEL] : [TASK_TYPES_CHANNEL, 'task'],
  })
  return toQueueState(row!)
}

const touch = statement(
  (d) => sql`insert into queues (id, worker_seen_at) select v.id, ${d.now} from ${d.records('queues', { id: 'text' })} v
    where true order by v.id on conflict (id) do update set worker_seen_at = excluded.worker_seen_at`,
)
/** Records that a worker of these types is running. */
export function* touchTypes(types: readonly string[]): Script<void> {
  if (types.length > 0) yield* execute([touch({ queues: types.map((type) => ({ id: queueOf(type) })) })])
}

const readGates = statement(
  () => sql`with recursive line(queue) as (
      select (select t.queue from turns t where t.queue >= 'task/' and t.queue < 'task0' and t.turn is not null order by t.queue limit 1)
      union all select (select t.queue from turns t where t.queue > line.queue and t.queue < 'task0' and t.turn is not null order by t.queue limit 1)
      from line where line.queue is not null)
    select queue as id, 1 as waits, 0 as paused from line where queue is not null
    union all select id, 0, 1 from queues where paused_at is not null and id >= 'task/' and id < 'task0'`,
)
/** Types with turns, and paused types: neither may start tasks without a claim. */
export function* findPausedTypes(): Script<{ readonly waiting: ReadonlySet<string>; readonly paused: ReadonlySet<string> }> {
  const found = yield* rows<{ id: string; waits: number; paused: number }>(readGates())
  const of = (member: 'waits' | 'paused') => new Set(found.filter((row) => row[member] === 1).map(({ id }) => typeOf(id)))
  return { waiting: of('waits'), paused: of('paused') }
}

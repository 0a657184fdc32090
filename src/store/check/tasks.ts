/** What must hold for tasks: state, lease, endings, labels. */
import { type Endpoint, type EventType, isTerminal, type Json, type Millis, type Task } from '../../core/model.ts'
import { isJson } from '../../core/stored-json.ts'
import { bind, now, rows, runAll, type Script, sql, statement } from '../script.ts'
import { readEndpointsOfClients, subscriptions, terminalFact } from '../scripts/outbox.ts'
import { taskLaneOf } from '../scripts/tasks/rows.ts'
import {
  type CheckPage,
  idRecords,
  idsOf,
  inChunks,
  judgeWork,
  type LeasedRow,
  type LeaseGrace,
  nextMark,
  PAGE,
  readSeen,
  SETTLED_MS,
  type Violation,
  withoutDeletedClients,
} from './checks.ts'

const readTasks = statement(
  () => sql`select id, client_id as "clientId", lane_id as "laneId", type, concurrency_key as "concurrencyKey", state, generation, revision, tries,
      max_tries as "maxTries", fence, leased_until as "leasedUntil", leased_by as "leasedBy", created_at as "createdAt", updated_at as "updatedAt",
      finished_at as "finishedAt", progress, callback, metadata, octet_length(input) as bytes,
      case when result is null then 0 else 1 end as "hasResult", case when error is null then 0 else 1 end as "hasError"
    from tasks where id > ${bind('after')} order by id limit ${sql.raw(String(PAGE))}`,
)
type CheckedTask = LeasedRow &
  Pick<Task, 'clientId' | 'laneId' | 'type' | 'concurrencyKey' | 'generation' | 'revision' | 'createdAt' | 'finishedAt' | 'progress'> & {
    readonly callback: Json | null
    readonly metadata: Json
    readonly bytes: number
    readonly hasResult: number
    readonly hasError: number
  }
const readInputs = statement((d) => sql`select id, input as text from tasks where id ${d.anyOf(idsOf(d))}`)
const readEndings = statement(
  (d) => sql`select id, task_id as "taskId", client_id as "clientId", type, generation, revision, created_at as "createdAt" from events
    where task_id ${d.anyOf(idsOf(d))} and terminal = 1 order by task_id, generation, id`,
)
interface Ending {
  readonly id: string
  readonly taskId: string
  readonly clientId: string
  readonly type: EventType
  readonly generation: number
  readonly revision: number
  readonly createdAt: Millis
}
const readOwed = statement(
  (d) => sql`select distinct event_id as "eventId", endpoint_id as "endpointId" from deliveries where task_id ${d.anyOf(idsOf(d))}`,
)
const readLabels = statement(
  (d) =>
    sql`select task_id as "taskId", client_id as "clientId", name, value, created_at as "createdAt" from labels where task_id ${d.anyOf(idsOf(d))}`,
)
interface Label {
  readonly taskId: string
  readonly clientId: string
  readonly name: string
  readonly value: string
  readonly createdAt: Millis
}

export interface TaskCheckPage extends CheckPage<string> {
  readonly live: number
  readonly generations: number
  /** Leases that expired while no node was running. */
  readonly expiredLeases: number
}
/** Checks tasks created after `after`, with their terminal events and the deliveries these owe. */
export function* checkTasks(after: string, sweeps: LeaseGrace): Script<TaskCheckPage> {
  const at = yield* now()
  const found = yield* rows<CheckedTask>(readTasks({ after }))
  const page = yield* withoutDeletedClients(found)
  if (found.length === 0) return { rowsChecked: 0, live: 0, generations: 0, expiredLeases: 0, violations: [], next: null }
  const ids = page.map(({ id }) => ({ id }))
  const [seen, endings, owed, labels, listeners] = (yield* runAll([
    readSeen(),
    readEndings({ ids }),
    readOwed({ ids }),
    readLabels({ ids }),
    readEndpointsOfClients({ clients: idRecords(page.map(({ clientId }) => clientId)) }),
  ])) as unknown as [{ served: number }[], Ending[], { eventId: string; endpointId: string }[], Label[], Endpoint[]]
  const served = seen[0]!.served === 1
  const endingsOf = Map.groupBy(endings, ({ taskId }) => taskId)
  const labelsOf = Map.groupBy(labels, ({ taskId }) => taskId)
  const judge = expected(listeners, new Set(owed.map(({ eventId, endpointId }) => `${eventId} ${endpointId}`)))
  const violations = page.flatMap((task) => [
    ...judgeWork('task', task, at, served, sweeps),
    ...judgeTask(task),
    ...judgeLabels(task, labelsOf.get(task.id) ?? []),
    ...judgeEndings(task, endingsOf.get(task.id) ?? []),
    ...judge(task, endingsOf.get(task.id) ?? []),
  ])
  // The body of the terminal event has the values of an ended task, and is checked too.
  const live = page.filter(({ state }) => !isTerminal(state))
  yield* inChunks(live, readInputs, (id, text) => {
    if (!isJson(text)) violations.push({ check: 'rows', sentence: `The input of task ${id} is not JSON.` })
  })
  const lapsed = page.filter(({ state, leasedUntil }) => !served && state === 'running' && (leasedUntil ?? at) < at).length
  return {
    rowsChecked: found.length,
    live: live.length,
    generations: endings.length,
    expiredLeases: lapsed,
    violations,
    next: nextMark(found, PAGE, ({ id }) => id),
  }
}

function judgeTask(task: CheckedTask): Violation[] {
  const found: Violation[] = []
  const must = (holds: boolean, sentence: string): void =>
    void (holds || found.push({ check: 'rows', sentence: `Task ${task.id} ${sentence}` }))
  const ended = isTerminal(task.state)
  must((task.finishedAt !== null) === ended, `is ${task.state}, and its row says that it ${ended ? 'has not ended' : 'has ended'}.`)
  must((task.hasResult === 1) === (task.state === 'completed'), `is ${task.state} ${task.hasResult ? 'with' : 'without'} a result.`)
  must((task.hasError === 1) === (task.state === 'failed'), `is ${task.state} ${task.hasError ? 'with' : 'without'} an error.`)
  must((task.progress === 100) === (task.state === 'completed'), `is ${task.state} at ${task.progress} percent.`)
  must(task.laneId === taskLaneOf(task), `waits in lane ${task.laneId}, and belongs into ${taskLaneOf(task)}.`)
  must(isJson(task.metadata), 'has metadata that is not JSON.')
  must(task.callback === null || isJson(task.callback), 'has a callback that is not JSON.')
  return found
}

function judgeLabels(task: CheckedTask, labels: readonly Label[]): Violation[] {
  if (!isJson(task.metadata)) return []
  const key = ([name, value]: readonly [string, string]): string => JSON.stringify([name, value])
  const expected = new Set(Object.entries((JSON.parse(task.metadata) ?? {}) as Record<string, string>).map(key))
  const right = labels.filter(
    ({ name, value, clientId, createdAt }) =>
      expected.has(key([name, value])) && clientId === task.clientId && createdAt === task.createdAt,
  )
  if (right.length === labels.length && labels.length === expected.size) return []
  return [
    {
      check: 'traces',
      sentence: `Task ${task.id} has ${expected.size} members of metadata, and ${right.length} of its ${labels.length} labels say so.`,
    },
  ]
}

function judgeEndings(task: CheckedTask, endings: readonly Ending[]): Violation[] {
  const found: Violation[] = []
  const must = (holds: boolean, sentence: string): void =>
    void (holds || found.push({ check: 'endings', sentence: `Task ${task.id} ${sentence}` }))
  const ended = isTerminal(task.state) ? task.generation : task.generation - 1
  const of = Map.groupBy(endings, ({ generation }) => generation)
  for (let generation = 1; generation <= ended; generation++) {
    const events = of.get(generation) ?? []
    must(events.length > 0, `has ended its generation ${generation} without a terminal event.`)
    must(events.length < 2, `has ${events.length} terminal events of generation ${generation}: ${events.map(({ id }) => id).join(', ')}.`)
  }
  for (const { id, generation, type, revision, clientId } of endings) {
    must(
      generation <= ended,
      `is ${task.state} in generation ${task.generation}, and event ${id} says that generation ${generation} has ended.`,
    )
    must(clientId === task.clientId, `belongs to ${task.clientId}, and its event ${id} to ${clientId}.`)
    if (generation === ended && generation === task.generation)
      must(
        type === terminalFact(task as unknown as Task).type && revision === task.revision,
        `is ${task.state} at revision ${task.revision}, and its event ${id} is ${type} at revision ${revision}.`,
      )
    else
      must(
        revision < task.revision || generation > ended,
        `is at revision ${task.revision}, and its event ${id} of a generation before is at ${revision}.`,
      )
  }
  return found
}

/** Which endpoints a terminal event is owed to. Only endpoints unchanged since it was recorded can tell. */
function expected(
  listeners: readonly Endpoint[],
  owed: ReadonlySet<string>,
): (task: CheckedTask, endings: readonly Ending[]) => Violation[] {
  const judge = subscriptions(listeners.filter(({ events, taskTypes }) => isJson(events) && isJson(taskTypes)))
  return (task, endings) => {
    if (task.callback === null || !isJson(task.callback)) return []
    return endings.flatMap(({ id, type, createdAt }) =>
      judge({ task: task as unknown as Task, type, at: createdAt })
        .filter(({ endpoint: listener }) => listener.updatedAt < createdAt - SETTLED_MS && !owed.has(`${id} ${listener.id}`))
        .map(
          ({ endpoint: listener }): Violation => ({
            check: 'owed',
            sentence: `Event ${id} of task ${task.id} is owed to endpoint ${listener.id}, and there is no delivery of it.`,
          }),
        ),
    )
  }
}

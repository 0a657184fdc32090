/** What must hold for tasks: state, lease, endings, labels. */
import { type Endpoint, type Event, isTerminal, type Millis, type Task } from '../../core/model.ts'
import { isJson } from '../../core/stored-json.ts'
import { bind, now, rows, runAll, type Script, sql, statement } from '../script.ts'
import { readEndpointsOfClients, subscriptions, terminalFact } from '../scripts/outbox.ts'
import { idRows, ids } from '../scripts/shared.ts'
import { taskLaneOf } from '../scripts/tasks/rows.ts'
import {
  type CheckPage,
  checkLease,
  countExpiredLeases,
  Findings,
  inChunks,
  type LeasedRow,
  lastId,
  PAGE,
  type Rule,
  readNodeRunning,
  SETTLED_MS,
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
  Pick<Task, 'type' | 'concurrencyKey' | 'generation' | 'revision' | 'createdAt' | 'finishedAt' | 'progress' | 'callback' | 'metadata'> & {
    readonly bytes: number
    readonly hasResult: number
    readonly hasError: number
  }
const readInputs = statement((d) => sql`select id, input as text from tasks where id ${d.anyOf(ids(d))}`)
const readEndings = statement(
  (d) => sql`select id, task_id as "taskId", client_id as "clientId", type, generation, revision, created_at as "createdAt" from events
    where task_id ${d.anyOf(ids(d))} and terminal = 1 order by task_id, generation, id`,
)
type Ending = Pick<Event, 'id' | 'clientId' | 'type' | 'generation' | 'revision' | 'createdAt'> & { readonly taskId: string }
const readOwed = statement(
  (d) => sql`select distinct event_id as "eventId", endpoint_id as "endpointId" from deliveries where task_id ${d.anyOf(ids(d))}`,
)
const readLabels = statement(
  (d) =>
    sql`select task_id as "taskId", client_id as "clientId", name, value, created_at as "createdAt" from labels where task_id ${d.anyOf(ids(d))}`,
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
export function* checkTasks(after: string, graceMs: Millis): Script<TaskCheckPage> {
  const at = yield* now()
  const found = yield* rows<CheckedTask>(readTasks({ after }))
  const page = yield* withoutDeletedClients(found)
  if (found.length === 0) return { rowsChecked: 0, live: 0, generations: 0, expiredLeases: 0, violations: [], next: null }
  const taskIds = page.map(({ id }) => ({ id }))
  const [seen, endings, owed, labels, endpoints] = (yield* runAll([
    readNodeRunning(),
    readEndings({ ids: taskIds }),
    readOwed({ ids: taskIds }),
    readLabels({ ids: taskIds }),
    readEndpointsOfClients({ clients: idRows(page.map(({ clientId }) => clientId)) }),
  ])) as unknown as [{ served: number }[], Ending[], { eventId: string; endpointId: string }[], Label[], Endpoint[]]
  const leases = { at, running: seen[0]!.served === 1, graceMs }
  const endingsOf = Map.groupBy(endings, ({ taskId }) => taskId)
  const labelsOf = Map.groupBy(labels, ({ taskId }) => taskId)
  const findings = new Findings()
  const checkOwed = owedChecker(endpoints, new Set(owed.map(({ eventId, endpointId }) => `${eventId} ${endpointId}`)))
  for (const task of page) {
    const rule = findings.about(`Task ${task.id}`)
    checkLease(rule, task, leases)
    checkRow(rule, task)
    checkLabels(rule, task, labelsOf.get(task.id) ?? [])
    checkEndings(rule, task, endingsOf.get(task.id) ?? [])
    checkOwed(findings, task, endingsOf.get(task.id) ?? [])
  }
  // The body of the terminal event has the values of an ended task, and is checked too.
  const live = page.filter(({ state }) => !isTerminal(state))
  yield* inChunks(live, readInputs, (id, text) => {
    if (!isJson(text)) findings.add('rows', `The input of task ${id} is not JSON.`)
  })
  const counts = { live: live.length, generations: endings.length, expiredLeases: countExpiredLeases(page, leases) }
  return { ...findings.page(found, PAGE, lastId), ...counts }
}

function checkRow(rule: Rule, task: CheckedTask): void {
  const { state, laneId, progress, metadata, callback } = task
  rule((task.finishedAt !== null) === isTerminal(state), 'rows', `is ${state} ${isTerminal(state) ? 'without' : 'with'} a finish time.`)
  rule((task.hasResult === 1) === (state === 'completed'), 'rows', `is ${state} ${task.hasResult ? 'with' : 'without'} a result.`)
  rule((task.hasError === 1) === (state === 'failed'), 'rows', `is ${state} ${task.hasError ? 'with' : 'without'} an error.`)
  rule((progress === 100) === (state === 'completed'), 'rows', `is ${state} at ${progress} percent.`)
  rule(laneId === taskLaneOf(task), 'rows', `is in lane ${laneId} but belongs to lane ${taskLaneOf(task)}.`)
  rule(isJson(metadata), 'rows', 'has metadata that is not JSON.')
  rule(callback === null || isJson(callback), 'rows', 'has a callback that is not JSON.')
}

function checkLabels(rule: Rule, task: CheckedTask, labels: readonly Label[]): void {
  if (!isJson(task.metadata)) return
  const key = (member: readonly [string, string]): string => JSON.stringify(member)
  const expected = new Set(Object.entries((JSON.parse(task.metadata) ?? {}) as Record<string, string>).map(key))
  const matching = labels.filter(
    ({ name, value, clientId, createdAt }) =>
      expected.has(key([name, value])) && clientId === task.clientId && createdAt === task.createdAt,
  )
  const same = matching.length === labels.length && labels.length === expected.size
  rule(same, 'traces', `has ${expected.size} members of metadata and ${labels.length} labels, of which ${matching.length} match.`)
}

function checkEndings(rule: Rule, task: CheckedTask, endings: readonly Ending[]): void {
  const must = (holds: boolean, sentence: string): void => rule(holds, 'endings', sentence)
  const ended = isTerminal(task.state) ? task.generation : task.generation - 1
  const byGeneration = Map.groupBy(endings, ({ generation }) => generation)
  for (let generation = 1; generation <= ended; generation++) {
    const events = byGeneration.get(generation) ?? []
    must(events.length > 0, `has no terminal event of its ended generation ${generation}.`)
    must(events.length < 2, `has ${events.length} terminal events of generation ${generation}: ${events.map(({ id }) => id).join(', ')}.`)
  }
  for (const { id, generation, type, revision, clientId } of endings) {
    must(generation <= ended, `is ${task.state} in generation ${task.generation}, but event ${id} ends generation ${generation}.`)
    must(clientId === task.clientId, `belongs to ${task.clientId}, but its event ${id} belongs to ${clientId}.`)
    if (generation === ended && generation === task.generation)
      must(
        type === terminalFact(task as unknown as Task).type && revision === task.revision,
        `is ${task.state} at revision ${task.revision}, but its event ${id} is ${type} at revision ${revision}.`,
      )
    else
      must(
        revision < task.revision || generation > ended,
        `is at revision ${task.revision}, but its event ${id} of an earlier generation is at revision ${revision}.`,
      )
  }
}

/** Checks which endpoints a terminal event is owed to. Endpoints that changed after it was recorded cannot show it. */
function owedChecker(endpoints: readonly Endpoint[], owed: ReadonlySet<string>) {
  const subscribed = subscriptions(endpoints.filter(({ events, taskTypes }) => isJson(events) && isJson(taskTypes)))
  return (findings: Findings, task: CheckedTask, endings: readonly Ending[]): void => {
    if (task.callback === null || !isJson(task.callback)) return
    for (const { id, type, createdAt } of endings)
      for (const { endpoint } of subscribed({ task: task as unknown as Task, type, at: createdAt }))
        if (endpoint.updatedAt < createdAt - SETTLED_MS && !owed.has(`${id} ${endpoint.id}`))
          findings.add('owed', `Event ${id} of task ${task.id} is owed to endpoint ${endpoint.id} but has no delivery to it.`)
  }
}

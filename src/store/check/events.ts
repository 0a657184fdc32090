/** What must hold for events: bodies, and tasks that exist. */
import type { Event, EventType, State } from '../../core/model.ts'
import { isJson } from '../../core/stored-json.ts'
import { bind, rows, runAll, type Script, sql, statement } from '../script.ts'
import { idRows, ids } from '../scripts/shared.ts'
import { type CheckPage, Findings, inChunks, lastId, PAGE, withoutDeletedClients } from './checks.ts'

const readEvents = statement(
  () => sql`select id, client_id as "clientId", task_id as "taskId", type, terminal, generation, revision, octet_length(body) as bytes
    from events where id > ${bind('after')} order by id limit ${sql.raw(String(PAGE))}`,
)
type CheckedEvent = Pick<Event, 'id' | 'clientId' | 'taskId' | 'type' | 'generation' | 'revision'> & {
  readonly terminal: number
  readonly bytes: number
}
const readBodies = statement((d) => sql`select id, body as text from events where id ${d.anyOf(ids(d))}`)
const readTaskIds = statement((d) => sql`select id, client_id as "clientId" from tasks where id ${d.anyOf(ids(d))}`)
const readTombstones = statement((d) => sql`select id from tombstones where id ${d.anyOf(ids(d))}`)

/** Which of these tasks exist, with their clients, and which were erased within the last week. */
export function* findTaskFates(
  taskIds: Iterable<string | null>,
): Script<{ readonly existing: ReadonlyMap<string, string>; readonly erased: ReadonlySet<string> }> {
  const named = { ids: idRows(taskIds) }
  const [existing, erased] = (yield* runAll([readTaskIds(named), readTombstones(named)])) as unknown as [
    { id: string; clientId: string }[],
    { id: string }[],
  ]
  return { existing: new Map(existing.map(({ id, clientId }) => [id, clientId])), erased: new Set(erased.map(lastId)) }
}

const ENDS: ReadonlyMap<EventType, State> = new Map([
  ['task.completed', 'completed'],
  ['task.failed', 'failed'],
  ['task.canceled', 'canceled'],
])
/** Checks events created after `after`, with their bodies. */
export function* checkEvents(after: string): Script<CheckPage<string>> {
  const found = yield* rows<CheckedEvent>(readEvents({ after }))
  const page = yield* withoutDeletedClients(found)
  const { existing, erased } = yield* findTaskFates(page.map(({ taskId }) => taskId))
  const findings = new Findings()
  for (const { id, type, terminal, taskId, clientId } of page) {
    const rule = findings.about(`Event ${id}`)
    rule((terminal === 1) === ENDS.has(type), 'endings', `is ${type} and is ${terminal === 1 ? '' : 'not '}marked as terminal.`)
    if (taskId === null) continue
    rule(existing.has(taskId) || erased.has(taskId), 'traces', `belongs to task ${taskId}, which neither exists nor was erased.`)
    const owner = existing.get(taskId) ?? clientId
    rule(owner === clientId, 'endings', `belongs to ${clientId}, but its task ${taskId} belongs to ${owner}.`)
  }
  const byId = new Map(page.map((event) => [event.id, event]))
  yield* inChunks(page, readBodies, (id, text) => {
    const event = byId.get(id)!
    // Erased with its task.
    if (text === '' && event.taskId !== null && !existing.has(event.taskId)) return
    const wrong = disagreement(event, text)
    if (wrong !== null) findings.add('bodies', `The body of event ${id} ${wrong}.`)
  })
  return findings.page(found, PAGE, lastId)
}
/** How the body differs from the row; null: it does not. */
function disagreement(event: CheckedEvent, text: string): string | null {
  if (!isJson(text)) return text === '' ? 'is empty' : 'is not JSON'
  const body = JSON.parse(text)
  const actual = [body?.id, body?.type]
  const expected: unknown[] = [event.id, event.type]
  if (event.taskId !== null) {
    actual.push(body?.data?.id, body?.data?.generation, body?.data?.revision)
    expected.push(event.taskId, event.generation, event.revision)
    if (event.terminal === 1) {
      actual.push(body?.data?.status)
      expected.push(ENDS.get(event.type))
    }
  }
  const [has, wants] = [JSON.stringify(actual), JSON.stringify(expected)]
  return has === wants ? null : `contains ${has}, but its row contains ${wants}`
}

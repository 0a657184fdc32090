/** What must hold for events: bodies, and tasks that exist. */
import type { EventType, State } from '../../core/model.ts'
import { isJson } from '../../core/stored-json.ts'
import { bind, rows, runAll, type Script, sql, statement } from '../script.ts'
import {
  type CheckName,
  type CheckPage,
  idRecords,
  idsOf,
  inChunks,
  nextMark,
  PAGE,
  type Violation,
  withoutDeletedClients,
} from './checks.ts'

const readEvents = statement(
  () => sql`select id, client_id as "clientId", task_id as "taskId", type, terminal, generation, revision, octet_length(body) as bytes
    from events where id > ${bind('after')} order by id limit ${sql.raw(String(PAGE))}`,
)
interface CheckedEvent {
  readonly id: string
  readonly clientId: string
  readonly taskId: string | null
  readonly type: EventType
  readonly terminal: number
  readonly generation: number
  readonly revision: number
  readonly bytes: number
}
const readBodies = statement((d) => sql`select id, body as text from events where id ${d.anyOf(idsOf(d))}`)
const readTaskIds = statement((d) => sql`select id, client_id as "clientId" from tasks where id ${d.anyOf(idsOf(d))}`)
const readTombstones = statement((d) => sql`select id from tombstones where id ${d.anyOf(idsOf(d))}`)

/** Which of these tasks exist, and which were erased within the last week. */
export function* findTaskFates(
  ids: Iterable<string | null>,
): Script<{ readonly existing: ReadonlyMap<string, string>; readonly erased: ReadonlySet<string> }> {
  const asked = idRecords(ids)
  const [there, erased] = (yield* runAll([readTaskIds({ ids: asked }), readTombstones({ ids: asked })])) as unknown as [
    { id: string; clientId: string }[],
    { id: string }[],
  ]
  return { existing: new Map(there.map(({ id, clientId }) => [id, clientId])), erased: new Set(erased.map(({ id }) => id)) }
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
  const { existing: there, erased } = yield* findTaskFates(page.map(({ taskId }) => taskId))
  const violations: Violation[] = []
  const must = (holds: boolean, check: CheckName, sentence: string): void => void (holds || violations.push({ check, sentence }))
  for (const { id, type, terminal, taskId, clientId } of page) {
    must(
      (terminal === 1) === ENDS.has(type),
      'endings',
      `Event ${id} is ${type} and is ${terminal === 1 ? '' : 'not '}marked as an ending.`,
    )
    if (taskId === null) continue
    must(there.has(taskId) || erased.has(taskId), 'traces', `Event ${id} tells of task ${taskId}, which is not there and was not erased.`)
    const owner = there.get(taskId) ?? clientId
    must(owner === clientId, 'endings', `Event ${id} belongs to ${clientId}, and its task ${taskId} to ${owner}.`)
  }
  const byId = new Map(page.map((event) => [event.id, event]))
  yield* inChunks(page, readBodies, (id, text) => {
    const event = byId.get(id)!
    // Erased with its task.
    if (text === '' && event.taskId !== null && !there.has(event.taskId)) return
    const wrong = disagreement(event, text)
    must(wrong === null, 'bodies', `The body of event ${id} ${wrong}.`)
  })
  return { rowsChecked: found.length, violations, next: nextMark(found, PAGE, ({ id }) => id) }
}
function disagreement(event: CheckedEvent, text: string): string | null {
  if (!isJson(text)) return text === '' ? 'is gone' : 'is not JSON'
  const body = JSON.parse(text)
  const said = [body?.id, body?.type]
  const meant: unknown[] = [event.id, event.type]
  if (event.taskId !== null) {
    said.push(body?.data?.id, body?.data?.generation, body?.data?.revision)
    meant.push(event.taskId, event.generation, event.revision)
    if (event.terminal === 1) {
      said.push(body?.data?.status)
      meant.push(ENDS.get(event.type))
    }
  }
  return JSON.stringify(said) === JSON.stringify(meant) ? null : `says ${JSON.stringify(said)} where its row says ${JSON.stringify(meant)}`
}

/** What waiting calls and streams ask for: revisions, feed positions and terminal events, each for many at once. */
import type { Json, Task } from '../../core/model.ts'
import { rows, type Script, sql, statement } from '../script.ts'
import { idRows, ids } from './shared.ts'

// Without inputs and results, which may be large.
const readRevisions = statement((d) => sql`select id, revision as mark from tasks where id ${d.anyOf(ids(d))}`)
const readSeqs = statement((d) => sql`select id, seq as mark from clients where id ${d.anyOf(ids(d))}`)
const markOf = (found: readonly { id: string; mark: number }[]): ReadonlyMap<string, number> =>
  new Map(found.map(({ id, mark }) => [id, mark]))

/** Revisions of tasks. Unknown ids are left out. */
export function* findRevisions(of: readonly string[]): Script<ReadonlyMap<string, number>> {
  return markOf(yield* rows(readRevisions({ ids: idRows(of) })))
}
/** The number of events in each client's feed. Unknown ids are left out. */
export function* findFeedSeqs(of: readonly string[]): Script<ReadonlyMap<string, number>> {
  return markOf(yield* rows(readSeqs({ ids: idRows(of) })))
}

const readEndings = statement(
  (d) => sql`select e.task_id as "taskId", e.body as body from ${d.records('tasks', { id: 'text', generation: 'int8' })} v
    ${d.join('events', 'e', sql`e.task_id = v.id and e.generation = v.generation and e.terminal = 1`)} where e.body <> ''`,
)
/** The envelopes of the terminal events of these generations, by task id. */
export function* findTerminalEvents(of: readonly Pick<Task, 'id' | 'generation'>[]): Script<ReadonlyMap<string, Json>> {
  const found = yield* rows<{ taskId: string; body: Json }>(readEndings({ tasks: of.map(({ id, generation }) => ({ id, generation })) }))
  return new Map(found.map(({ taskId, body }) => [taskId, body]))
}

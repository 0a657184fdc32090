/** Checkpoints of paged jobs: stored with the task of the job, in the commit of each page. */
import type { Json } from '../../core/model.ts'
import type { LeaseRef, PageCheckpoint } from '../interfaces.ts'
import { type BoundStatement, bind, first, type Script, sql, statement } from '../script.ts'

const reading = (lock: boolean) =>
  statement(
    (d) => sql`select checkpoint from tasks
      where id = ${bind('id')} and fence = ${bind('fence')} and coalesce(state, '') = 'running' ${lock ? d.lock : sql``}`,
  )
const readCheckpoint = reading(false)
const lockCheckpoint = reading(true)
const writeCheckpoint = statement(() => sql`update tasks set checkpoint = ${bind('checkpoint')} where id = ${bind('id')}`)

/** The last checkpoint, or `start`. Null: the lease was lost. With `lock`, no other claim takes the task before the commit. */
export function* loadCheckpoint<C extends PageCheckpoint>(
  { id, fence }: LeaseRef,
  start: C,
  { lock }: { lock: boolean },
): Script<C | null> {
  const held = yield* first<{ checkpoint: Json | null }>((lock ? lockCheckpoint : readCheckpoint)({ id, fence }))
  if (!held) return null
  return held.checkpoint === null ? start : (JSON.parse(held.checkpoint) as C)
}
export const writeCheckpointCall = ({ id }: LeaseRef, checkpoint: PageCheckpoint): BoundStatement =>
  writeCheckpoint({ id, checkpoint: JSON.stringify(checkpoint) })

/** What must hold for the feed of each client: consecutive numbers, up to the counter of the client. */
import type { Event, Millis } from '../../core/model.ts'
import { bind, now, rows, type Script, sql, statement } from '../script.ts'
import { TOMBSTONE_MS } from '../scripts/retention.ts'
import { idRows, ids } from '../scripts/shared.ts'
import { type CheckPage, Findings, LARGE_PAGE, lastId, limitLarge as limit, withoutDeletedClients } from './checks.ts'

/** A position in a client's feed. */
export type FeedMark = Pick<Event, 'clientId' | 'seq' | 'createdAt'>
const readFeed = statement(
  () => sql`select client_id as "clientId", seq, created_at as "createdAt" from events
    where (client_id, seq) > (${bind('clientId')}, ${bind('seq')}) order by client_id, seq ${limit}`,
)
const readClients = statement((d) => sql`select id, created_at as "createdAt", seq from clients where id ${d.anyOf(ids(d))}`)
const readCounts = statement(
  () => sql`select c.id as id, c.created_at as "createdAt", c.seq as seq, coalesce((select e.seq from events e where e.client_id = c.id order by e.seq desc limit 1), 0) as last,
      (select e.created_at from events e where e.client_id = c.id order by e.seq desc limit 1) as "lastAt"
    from clients c where c.id > ${bind('after')} and c.status in ('active', 'suspended') order by c.id ${limit}`,
)
const readPruned = statement((d) => sql`select client_id as id from tombstones where client_id ${d.anyOf(ids(d))} group by client_id`)
/** Events get their numbers shortly after their timestamps. */
const SLACK_MS: Millis = 3_600_000

interface Gap extends FeedMark {
  readonly upTo: number
}
/**
 * Adds the gaps without an explanation. Endpoint events older than `keptMs` are pruned, and a pruned task leaves a tombstone for a week. So a gap
 * after an event younger than both needs a tombstone of the client.
 */
function* checkGaps(findings: Findings, gaps: readonly Gap[], keptMs: Millis): Script<void> {
  const at = yield* now()
  const young = gaps.filter(({ createdAt }) => createdAt > at - Math.min(keptMs, TOMBSTONE_MS) + SLACK_MS)
  if (young.length === 0) return
  const found = yield* rows<{ id: string }>(readPruned({ ids: idRows(young.map(({ clientId }) => clientId)) }))
  const pruned = new Set(found.map(lastId))
  for (const { clientId, seq, upTo } of young)
    if (!pruned.has(clientId))
      findings.add('feeds', `The feed of ${clientId} continues with ${upTo} after ${seq}, but no event of it was pruned.`)
}

/** `keptMs`: how long endpoint events are kept. */
export function* checkFeeds(after: FeedMark | null, keptMs: Millis): Script<CheckPage<FeedMark>> {
  const page = yield* rows<FeedMark>(readFeed({ clientId: after?.clientId ?? '', seq: after?.seq ?? 0 }))
  const found = yield* rows<{ id: string; createdAt: Millis; seq: number }>(
    readClients({ ids: idRows(page.map(({ clientId }) => clientId)) }),
  )
  const clients = new Map(found.map((client) => [client.id, client]))
  const gaps: Gap[] = []
  const findings = new Findings()
  let before = after
  for (const mark of yield* withoutDeletedClients(page)) {
    const client = clients.get(mark.clientId)
    if (!client) findings.add('feeds', `Event ${mark.seq} is in the feed of ${mark.clientId}, which does not exist.`)
    else {
      if (mark.seq > client.seq)
        findings.add('feeds', `The feed of ${client.id} has event ${mark.seq}, but the client counts ${client.seq}.`)
      const last = before?.clientId === client.id ? before : { clientId: client.id, seq: 0, createdAt: client.createdAt }
      if (mark.seq > last.seq + 1) gaps.push({ ...last, upTo: mark.seq })
    }
    before = mark
  }
  yield* checkGaps(findings, gaps, keptMs)
  return findings.page(page, LARGE_PAGE, (last) => last)
}

/** Checks the ends of feeds: the last event has the number of the client's counter. */
export function* checkClients(after: string, keptMs: Millis): Script<CheckPage<string>> {
  const page = yield* rows<{ id: string; createdAt: Millis; seq: number; last: number; lastAt: Millis | null }>(readCounts({ after }))
  const gaps = page
    .filter(({ seq, last }) => last < seq)
    .map(({ id, createdAt, seq, last, lastAt }): Gap => ({ clientId: id, seq: last, createdAt: lastAt ?? createdAt, upTo: seq + 1 }))
  const findings = new Findings()
  yield* checkGaps(findings, gaps, keptMs)
  return findings.page(page, LARGE_PAGE, lastId)
}

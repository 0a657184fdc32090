/** What a claim visits: as little as if the backlog of others were not there. By the plans of the databases themselves. */
import { sql } from 'drizzle-orm'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { systemClock } from '../src/clock.ts'
import { type Driver, order } from '../src/store/driver.ts'
import { openPostgres } from '../src/store/postgres.ts'
import { type Call, query, type Script } from '../src/store/script.ts'
import { DELIVERIES, settleDeliveries, takingDeliveries } from '../src/store/scripts/deliveries.ts'
import { claim, mend } from '../src/store/scripts/lanes.ts'
import { findExpired, renew } from '../src/store/scripts/leases.ts'
import { newRound } from '../src/store/scripts/share.ts'
import { queueOf, settleTasks, takingTasks } from '../src/store/scripts/tasks.ts'
import { openSqlite } from '../src/store/sqlite.ts'
import { manualClock } from './support/manual-clock.ts'
import { engines, type Ground, openGround } from './support/stores.ts'
import { addClient, addEndpoint, addTask, claimOne, claimTasks, completed, delivered, idOf } from './support/work.ts'

const BACKLOG = 200_000
/** Rows any one statement may visit: some for each slot it fills, whatever waits elsewhere. */
const MOST_VISITED = 200

interface Visit {
  readonly text: string
  /** PostgreSQL: rows read from tables and indexes. */
  readonly rows: number
  /** SQLite: tables or indexes read from end to end. */
  readonly scans: readonly string[]
}

/** The same script, each of its statements explained before it runs. */
function* explained<R>(script: Script<R>, { dialect }: Driver, visits: Visit[]): Script<R> {
  let turn = script.next()
  while (!turn.done) {
    const asked = turn.value
    const answers: unknown[] = []
    for (const call of Array.isArray(asked) ? (asked as readonly Call[]) : [asked as Call]) {
      const text = (analyze: string) => query((d) => sql`explain ${sql.raw(analyze)} ${call.statement.build(d)}`, call.values)
      if (dialect.name === 'sqlite') visits.push({ ...planned((yield text('query plan')) as never), rows: 0 })
      else {
        // It is carried out to be measured, and undone.
        yield query(() => sql`savepoint measured`)
        const [answer] = (yield text('(analyze, format json, timing off, costs off)')) as unknown as [{ 'QUERY PLAN': [{ Plan: Plan }] }]
        yield query(() => sql`rollback to measured`)
        const { Plan: plan } = answer['QUERY PLAN'][0]
        visits.push({ text: JSON.stringify(plan), rows: visited(plan), scans: [] })
      }
      answers.push(yield call)
    }
    turn = script.next((Array.isArray(asked) ? answers : answers[0]) as never)
  }
  return turn.value
}

interface Plan {
  readonly 'Relation Name'?: string
  readonly 'Index Name'?: string
  readonly 'Actual Rows': number
  readonly 'Actual Loops': number
  readonly 'Rows Removed by Filter'?: number
  readonly 'Rows Removed by Index Recheck'?: number
  readonly Plans?: readonly Plan[]
}
function visited(plan: Plan): number {
  const read = plan['Actual Rows'] + (plan['Rows Removed by Filter'] ?? 0) + (plan['Rows Removed by Index Recheck'] ?? 0)
  const own = plan['Relation Name'] || plan['Index Name'] ? read * plan['Actual Loops'] : 0
  return (plan.Plans ?? []).reduce((sum, each) => sum + visited(each), own)
}
function planned(rows: readonly { detail: string }[]): Pick<Visit, 'text' | 'scans'> {
  const text = rows.map(({ detail }) => detail).join('\n')
  // What runs is few: the index of what runs may be read whole, as may the endpoints, rows of parameters and what was read before.
  const small = /CONSTANT ROW|VALUES CLAUSE|_running|^SCAN (endpoints|v|q|c|l|n|j|k|y|h0|h1|line|lane|\(subquery)/
  const scans = rows.map(({ detail }) => detail).filter((detail) => detail.startsWith('SCAN ') && !small.test(detail))
  return { text, scans }
}

describe.each(engines)('with 200,000 rows in the lanes of others, on %s', (engine) => {
  let ground: Ground
  let driver: Driver
  let quiet: string
  const view = { publicUrl: () => '', retrySchedule: [5], newId: idOf, limited: new Set<string>() }

  beforeAll(async () => {
    ground = await openGround(engine)
    driver =
      engine === 'sqlite'
        ? openSqlite(ground.url.slice('file:'.length), manualClock())
        : await openPostgres(ground.url, systemClock(), () => {})
    const { store } = ground
    const busy = await addClient(store)
    // A task's lane that is full, with one running and a mountain behind it; and an endpoint that is paused.
    await addTask(store, { clientId: busy, concurrencyKey: 'a', callback: null })
    const endpointId = await addEndpoint(store, { clientId: busy })
    await addTask(store, { clientId: busy, type: 'other.type' })
    await store.settleTask(completed(await claimOne(store, {}, ['other.type'])))
    await store.changeEndpoint(endpointId, busy, { paused: true }, null)
    const many =
      engine === 'postgres'
        ? `generate_series(1, ${BACKLOG}) s(n)`
        : `(with recursive s(n) as (select 1 union all select n + 1 from s where n < ${BACKLOG}) select n from s) s`
    const copy = async (table: string, columns: string) =>
      ground.sql(
        `insert into ${table} (id, ${columns}) select 'copy_' || (1000000 + s.n), ${columns} from ${table}, ${many} where state = 'pending' and id not like 'copy%'`,
      )
    await copy(
      'tasks',
      'client_id, lane_id, state, line, rank, due_at, tries, max_tries, fence, type, generation, revision, input, progress, metadata, priority, concurrency_key, created_at, updated_at, timeout_seconds',
    )
    await copy(
      'deliveries',
      'client_id, lane_id, state, line, rank, due_at, tries, max_tries, fence, event_id, event_type, task_id, endpoint_id, trigger, created_at, updated_at',
    )
    await claimTasks(store)
    quiet = await addClient(store)
    await addEndpoint(store, { clientId: quiet })
  }, 60_000)
  afterAll(async () => {
    await driver.close()
    await ground.close()
  })

  const measure = async <R>(script: () => Script<R>): Promise<{ answer: R; visits: readonly Visit[] }> => {
    const visits: Visit[] = []
    const answer = await driver.write(order.other, () => {
      visits.length = 0
      return explained(script(), driver, visits)
    })
    return { answer, visits }
  }
  const expectFew = (visits: readonly Visit[]): void => {
    expect(visits.length).toBeGreaterThan(0)
    for (const { text, rows, scans } of visits) {
      expect(rows, text).toBeLessThanOrEqual(MOST_VISITED)
      expect(scans, text).toEqual([])
    }
  }

  // SQLite looks at its tables only when told to, which nobody does.
  test.each(engine === 'sqlite' ? ['as loaded'] : ['as loaded', 'as the database has come to know it'])(
    'claims and settlements of another’s work visit none of them: %s',
    async (state) => {
      if (state !== 'as loaded') await ground.sql('analyze')
      const { store } = ground
      const { id } = await addTask(store, { clientId: quiet })
      const queues = [{ id: queueOf('report.build'), cap: state === 'as loaded' ? null : 1_000 }]
      const claimed = await measure(() => claim(takingTasks(30_000, 'boot_a', view), queues, 10, newRound()))
      expect(claimed.answer.taken.map((task) => task.id)).toEqual([id])
      expectFew(claimed.visits)
      const [task] = claimed.answer.taken
      expectFew((await measure(() => renew('task', [task!], 30_000))).visits)
      expectFew((await measure(() => findExpired('task', 10, 'boot_a'))).visits)
      const settled = await measure(() => settleTasks([completed(task!)], view))
      expectFew(settled.visits)
      expect((await store.findTasks([id]))[0]!.state).toBe('completed')

      const sending = await measure(() => claim(takingDeliveries(30_000, 'boot_a'), [{ id: DELIVERIES, cap: null }], 10, newRound()))
      expect(sending.answer.taken.map((delivery) => delivery.taskId)).toEqual([id])
      expectFew(sending.visits)
      expectFew((await measure(() => settleDeliveries([delivered(sending.answer.taken[0]!)], view))).visits)
    },
  )

  test('a claim that finds nothing, and the search for lost turns, visit none of them', async () => {
    const nothing = await measure(() =>
      claim(takingTasks(30_000, 'boot_a', view), [{ id: queueOf('report.build'), cap: null }], 10, newRound()),
    )
    expect(nothing.answer.taken).toEqual([])
    expectFew(nothing.visits)
    expectFew((await measure(() => mend('task'))).visits)
    expectFew((await measure(() => mend('delivery'))).visits)
  })

  test.runIf(engine === 'sqlite')(
    'a claim that finds nothing and a search for lost turns take no longer than a look at a few rows',
    async () => {
      // A walk along the backlog takes tens of milliseconds at best; the fastest of many is not slowed by others on the machine.
      const fastest = async (script: () => Script<unknown>): Promise<number> => {
        let best = Infinity
        for (let i = 0; i < 20; i++) {
          const startedAt = performance.now()
          await driver.write(order.other, script)
          best = Math.min(best, performance.now() - startedAt)
        }
        return best
      }
      const round = newRound()
      expect(
        await fastest(() => claim(takingTasks(30_000, 'boot_a', view), [{ id: queueOf('report.build'), cap: null }], 10, round)),
      ).toBeLessThan(5)
      expect(await fastest(() => claim(takingDeliveries(30_000, 'boot_a'), [{ id: DELIVERIES, cap: null }], 10, round))).toBeLessThan(5)
      expect(await fastest(() => mend('task'))).toBeLessThan(5)
      expect(await fastest(() => mend('delivery'))).toBeLessThan(5)
    },
  )
})

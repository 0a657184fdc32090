/** What the statements of a script read, by the plans of the database. */
import { sql } from 'drizzle-orm'
import type { Driver } from '../../src/store/driver.ts'
import { type BoundStatement, query, type Script } from '../../src/store/script.ts'

export interface Visit {
  readonly text: string
  /** PostgreSQL: rows read from tables and indexes. */
  readonly rows: number
  /** SQLite: tables or indexes read completely. */
  readonly scans: readonly string[]
}

/** The same script, with each statement explained before it runs. */
export function* explained<R>(script: Script<R>, { dialect }: Driver, visits: Visit[]): Script<R> {
  let turn = script.next()
  while (!turn.done) {
    const asked = turn.value
    const answers: unknown[] = []
    for (const call of Array.isArray(asked) ? (asked as readonly BoundStatement[]) : [asked as BoundStatement]) {
      const text = (analyze: string) => query((d) => sql`explain ${sql.raw(analyze)} ${call.statement.build(d)}`, call.values)
      if (dialect.name === 'sqlite') visits.push({ ...planned((yield text('query plan')) as never), rows: 0 })
      else {
        // `analyze` runs the statement, so it is rolled back.
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
  // Small enough to read completely: the indexes of running rows and of unverified endpoints, the endpoints, rows of parameters, and subqueries.
  const small = /CONSTANT ROW|VALUES CLAUSE|_running|_unproven|^SCAN (endpoints|v|q|p|c|l|n|j|k|y|h0|h1|line|lane|\(subquery)/
  const scans = rows.map(({ detail }) => detail).filter((detail) => detail.startsWith('SCAN ') && !small.test(detail))
  return { text, scans }
}

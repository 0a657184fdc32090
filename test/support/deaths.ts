/**
 * Loaded into a server with `node --import`, this kills it with SIGKILL at an exact point: before, during or after the n-th commit of a kind.
 * RINGBACK_TEST_DEATH sets the point, as `<kind> <when> <n>`.
 */
import Database from 'better-sqlite3'
import pg from 'pg'

/** The statement that identifies each kind of commit. */
const kinds = {
  intake: /^insert into tasks/,
  claim: /^update (tasks|deliveries) set state = 'running'/,
  settle: /^update tasks set state = case/,
  record: /^insert into attempts/,
} as const
export type Kind = keyof typeof kinds
export type When = 'before' | 'during' | 'after'
export const points: readonly (readonly [Kind, When])[] = (Object.keys(kinds) as Kind[]).flatMap((kind) =>
  (['before', 'during', 'after'] as const).map((when) => [kind, when] as const),
)

const asked = process.env.RINGBACK_TEST_DEATH
if (asked !== undefined) {
  const [kind, when, n] = asked.split(' ') as [Kind, When, string]
  let left = Number(n)
  const die = (): void => void process.kill(process.pid, 'SIGKILL')
  /** Whether this commit is the one. */
  const counts = (texts: readonly string[]): boolean => texts.some((text) => kinds[kind].test(text)) && --left === 0
  mortalSqlite(counts, when, die)
  mortalPostgres(counts, when, die)
}

function mortalSqlite(counts: (texts: readonly string[]) => boolean, when: When, die: () => void): void {
  const prepare = Database.prototype.prepare
  const said = new WeakMap<object, string[]>()
  Database.prototype.prepare = function (this: Database.Database, text: string) {
    const statement = prepare.call(this, text)
    for (const name of ['run', 'all'] as const) {
      // biome-ignore lint/suspicious/noExplicitAny: whatever it is called with is handed on
      const carryOut = statement[name].bind(statement) as (...values: any[]) => any
      // biome-ignore lint/suspicious/noExplicitAny: see above
      statement[name] = (...values: any[]) => {
        if (text === 'begin immediate') said.set(this, [])
        else if (text !== 'commit') said.get(this)?.push(text)
        const it = text === 'commit' && counts(said.get(this) ?? [])
        if (it && when === 'before') die()
        const answer = carryOut(...values)
        // Nothing is on its way here: a commit is one call.
        if (it) die()
        return answer
      }
    }
    return statement
  } as typeof prepare
}

function mortalPostgres(counts: (texts: readonly string[]) => boolean, when: When, die: () => void): void {
  const query = pg.Client.prototype.query
  const said = new WeakMap<object, string[]>()
  pg.Client.prototype.query = function (this: pg.Client, ...given: unknown[]) {
    const text = typeof given[0] === 'string' ? given[0] : (given[0] as { text: string }).text
    if (text.startsWith('begin')) said.set(this, [])
    else if (text !== 'commit') said.get(this)?.push(text)
    const it = text === 'commit' && counts(said.get(this) ?? [])
    if (it && when === 'before') die()
    // biome-ignore lint/suspicious/noExplicitAny: whatever it is called with is handed on
    const answer = (query as any).apply(this, given)
    if (it && when === 'during') setImmediate(die)
    if (it && when === 'after') answer.then(die, die)
    return answer
  } as typeof query
}

/**
 * One database, and one driver for each process that uses it. Statements, scripts and everything above them are the product’s. The connection is
 * simulated: latency before and after the commit, refusals, commits whose response is lost, and lost notifications.
 */
import Database from 'better-sqlite3'
import type { Millis } from '../../src/core/model.ts'
import { type Driver, render } from '../../src/store/driver.ts'
import type { Store } from '../../src/store/interfaces.ts'
import { migrate } from '../../src/store/migrate.ts'
import { type BoundStatement, type Script, type Statement, sqliteDialect } from '../../src/store/script.ts'
import { connect } from '../../src/store/sqlite.ts'
import { type Auditor, audit } from './auditor.ts'
import type { Life } from './machine.ts'
import type { World } from './world.ts'

/** What the way to the database is like at the moment. */
export interface Weather {
  /** The mean of one way, in milliseconds. */
  readonly storeMs: Millis
  /** A script is refused before it begins. */
  readonly refuses: number
  /** A script commits, and its caller hears of a lost connection. */
  readonly losesAnswers: number
  /** A script is on its way for `lagMs`, and carried out even if who sent it has died since. */
  readonly lags: number
  readonly lagMs: Millis
  /** A word to another process never arrives. */
  readonly losesWords: number
}

/** A change of the product that a test plants, to see that it is found. */
export interface Sabotage {
  /** Rewrites the text of a statement. */
  text?(sql: string): string
  /** Leaves calls out of a transaction; those it answers true of are carried out by another one, later. */
  late?(sql: string, first: string): 'never' | 'later' | null
  /** What the routes are given for a store. */
  store?(store: Store): Store
  /** What counts as the lease that a worker presents, where `newest` is the one its task was handed out with last. */
  lease?(presented: string, newest: string): string
}

class StoreFailure extends Error {
  override readonly name = 'StoreFailure'
  readonly code = 'ECONNRESET'
}
export const isStoreFailure = (error: unknown): boolean =>
  error instanceof StoreFailure || (error instanceof Error && error.cause instanceof StoreFailure)

export interface Shared {
  readonly auditor: Auditor
  /** A driver for one process; it hears the words of all of them. `weather` is asked at every call. */
  driver(name: string, life: Life, weather: () => Weather): Driver
  /** Looks behind everybody's back, as nothing else would: no weather, no wait. */
  read<R>(script: Script<R>): Promise<R>
  /** The same in a text. */
  sql<T>(text: string): T[]
  close(): void
}

/** The bytes of a database that is migrated, to begin every run with. */
export async function emptyDatabase(): Promise<Buffer> {
  const connection = connect(':memory:', { now: () => 0 }, false)
  const run = async <R>(script: Script<R>): Promise<R> => connection.run(script)
  const bare = { dialect: sqliteDialect, write: <R>(_: number, make: () => Script<R>) => run(make()) }
  await migrate(bare as unknown as Driver)
  return connection.db.serialize()
}

/** `now` is the clock of the database. */
export function openShared(
  empty: Buffer,
  world: World,
  now: () => Millis,
  caps: ReadonlyMap<string, number>,
  sabotage: Sabotage | null,
): Shared {
  const connection = connect(empty, { now }, false)
  const { db } = connection
  const auditor = audit(db, world, caps)
  if (sabotage?.text) {
    const prepare = db.prepare.bind(db)
    db.prepare = ((text: string) => prepare(sabotage.text!(text))) as typeof db.prepare
  }
  const listeners: { readonly life: Life; readonly hear: (word: string) => void; readonly weather: () => Weather }[] = []

  const texts = new Map<Statement, string>()
  const textOf = ({ statement }: BoundStatement): string => {
    const text = texts.get(statement) ?? render(sqliteDialect, statement).text
    texts.set(statement, text)
    return text
  }
  /** The script without what the sabotage leaves out. */
  function* without(script: Script<unknown>, later: BoundStatement[]): Script<unknown> {
    let first: string | null = null
    let turn = script.next()
    while (!turn.done) {
      const asked = turn.value
      const calls: readonly BoundStatement[] = Array.isArray(asked) ? asked : [asked as BoundStatement]
      first ??= textOf(calls[0]!)
      const fate = sabotage!.late!(textOf(calls[0]!), first)
      if (fate === 'later') later.push(...calls)
      turn = script.next((fate === null ? yield asked : []) as never)
    }
    return turn.value
  }
  const transact = <R>(who: string, script: Script<R>, tells: Set<string>): R => {
    connection.begin.run()
    let value: R
    try {
      value = connection.run(script, tells)
      connection.commit.run()
    } catch (error) {
      if (db.inTransaction) db.exec('rollback')
      auditor.undone()
      throw error
    }
    auditor.committed(who)
    return value
  }

  return {
    auditor,
    read: async (script) => connection.run(script),
    sql: <T>(text: string) => db.prepare(text).all() as T[],
    close: () => void db.close(),
    driver(name, life, weather) {
      const own = new Set<(word: string) => void>()
      const way = (): Millis => weather().storeMs * (0.25 + 1.5 * world.random())
      const tell = (word: string): void => {
        for (const each of listeners) {
          if (each.life === life) world.after(0, life, () => each.hear(word))
          else if (!world.chance(each.weather().losesWords)) world.after(10 + way(), each.life, () => each.hear(word))
        }
      }
      const there = <R>(run: (tells: Set<string>) => R): Promise<R> =>
        new Promise((resolve, reject) => {
          const back = (end: () => void): void => void world.after(way(), life, end)
          const lags = world.chance(weather().lags)
          world.after(lags ? weather().lagMs * world.between(0.2, 1) : way(), lags ? null : life, () => {
            if (world.chance(weather().refuses)) return back(() => reject(new StoreFailure('the store does not answer')))
            const tells = new Set<string>()
            let value: R
            try {
              value = run(tells)
            } catch (error) {
              return back(() => reject(error))
            }
            for (const word of tells) tell(word)
            if (!world.chance(weather().losesAnswers)) return back(() => resolve(value))
            world.note(name, 'never hears of that commit')
            back(() => reject(new StoreFailure('the connection was lost')))
          })
        })
      listeners.push({
        life,
        weather,
        hear: (word) => {
          for (const each of own) each(word)
        },
      })
      return {
        dialect: sqliteDialect,
        writeError: null,
        maxConcurrentWrites: 1,
        write: (_order, make) =>
          there((tells) => {
            if (!sabotage?.late) return transact(name, make(), tells)
            const later: BoundStatement[] = []
            const value = transact(name, without(make(), later) as ReturnType<typeof make>, tells)
            if (later.length > 0)
              world.after(way(), life, () =>
                transact(
                  name,
                  (function* (): Script<void> {
                    yield later
                  })(),
                  new Set(),
                ),
              )
            return value
          }),
        read: (script) => there(() => connection.run(script)),
        isUnavailable: () => false,
        isItemError: (error) => error instanceof Database.SqliteError && error.code.startsWith('SQLITE_CONSTRAINT'),
        notify: tell,
        onNotify(listener) {
          own.add(listener)
          return () => own.delete(listener)
        },
        async close() {
          own.clear()
        },
      }
    },
  }
}

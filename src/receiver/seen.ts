/** Which events were handled already: a webhook comes at least once, and may come again for as long as 30 days. */

/** What became of an event so far: nobody has it (and now the caller does), another call of the handler has it, or it was handled. */
export type Claim = 'new' | 'busy' | 'handled'

/**
 * A memory of event ids, in two phases: who claims an id handles the event, then commits it or, when the handler failed, releases it. So a failed event comes
 * again, an event whose first call still runs is not taken for handled, and one whose process died is free again when its claim is over. Times are seconds since the epoch.
 */
export interface SeenIds {
  /** Claims `id` until `untilSeconds`, unless it is claimed or remembered beyond `nowSeconds`. Of two calls at the same time only one may get `new`. */
  claim(id: string, nowSeconds: number, untilSeconds: number): Claim | Promise<Claim>
  /** The event is handled: remember it until `untilSeconds`. */
  commit(id: string, untilSeconds: number): void | Promise<void>
  /** The handler failed: forget the claim that ends at `untilSeconds`, but nobody else's. */
  release(id: string, untilSeconds: number): void | Promise<void>
}

/** Most ids a {@link memorySeen} keeps when it is not told: some 20 MB. */
const MOST = 100_000

/**
 * A memory within this process: for one receiver that may forget when it restarts. Beyond `most` ids (default 100,000) the oldest are forgotten.
 * Throws a TypeError when `most` is not a whole number of 1 or more.
 */
export function memorySeen({ most = MOST }: { readonly most?: number } = {}): SeenIds {
  if (!Number.isSafeInteger(most) || most < 1)
    throw new TypeError(`memorySeen keeps a whole number of ids, 1 or more, but most is ${most}.`)
  /** The oldest first. */
  const ids = new Map<string, { readonly handled: boolean; readonly until: number }>()
  const keep = (id: string, handled: boolean, until: number): void => {
    ids.delete(id)
    ids.set(id, { handled, until })
    if (ids.size > most) for (const oldest of ids.keys()) return void ids.delete(oldest)
  }
  return {
    claim(id, now, until) {
      const known = ids.get(id)
      if (known !== undefined && known.until > now) return known.handled ? 'handled' : 'busy'
      keep(id, false, until)
      return 'new'
    },
    commit(id, until) {
      keep(id, true, until)
    },
    release(id, until) {
      const known = ids.get(id)
      if (known?.handled === false && known.until === until) ids.delete(id)
    },
  }
}

/** Runs one statement and answers its rows. Every statement of {@link sqlSeen} answers rows, and commits by itself. */
export type SqlQuery = (sql: string, values: (string | number)[]) => readonly unknown[] | Promise<readonly unknown[]>

/**
 * A memory in a table of yours, shared by every process of the receiver. For pg and better-sqlite3 (or node:sqlite):
 *
 *     sqlSeen(async (sql, values) => (await pool.query(sql, values)).rows)
 *     sqlSeen((sql, values) => db.prepare(sql).all(...values), { placeholders: '?' })
 *
 * The table, in either database:
 *
 *     create table webhooks_seen (id text primary key, handled integer not null, until_seconds bigint not null)
 *
 * Rows whose `until_seconds` is over are not heeded: delete them as often as you like. Throws a TypeError when `table` is not a plain name.
 */
export function sqlSeen(
  query: SqlQuery,
  { table = 'webhooks_seen', placeholders = '$' }: { readonly table?: string; readonly placeholders?: '$' | '?' } = {},
): SeenIds {
  // It is put into statements as it stands.
  if (!/^[A-Za-z_]\w*(\.[A-Za-z_]\w*)?$/.test(table))
    throw new TypeError(`The table must be a plain name, or a schema and a name, but it is ${JSON.stringify(table)}.`)
  const run = async (sql: string, ...values: (string | number)[]) => {
    let nth = 0
    return query(placeholders === '?' ? sql : sql.replaceAll('?', () => `$${++nth}`), values)
  }
  return {
    async claim(id, now, until) {
      const taken = await run(
        `insert into ${table} as seen (id, handled, until_seconds) values (?, 0, ?)
         on conflict (id) do update set handled = 0, until_seconds = excluded.until_seconds where seen.until_seconds <= ? returning handled`,
        id,
        until,
        now,
      )
      if (taken.length > 0) return 'new'
      const [row] = (await run(`select handled from ${table} where id = ?`, id)) as { readonly handled: unknown }[]
      // Without a row it was released a moment ago: whoever asks next gets it.
      return Number(row?.handled) === 1 ? 'handled' : 'busy'
    },
    async commit(id, until) {
      await run(
        `insert into ${table} (id, handled, until_seconds) values (?, 1, ?)
         on conflict (id) do update set handled = 1, until_seconds = excluded.until_seconds returning handled`,
        id,
        until,
      )
    },
    async release(id, until) {
      await run(`delete from ${table} where id = ? and handled = 0 and until_seconds = ? returning handled`, id, until)
    },
  }
}

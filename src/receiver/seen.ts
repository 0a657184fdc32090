/** Stores which events were handled: a webhook is sent at least once, and possibly again for up to 30 days. */

/** `new`: the caller has claimed the event; `busy`: another call of the handler runs; `handled`: it was handled. */
export type Claim = 'new' | 'busy' | 'handled'

/**
 * A store of event ids with two phases: the call that claims an id handles the event, then commits it or, when the handler failed, releases it. So a failed event is
 * handled again, a running one does not count as handled, and one whose process died is free when its claim expires. Times are seconds since the epoch.
 */
export interface SeenIds {
  /** Claims `id` until `untilSeconds`, unless it is claimed or handled beyond `nowSeconds`. Of concurrent calls only one may get `new`. */
  claim(id: string, nowSeconds: number, untilSeconds: number): Claim | Promise<Claim>
  /** Stores the event as handled until `untilSeconds`. */
  commit(id: string, untilSeconds: number): void | Promise<void>
  /** The handler failed: deletes the claim that ends at `untilSeconds`, and no other. */
  release(id: string, untilSeconds: number): void | Promise<void>
}

/** About 20 MB. */
const DEFAULT_MOST = 100_000

/**
 * Stores ids in this process, until it restarts. Beyond `most` ids (default 100,000) the oldest are deleted.
 * Throws a TypeError when `most` is not a whole number of 1 or more.
 */
export function memorySeen({ most = DEFAULT_MOST }: { readonly most?: number } = {}): SeenIds {
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

/** Runs one statement and returns its rows. Every statement of {@link sqlSeen} returns rows and is its own transaction. */
export type SqlQuery = (sql: string, values: (string | number)[]) => readonly unknown[] | Promise<readonly unknown[]>

/**
 * Stores ids in your database, shared by all processes of the receiver. For pg and better-sqlite3 (or node:sqlite):
 *
 *     sqlSeen(async (sql, values) => (await pool.query(sql, values)).rows)
 *     sqlSeen((sql, values) => db.prepare(sql).all(...values), { placeholders: '?' })
 *
 * The table, in either database:
 *
 *     create table webhooks_seen (id text primary key, handled integer not null, until_seconds bigint not null)
 *
 * Rows with a past `until_seconds` are ignored: delete them at any time. Throws a TypeError when `table` is not a plain name.
 */
export function sqlSeen(
  query: SqlQuery,
  { table = 'webhooks_seen', placeholders = '$' }: { readonly table?: string; readonly placeholders?: '$' | '?' } = {},
): SeenIds {
  // The name is put into statements unquoted.
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
      // Without a row the claim was just released: the next call gets it.
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

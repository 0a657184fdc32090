/** What carries scripts to a database. */
import { is, Placeholder, type Query } from 'drizzle-orm'
import type { Call, Dialect, Script, Statement } from './script.ts'

/** Within one group commit: renewals first, so that a busy store loses no leases; intake last. */
export const order = { renewal: 0, settlement: 1, claim: 2, other: 3, intake: 4 } as const
export type Order = (typeof order)[keyof typeof order]

export interface Driver {
  readonly dialect: Dialect
  /** Commits of one kind that may run side by side. */
  readonly width: number
  /** One transaction. `make` is called when it starts, and again when it has to be repeated. */
  write<R>(order: Order, make: () => Script<R>): Promise<R>
  /** Reads; nothing is written. */
  read<R>(script: Script<R>): Promise<R>
  /** Whether one item of a merged statement is to blame for this error. */
  blames(error: unknown): boolean
  /** Tells every node, this one included. Repeats are merged. */
  tell(word: string): void
  onTold(listener: (word: string) => void): () => void
  close(): Promise<void>
}

/** A statement as its database takes it; `prepared` is the driver's own handle on it. */
export interface Compiled<Prepared> {
  readonly text: string
  readonly prepared: Prepared
  /** The values in the order of the text. Arrays and objects travel as JSON. */
  values(call: Call, now: number | null): unknown[]
}

/** Renders each statement once and remembers it. */
export function compiler<Prepared>(
  dialect: Dialect,
  render: (sql: ReturnType<Statement['build']>) => Query,
  prepare: (text: string) => Prepared,
): (call: Call) => Compiled<Prepared> {
  const known = new Map<Statement, Compiled<Prepared>>()
  return ({ statement }) => {
    const found = known.get(statement)
    if (found) return found
    const { sql, params } = render(statement.build(dialect))
    const slots = params.map((param) => (is(param, Placeholder) ? { name: param.name as string } : { value: param }))
    const values = (call: Call, now: number | null): unknown[] =>
      slots.map((slot) => {
        if (!('name' in slot)) return slot.value
        const value = slot.name === 'now' ? now : call.values[slot.name]
        if (value === undefined) throw new Error(`No value was given for "${slot.name}" in: ${sql}`)
        return typeof value === 'object' && value !== null ? JSON.stringify(value) : value
      })
    const compiled = { text: sql, prepared: prepare(sql), values }
    if (!statement.fresh) known.set(statement, compiled)
    return compiled
  }
}

/** Statistics of one column of a table. */

export type Kind = 'number' | 'boolean' | 'date' | 'string' | 'object'

export interface ColumnProfile {
  readonly name: string
  /** The kind of its values: `mixed` for several kinds, `empty` for none. */
  readonly type: Kind | 'mixed' | 'empty'
  /** Values that are not null. */
  readonly count: number
  readonly nulls: number
  readonly distinct: number
  /** Of numbers and dates, otherwise null. */
  readonly min: number | string | null
  readonly max: number | string | null
  /** Of numbers. */
  readonly mean: number | null
  readonly quantiles: {
    readonly p05: number
    readonly p25: number
    readonly p50: number
    readonly p75: number
    readonly p95: number
  } | null
  /** The most frequent values, as text. */
  readonly top: readonly { readonly value: string; readonly count: number }[]
}

export interface Column {
  add(value: unknown): void
  /** `rows`: rows of the table. Rows without the column count as null. */
  profile(rows: number): ColumnProfile
}

const MAX_TOP = 5
const LONGEST_TOP = 100
/** Year first, or like "Jun 12 1998": formats that mean nothing else. */
const DATE = /^(\d{4}[-/]\d{1,2}[-/]\d{1,2}([T ]\d{1,2}:\d{2}.*)?|[A-Z][a-z]{2} \d{1,2} \d{4})$/

export function createColumn(name: string): Column {
  const kinds = new Map<Kind, number>()
  const counts = new Map<string, number>()
  const numbers: number[] = []
  let [first, last]: ({ at: number; text: string } | null)[] = [null, null]
  let count = 0

  return {
    add(value) {
      if (value === null || value === undefined) return
      const text = typeof value === 'string' ? value : JSON.stringify(value)
      const kind = kindOf(value)
      count++
      kinds.set(kind, (kinds.get(kind) ?? 0) + 1)
      counts.set(text, (counts.get(text) ?? 0) + 1)
      if (kind === 'number') numbers.push(value as number)
      if (kind !== 'date') return
      const at = Date.parse(text)
      if (!first || at < first.at) first = { at, text }
      if (!last || at > last.at) last = { at, text }
    },
    profile(rows) {
      const type = kinds.size > 1 ? 'mixed' : ([...kinds.keys()][0] ?? 'empty')
      const sorted = type === 'number' ? Float64Array.from(numbers).sort() : null
      const at = (share: number): number => quantile(sorted!, share)
      return {
        name,
        type,
        count,
        nulls: rows - count,
        distinct: counts.size,
        min: sorted ? sorted[0]! : type === 'date' ? first!.text : null,
        max: sorted ? sorted.at(-1)! : type === 'date' ? last!.text : null,
        mean: sorted ? sorted.reduce((sum, value) => sum + value, 0) / sorted.length : null,
        quantiles: sorted && { p05: at(0.05), p25: at(0.25), p50: at(0.5), p75: at(0.75), p95: at(0.95) },
        top: [...counts]
          .sort(([a, m], [b, n]) => n - m || (a < b ? -1 : 1))
          .slice(0, MAX_TOP)
          .map(([value, times]) => ({ value: value.slice(0, LONGEST_TOP), count: times })),
      }
    },
  }
}

function kindOf(value: unknown): Kind {
  if (typeof value === 'number' || typeof value === 'boolean') return typeof value as Kind
  if (typeof value !== 'string') return 'object'
  return DATE.test(value) && !Number.isNaN(Date.parse(value)) ? 'date' : 'string'
}

/** Interpolated between the two nearest values. */
function quantile(sorted: Float64Array, share: number): number {
  const place = (sorted.length - 1) * share
  const below = sorted[Math.floor(place)]!
  return below + (sorted[Math.ceil(place)]! - below) * (place % 1)
}

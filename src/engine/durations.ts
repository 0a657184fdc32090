/** How long runs of each task type lately took: what an estimate goes by where a run has reported no progress. */
import type { Millis } from '../core/model.ts'

/** Runs remembered of each type: recent enough to follow a change, many enough not to follow a single one. */
const REMEMBERED = 64
/** Their median is worked out anew after so many more runs. */
const WORKED_OUT_EVERY = 8

export interface Durations {
  /** A run completed. */
  record(type: string, durationMs: Millis): void
  /** The median of the latest completed runs this node has seen; null: it has seen none. */
  median(type: string): Millis | null
}

export function createDurations(): Durations {
  const types = new Map<string, { readonly latest: Millis[]; seen: number; medianAt: number; median: Millis }>()
  return {
    record(type, durationMs) {
      const known = types.get(type) ?? { latest: [], seen: 0, medianAt: 0, median: 0 }
      types.set(type, known)
      known.latest[known.seen++ % REMEMBERED] = durationMs
    },
    median(type) {
      const known = types.get(type)
      if (!known) return null
      if (known.medianAt === 0 || known.seen - known.medianAt >= Math.min(known.medianAt, WORKED_OUT_EVERY)) {
        known.medianAt = known.seen
        const sorted = known.latest.toSorted((a, b) => a - b)
        known.median = Math.round(sorted[Math.floor(sorted.length / 2)]!)
      }
      return known.median
    },
  }
}

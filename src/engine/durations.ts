/** The median duration of recent runs of each task type: the basis of time estimates for runs that report no progress. */
import type { Millis } from '../core/model.ts'

/** Durations stored per type: few enough to follow a change, enough to outweigh one odd run. */
const WINDOW = 64
/** Runs between two computations of the median. */
const RECOMPUTE_EVERY = 8

export interface Durations {
  record(type: string, durationMs: Millis): void
  /** Null: no run of this type has completed on this node. */
  median(type: string): Millis | null
}

export function createDurations(): Durations {
  const types = new Map<string, { readonly latest: Millis[]; seen: number; medianAt: number; median: Millis }>()
  return {
    record(type, durationMs) {
      const known = types.get(type) ?? { latest: [], seen: 0, medianAt: 0, median: 0 }
      types.set(type, known)
      known.latest[known.seen++ % WINDOW] = durationMs
    },
    median(type) {
      const known = types.get(type)
      if (!known) return null
      if (known.medianAt === 0 || known.seen - known.medianAt >= Math.min(known.medianAt, RECOMPUTE_EVERY)) {
        known.medianAt = known.seen
        const sorted = known.latest.toSorted((a, b) => a - b)
        known.median = Math.round(sorted[Math.floor(sorted.length / 2)]!)
      }
      return known.median
    },
  }
}

/** Virtual time: every event is in one queue, and all randomness comes from one seeded generator. */
import { setImmediate as turn } from 'node:timers/promises'
import type { Millis } from '../../src/core/model.ts'
import { type Random, seededRandom } from '../support/load.ts'

/** The process that an event belongs to. Events of a dead process are dropped, events of a stalled one are delayed. */
export interface Owner {
  alive: boolean
  stalledUntil: Millis
}

/** A sentence about the system that did not hold. */
export class Violation extends Error {
  override readonly name = 'Violation'
}

export interface World {
  readonly seed: number
  /** Milliseconds of true time since the beginning. */
  now(): Millis
  /** Carries `run` out once, `ms` from now. Null: nobody's memory, it happens whoever dies. The answer takes it back. */
  after(ms: Millis, owner: Owner | null, run: () => void): () => void
  /** Resolves after `ms`, for the world's own actors. */
  sleep(ms: Millis): Promise<void>
  /** Carries out what falls due until that time, or until it holds. Rejects at the first violation. */
  pass(ms: Millis, until?: () => boolean): Promise<void>

  /** A number in [0, 1). */
  readonly random: Random
  chance(probability: number): boolean
  between(least: number, most: number): number
  whole(least: number, most: number): number
  pick<T>(list: readonly T[]): T
  bytes(n: number): Uint8Array

  /** Writes down what happened. */
  note(who: string, what: string): void
  readonly trace: readonly string[]
  /** Something did not hold: the run ends. */
  violated(sentence: string): void
}

interface Happening {
  at: Millis
  readonly nth: number
  readonly owner: Owner | null
  /** Null: taken back. */
  run: (() => void) | null
}
const before = (a: Happening, b: Happening): boolean => a.at < b.at || (a.at === b.at && a.nth < b.nth)

export function createWorld(seed: number): World {
  const { random } = seededRandom(seed)
  const heap: Happening[] = []
  const trace: string[] = []
  let time = 0
  let count = 0
  let violation: Violation | null = null

  const push = (happening: Happening): void => {
    let i = heap.length
    heap.push(happening)
    while (i > 0) {
      const parent = (i - 1) >> 1
      if (!before(happening, heap[parent]!)) break
      heap[i] = heap[parent]!
      i = parent
    }
    heap[i] = happening
  }
  const pop = (): Happening | undefined => {
    const first = heap[0]
    const last = heap.pop()
    if (!first || !last || heap.length === 0) return first
    let i = 0
    for (;;) {
      let child = 2 * i + 1
      if (child >= heap.length) break
      if (child + 1 < heap.length && before(heap[child + 1]!, heap[child]!)) child++
      if (!before(heap[child]!, last)) break
      heap[i] = heap[child]!
      i = child
    }
    heap[i] = last
    return first
  }

  const after: World['after'] = (ms, owner, run) => {
    const happening: Happening = { at: time + Math.max(0, ms), nth: count++, owner, run }
    push(happening)
    return () => {
      happening.run = null
    }
  }
  const between = (least: number, most: number): number => least + random() * (most - least)
  const whole = (least: number, most: number): number => Math.floor(between(least, most + 1))
  return {
    seed,
    now: () => time,
    after,
    sleep: (ms) => new Promise((resolve) => after(ms, null, resolve)),
    async pass(ms, until) {
      const end = time + ms
      while (heap[0] && heap[0].at <= end && !until?.()) {
        const next = pop()!
        if (next.run === null || next.owner?.alive === false) continue
        if (next.owner && next.owner.stalledUntil > Math.max(time, next.at)) {
          next.at = next.owner.stalledUntil
          push(next)
          continue
        }
        time = Math.max(time, next.at)
        next.run()
        // Every promise that this settled has been followed to its end when the loop comes round.
        await turn()
        if (violation) throw violation
      }
      if (!until?.()) time = Math.max(time, end)
    },
    random,
    chance: (probability) => random() < probability,
    between,
    whole,
    pick: (list) => list[Math.floor(random() * list.length)]!,
    bytes: (n) => Uint8Array.from({ length: n }, () => Math.floor(random() * 256)),
    note: (who, what) => void trace.push(`${(time / 1000).toFixed(3)} ${who} ${what}`),
    trace,
    violated(sentence) {
      trace.push(`${(time / 1000).toFixed(3)} VIOLATED ${sentence}`)
      violation ??= new Violation(sentence)
    },
  }
}

import { z } from 'zod'
import { defineTask } from '../../src/index.ts'

/** Numbers sieved at once: as many bytes as a core's cache holds. */
const SEGMENT = 262_144

export const primes = defineTask({
  type: 'demo.primes',
  description:
    'Counts the primes up to a number, in a thread of its own: what computes for long must not do so where requests are answered.',
  where: 'thread',
  module: import.meta.url,
  input: z.strictObject({ upTo: z.int().min(2).max(100_000_000_000) }),
  result: z.object({ count: z.int(), largest: z.int() }),
  timeoutSeconds: 600,
  run({ upTo }, { signal, progress }) {
    const small = sieve(Math.floor(Math.sqrt(upTo)))
    let count = 0
    let largest = 2
    for (let from = 2; from <= upTo; from += SEGMENT) {
      // No await is needed: in a thread, reading the signal updates it.
      signal.throwIfAborted()
      progress((from / upTo) * 100, `${count} primes below ${from}`)
      const to = Math.min(from + SEGMENT - 1, upTo)
      const composite = new Uint8Array(to - from + 1)
      for (const prime of small)
        for (let it = Math.max(prime * prime, Math.ceil(from / prime) * prime); it <= to; it += prime) composite[it - from] = 1
      for (const [offset, is] of composite.entries())
        if (is === 0) {
          count++
          largest = from + offset
        }
    }
    return { count, largest }
  },
})

function sieve(upTo: number): readonly number[] {
  const composite = new Uint8Array(upTo + 1)
  const found: number[] = []
  for (let it = 2; it <= upTo; it++) {
    if (composite[it] === 1) continue
    found.push(it)
    for (let multiple = it * it; multiple <= upTo; multiple += it) composite[multiple] = 1
  }
  return found
}

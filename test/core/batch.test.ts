/** Many callers, one commit: every item is answered once, whatever goes wrong, and nothing waits on a timer. */

import { afterEach, describe, expect, test, vi } from 'vitest'
import { type BatchExecutor, type BatchLimits, createBatcher } from '../../src/core/batch.ts'
import { fc } from '../support/chance.ts'

class Poison extends Error {}
class Down extends Error {}
class Full extends Error {}

const limits = (given: Partial<BatchLimits<number>> = {}): BatchLimits<number> => ({
  maxItems: 4,
  maxBytes: 1_000,
  sizeOf: () => 1,
  maxWaiting: Number.POSITIVE_INFINITY,
  overflowError: () => new Full(),
  ...given,
})
/** Hands the turn to whoever else is waiting; no timer has a part in it. */
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

/** A carrier that commits step by step, in the order of what it was given. */
function carrier(given: { fail?: (items: readonly number[], commit: number) => Error | null; width?: number; late?: boolean } = {}) {
  const commits: (readonly number[])[] = []
  const tries: (readonly number[])[] = []
  const made: BatchExecutor<number, string> = {
    maxConcurrent: given.width ?? 1,
    isItemError: (error) => error instanceof Poison,
    async run(take) {
      await turn()
      const items = take()
      tries.push([...items])
      await turn()
      expect(take(), 'a commit that is repeated has the same items').toEqual(items)
      const error = given.fail?.(items, tries.length)
      if (error) throw error
      commits.push([...items])
      return items.map((item) => `answer ${item}`)
    },
  }
  return { made, commits, tries }
}
const settled = async (promises: readonly Promise<string>[]) =>
  (await Promise.allSettled(promises)).map((answer) =>
    answer.status === 'fulfilled' ? answer.value : (answer.reason as Error).constructor.name,
  )

describe('a batch', () => {
  afterEach(() => void vi.useRealTimers())

  test('of one item is committed at once', async () => {
    const { made, commits } = carrier()
    expect(await createBatcher(made, limits())(1)).toBe('answer 1')
    expect(commits).toEqual([[1]])
  })

  test('takes every item added before its commit starts; items added during it share the next one', async () => {
    const { made, commits } = carrier()
    const add = createBatcher(made, limits({ maxItems: 100 }))
    const first = [add(1), add(2)]
    await turn()
    await turn()
    const second = [add(3), add(4)]
    await Promise.all([...first, ...second])
    expect(commits).toEqual([
      [1, 2],
      [3, 4],
    ])
  })

  test('respects the limits of items and bytes; a single larger item is committed alone', async () => {
    const { made, commits } = carrier()
    const add = createBatcher(made, limits({ maxItems: 3, maxBytes: 10, sizeOf: (item) => item }))
    await Promise.all([4, 5, 6, 99, 1, 1, 1, 1].map(add))
    expect(commits).toEqual([[4, 5], [6], [99], [1, 1, 1], [1]])
  })

  test('rejects items beyond the waiting limit, and accepts items again below it', async () => {
    const { made } = carrier()
    const add = createBatcher(made, limits({ maxWaiting: 3 }))
    expect(await settled([1, 2, 3, 4, 5].map(add))).toEqual(['answer 1', 'answer 2', 'answer 3', 'Full', 'Full'])
    expect(await add(6)).toBe('answer 6')
  })

  test('with a bad item fails only that item', async () => {
    const { made, commits } = carrier({ fail: (items) => (items.includes(42) ? new Poison() : null) })
    const add = createBatcher(made, limits({ maxItems: 100 }))
    const items = Array.from({ length: 100 }, (_, i) => i)
    expect(await settled(items.map(add))).toEqual(items.map((i) => (i === 42 ? 'Poison' : `answer ${i}`)))
    expect(commits.flat()).toEqual(items.filter((i) => i !== 42))
  })

  test('that fails without a bad item fails as a whole, once, and the next one is tried', async () => {
    const { made, tries } = carrier({ fail: (_items, commit) => (commit === 1 ? new Down() : null) })
    const add = createBatcher(made, limits())
    expect(await settled([1, 2].map(add))).toEqual(['Down', 'Down'])
    expect(await add(3)).toBe('answer 3')
    expect(tries).toEqual([[1, 2], [3]])
  })

  test('whose commit never started still rejects its items', async () => {
    let down = true
    const { made } = carrier()
    const add = createBatcher<number, string>({ ...made, run: (take) => (down ? Promise.reject(new Down()) : made.run(take)) }, limits())
    expect(await settled([1, 2, 3, 4, 5, 6].map(add))).toEqual(Array(6).fill('Down'))
    down = false
    expect(await add(7)).toBe('answer 7')
  })

  test('answers every item exactly once, in order, for any order of errors, without a timer', async () => {
    // Should anything wait on a timer, it waits forever.
    vi.useFakeTimers({ toFake: ['setTimeout', 'setInterval'] })
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.record({ poison: fc.boolean(), size: fc.integer({ min: 1, max: 6 }), pause: fc.nat({ max: 3 }) }), { maxLength: 40 }),
        fc.array(fc.boolean(), { maxLength: 20 }),
        fc.integer({ min: 1, max: 3 }),
        fc.integer({ min: 1, max: 6 }),
        async (items, downs, width, most) => {
          const isPoison = (n: number): boolean => items[n]!.poison && n % 3 === 0
          const { made, commits, tries } = carrier({
            width,
            fail: (batched, commit) => (downs[commit] ? new Down() : batched.some(isPoison) ? new Poison() : null),
          })
          const add = createBatcher(made, limits({ maxItems: most, maxBytes: 10, sizeOf: (n) => items[n]!.size, maxWaiting: 8 }))
          const answered = new Map<number, string[]>()
          const promises: Promise<unknown>[] = []
          for (const [n, { pause }] of items.entries()) {
            const note = (answer: string) => answered.set(n, [...(answered.get(n) ?? []), answer])
            promises.push(add(n).then(note, (error: Error) => note(error.constructor.name)))
            for (let i = 0; i < pause; i++) await turn()
          }
          await Promise.all(promises)
          const committed = commits.flat()
          expect(new Set(committed).size, 'nothing is committed twice').toBe(committed.length)
          for (const n of items.keys()) {
            expect(answered.get(n), 'one answer each').toHaveLength(1)
            const [answer] = answered.get(n)!
            expect(answer === `answer ${n}`, 'what is acknowledged is committed, and what is committed is acknowledged').toBe(
              committed.includes(n),
            )
            if (answer === 'Poison') expect(isPoison(n)).toBe(true)
            if (isPoison(n)) expect(committed).not.toContain(n)
          }
          if (width === 1) expect(committed, 'in the order they came').toEqual([...committed].sort((a, b) => a - b))
          for (const each of tries) expect(each.length).toBeLessThanOrEqual(most)
        },
      ),
      { numRuns: 200 },
    )
  })
})

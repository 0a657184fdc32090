/** Quotas count requests by windows, exactly, with concurrent uses on several nodes. */
import { expect, test } from 'vitest'
import type { Store } from '../../../src/store/interfaces.ts'
import { addClient } from '../../support/work.ts'
import type { Current } from './suite.ts'

const WINDOW_MS = 60_000
const LIMIT = 5
const use = (store: Store, key = 'write:a', back: number | null = null) =>
  store.access.useQuota({ key, limit: LIMIT, windowMs: WINDOW_MS, refundWindow: back })

export function quotas(current: Current): void {
  test('a window counts its uses, and a new one begins when it ends', async () => {
    const { store, pass } = current()
    const first = await use(store)
    expect(first.used).toBe(1)
    expect(first.leftMs).toBeGreaterThan(WINDOW_MS - 10_000)
    expect(first.leftMs).toBeLessThanOrEqual(WINDOW_MS)
    await pass(40_000)
    const second = await use(store)
    expect(second.used).toBe(2)
    expect(second.leftMs).toBeLessThanOrEqual(20_000)
    await pass(20_000)
    expect((await use(store)).used).toBe(1)
    expect((await use(store, 'read:a')).used, 'each quota has its own window').toBe(1)
  })

  test('concurrent uses on two nodes get exactly the limit of each quota, and rejected uses are not counted', async () => {
    const { store, anotherNode, sql } = current()
    const nodes = [store, await anotherNode()]
    const ask = (key: string) => Array.from({ length: 20 }, (_, i) => use(nodes[i % 2]!, key))
    const answers = await Promise.all(['write:a', 'write:b', 'read:a'].flatMap(ask))
    for (let from = 0; from < 60; from += 20) {
      const used = answers.slice(from, from + 20).map((answer) => answer.used)
      expect(used.filter((n) => n <= LIMIT).sort()).toEqual([1, 2, 3, 4, 5])
    }
    expect(await sql('select points from rate_limits order by key')).toEqual([{ points: 5 }, { points: 5 }, { points: 5 }])
  })

  test('a returned use can be used again, only in its own window', async () => {
    const { store, pass } = current()
    const { expire } = await use(store)
    for (let i = 0; i < 4; i++) await use(store)
    expect((await use(store)).used).toBeGreaterThan(LIMIT)
    await Promise.all([use(store, 'write:a', expire), use(store, 'write:a', expire)])
    expect((await use(store)).used).toBe(4)
    await pass(WINDOW_MS)
    expect((await use(store)).used).toBe(1)
    await use(store, 'write:a', expire)
    expect((await use(store)).used, 'the window it belonged to is over').toBe(2)
  })

  test('an erased client leaves no quotas', async () => {
    const { store, sql } = current()
    const clientId = await addClient(store)
    await Promise.all(['read', 'write'].map((kind) => use(store, `${kind}:${clientId}`)))
    await store.access.removeClient({ id: clientId })
    await store.maintenance.eraseClient({ id: clientId, last: true })
    expect(await sql('select key from rate_limits')).toEqual([])
  })
}

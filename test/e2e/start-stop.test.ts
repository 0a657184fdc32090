/** The platform inside an application that starts and stops it repeatedly. */
import { expect, onTestFinished, test } from 'vitest'
import { freshPostgres, freshSqlite } from '../support/databases.ts'
import { startProcess } from '../support/process.ts'
import { openReceiver } from '../support/receiver.ts'
import { engines } from '../support/stores.ts'

interface Holds {
  readonly files: number
  readonly resources: readonly string[]
  readonly listeners: number
  readonly heapBytes: number
}
const TIMES = 18
/** After this many starts all code is loaded and compiled. */
const WARM = 10
/** From then on a heap grows by a few hundred KiB in total; each leaked platform would add 300 KiB. */
const MAX_GROWTH_BYTES = 800_000

test.each(engines)('start and stop in a loop leak no file, timer, listener or memory, on %s', { timeout: 120_000 }, async (engine) => {
  const database = engine === 'sqlite' ? freshSqlite() : await freshPostgres()
  const receiver = await openReceiver()
  onTestFinished(async () => {
    await receiver.close()
    await ('drop' in database ? database.drop() : database.remove())
  })
  const { line, ended } = startProcess(new URL('../support/looper.ts', import.meta.url), [database.url, receiver.url, String(TIMES)])
  const seen: Holds[] = []
  while (seen.length < TIMES) seen.push((await line()) as Holds)
  // The process exits by itself.
  expect(await ended).toBe(0)
  expect(receiver.arrivals).toHaveLength(TIMES)
  const [warm, last] = [seen[WARM]!, seen.at(-1)!]
  expect({ ...last, heapBytes: 0 }).toEqual({ ...warm, heapBytes: 0 })
  const heaps = seen.slice(WARM).map(({ heapBytes }) => heapBytes)
  expect(Math.min(...heaps.slice(-2)) - Math.min(...heaps.slice(0, 2)), `heaps ${heaps.join(' ')}`).toBeLessThan(MAX_GROWTH_BYTES)
})

/** A thousand seeds of the simulation; the quick suite runs the first few of them. */
import { afterAll, expect, test } from 'vitest'
import { holdUnder, openSimulations } from '../simulation/ground.ts'
import { simulate } from '../simulation/simulate.ts'

const SEEDS = Number(process.env.RINGBACK_TEST_SEEDS ?? 1_000)

const { ground, restore } = await openSimulations()
afterAll(restore)

test(`${SEEDS} seeds: nodes and workers that crash, stall and disagree about the time lose nothing and do nothing twice`, {
  timeout: 1_800_000,
}, async () => {
  const { tasks, webhooks, deaths, answered } = await holdUnder(ground, SEEDS)
  console.log(
    `${tasks} tasks, ${webhooks} webhooks, ${deaths} deaths, workers: ${JSON.stringify(Object.fromEntries([...answered].sort()))}`,
  )
  expect(tasks).toBeGreaterThan(SEEDS * 10)
  // Workers were heard, and those that came late were refused.
  for (const verb of ['heartbeat', 'complete', 'fail', 'release'])
    for (const status of [200, 409]) expect(answered.get(`${verb} ${status}`), `${verb} ${status}`).toBeGreaterThan(0)
})

test('a seed says everything: run again, each of thirty leaves the same trace to the last line', async () => {
  for (let seed = 1; seed <= 30; seed++) {
    const [one, other] = [await simulate(seed, ground), await simulate(seed, ground)]
    expect(other.trace, `seed ${seed}`).toEqual(one.trace)
  }
})

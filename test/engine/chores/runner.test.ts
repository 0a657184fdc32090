/** The chore runner: what it repeats, and what it reports. */
import { expect, onTestFinished, test } from 'vitest'
import { type Chore, createChoreRunner } from '../../../src/engine/chores/runner.ts'
import type { EventFacts } from '../../../src/observe/events.ts'
import { turns } from '../../support/engine.ts'
import { eventsWith } from '../../support/events.ts'
import { manualClock } from '../../support/manual-clock.ts'

function start(chore: Omit<Chore, 'name' | 'everyMs'>) {
  const clock = manualClock()
  const ran: EventFacts['chore.ran'][] = []
  const errors: unknown[] = []
  const events = eventsWith({ 'chore.ran': (facts) => ran.push(facts), trouble: ({ error }) => errors.push(error) })
  const runner = createChoreRunner([{ name: 'sweep', everyMs: 1_000, ...chore }], clock, events)
  onTestFinished(() => runner.stop())
  runner.start()
  /** Long enough for one run, jitter included, and too short for a second one. */
  const pass = async (): Promise<void> => {
    for (let ms = 0; ms < 1_200; ms += 10) {
      clock.advance(10)
      await turns(1)
    }
  }
  return { clock, runner, ran, errors, pass }
}

test('each run of a chore is reported with how many rows it changed and how long it took', async () => {
  const { clock, ran, errors, pass } = start({
    async run() {
      await new Promise<void>((resolve) => clock.after(50, resolve))
      return 3
    },
  })
  expect(ran).toEqual([])
  await pass()
  await pass()
  expect(ran).toEqual(Array(2).fill({ chore: 'sweep', count: 3, durationMs: expect.closeTo(55, -1) }))
  expect(errors).toEqual([])
})

test('a chore that throws is reported as trouble and runs again', async () => {
  let runs = 0
  const broken = new Error('the store is down')
  const { ran, errors, pass } = start({
    atStart: false,
    async run() {
      if (runs++ === 0) throw broken
      return 0
    },
  })
  await pass()
  expect({ ran, errors }).toEqual({ ran: [], errors: [broken] })
  await pass()
  expect(ran).toEqual([{ chore: 'sweep', count: 0, durationMs: expect.closeTo(5, -1) }])
})

test('a chore may also run at the start; a stopped runner fires its signal and runs it no more', async () => {
  const signals: AbortSignal[] = []
  const { clock, runner, pass } = start({
    atStart: true,
    async run(signal) {
      signals.push(signal)
      return 0
    },
  })
  expect(signals).toHaveLength(1)
  runner.stop()
  expect(signals[0]!.aborted).toBe(true)
  await pass()
  expect(signals).toHaveLength(1)
  expect(clock.armed).toBe(0)
})

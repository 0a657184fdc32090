/** Task types that run in threads. Each thread loads this module. */
import { setTimeout as sleep } from 'node:timers/promises'
import { isMainThread, threadId } from 'node:worker_threads'
import { z } from 'zod'
import { defineTask, Permanent, Postpone } from '../../src/tasks/define.ts'

const here = { where: 'thread', module: import.meta.url } as const

export const whoami = defineTask({
  ...here,
  type: 'thread.whoami',
  input: z.strictObject({ n: z.number().default(7) }),
  run: (input, { task }) => ({ isMainThread, threadId, input, task }),
})

export const report = defineTask({
  ...here,
  type: 'thread.report',
  description: 'Reports every one of its million rounds, and logs what no thread can send.',
  run(_, { progress, log }) {
    log.info({ wide: 1, error: new TypeError('typed'), odd: () => 1 }, 'begun')
    log.warn({ plain: [1, 2] }, 'warned')
    for (let round = 0; round <= 1_000_000; round++) progress(round / 10_000, `round ${round}`)
    return 'all'
  },
})

export const spin = defineTask({
  ...here,
  type: 'thread.spin',
  description: 'Computes and hears nothing.',
  run(_, { progress }) {
    progress(1, 'spinning')
    for (;;) Math.sqrt(2)
  },
})

export const ask = defineTask({
  ...here,
  type: 'thread.ask',
  description: 'Computes without ever awaiting, and asks its signal; at the end it returns why.',
  run(_, { signal, progress }) {
    progress(1, 'asking')
    while (!signal.aborted) Math.sqrt(2)
    return signal.reason.message
  },
})

export const wait = defineTask({
  ...here,
  type: 'thread.wait',
  description: 'Waits for its signal, which it hands on, and throws.',
  async run(_, { signal, progress }) {
    progress(1, 'waiting')
    await sleep(600_000, undefined, { signal: AbortSignal.any([signal]) })
  },
})

const ends: Record<string, () => unknown> = {
  error: () => {
    throw new RangeError('out of range')
  },
  permanent: () => {
    throw new Permanent('no such month', { code: 'month.unknown', details: { month: 13 } })
  },
  postpone: () => {
    throw new Postpone(60)
  },
  large: () => 'x'.repeat(9 * 1024 * 1024),
  function: () => () => 1,
  nothing: () => undefined,
  exit: () => process.exit(3),
  // Long after the answer has left, also on a machine that is busy.
  later: () => {
    setTimeout(() => {
      throw new Error('left behind')
    }, 500)
  },
  uncaught: () => new Promise(() => setImmediate(() => Promise.reject(new Error('nobody caught this')))),
  memory: () => {
    const hoard: unknown[] = []
    for (;;) hoard.push({ more: [...hoard.slice(-100)] })
  },
}
export const end = defineTask({
  ...here,
  type: 'thread.end',
  input: z.strictObject({ how: z.string() }),
  run: ({ how }) => ends[how]!(),
})

/** Task types of the test servers. Each start of a handler is recorded, so that a test can count runs by server. */
import { appendFileSync } from 'node:fs'
import { flushCompileCache } from 'node:module'
import { setTimeout as sleep } from 'node:timers/promises'
import { z } from 'zod'
import { defineTask, Permanent, type RunContext } from '../../src/index.ts'

// Who is killed keeps nothing of what it compiled: without this, every start would cost as much as the first.
setTimeout(flushCompileCache, 2_000).unref()

const ledger = process.env.RINGBACK_TEST_RUNS

/** One line a start: task, try, process. Synchronous, so that it stands before anything can be killed. */
function note(task: RunContext['task']): void {
  if (ledger) appendFileSync(ledger, `${task.id} ${task.generation} ${task.try} ${process.pid}\n`)
}

/** No two runs return the same: a result shows which run it is from. */
const proof = (task: RunContext['task']) => ({ by: process.pid, run: `${task.generation}.${task.try}`, nonce: crypto.randomUUID() })

const soon = { tries: 5, delayMs: () => 50 }

const echo = defineTask({ type: 'demo.echo', run: (input) => input })

const instant = defineTask({
  type: 'work.instant',
  run(_, { task }) {
    note(task)
    return proof(task)
  },
})

const nap = defineTask({
  type: 'work.nap',
  input: z.strictObject({ ms: z.number() }),
  retry: soon,
  async run({ ms }, { task, signal }) {
    note(task)
    await sleep(ms, undefined, { signal })
    return proof(task)
  },
})

const scarce = defineTask({
  type: 'work.scarce',
  description: 'As `work.nap`; three at a time on all nodes.',
  concurrency: 3,
  input: z.strictObject({ ms: z.number() }),
  retry: { tries: 100, delayMs: () => 50 },
  async run({ ms }, { task, signal }) {
    note(task)
    await sleep(ms, undefined, { signal })
    return proof(task)
  },
})

const stumble = defineTask({
  type: 'work.stumble',
  description: 'Fails its first `times` tries.',
  input: z.strictObject({ times: z.int() }),
  retry: soon,
  run({ times }, { task }) {
    note(task)
    if (task.try <= times) throw new Error(`try ${task.try} fails, as asked`)
    return proof(task)
  },
})

const refuse = defineTask({
  type: 'work.refuse',
  run(_, { task }) {
    note(task)
    throw new Permanent('not for us', { code: 'not_for_us', details: { why: 'asked' } })
  },
})

const blurt = defineTask({
  type: 'work.blurt',
  description: 'Says what it is given wherever a handler can, and fails with it.',
  input: z.strictObject({ say: z.string() }),
  run({ say }, { progress }) {
    progress(50, say)
    throw new Permanent(say, { code: 'blurted', details: { say } })
  },
})

const steps = defineTask({
  type: 'work.steps',
  description: 'Reports progress `count` times, `ms` apart.',
  input: z.strictObject({ count: z.int(), ms: z.number() }),
  async run({ count, ms }, { task, signal, progress }) {
    note(task)
    for (let step = 1; step <= count; step++) {
      await sleep(ms, undefined, { signal })
      progress((step * 100) / count, `step ${step} of ${count}`)
    }
    return proof(task)
  },
})

const fill = defineTask({
  type: 'work.fill',
  description: 'Returns a result of `bytes` characters.',
  input: z.strictObject({ bytes: z.int() }),
  run: ({ bytes }) => ({ text: 'ü'.repeat(bytes) }),
})

const deaf = defineTask({
  type: 'work.deaf',
  description: 'Returns after `ms`, whatever its signal says.',
  input: z.strictObject({ ms: z.number() }),
  retry: soon,
  async run({ ms }, { task }) {
    note(task)
    await sleep(ms)
    return proof(task)
  },
})

export default { tasks: [echo, instant, nap, scarce, stumble, refuse, blurt, steps, fill, deaf] }

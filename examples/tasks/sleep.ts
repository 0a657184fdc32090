import { setTimeout as sleeping } from 'node:timers/promises'
import { z } from 'zod'
import { defineTask } from '../../src/index.ts'

export const sleep = defineTask({
  type: 'demo.sleep',
  description: 'Sleeps, reporting progress ten times; fails its first `failTimes` tries.',
  input: z.strictObject({ seconds: z.number().min(0).max(3600), failTimes: z.int().min(0).max(100).optional() }),
  result: z.object({ slept: z.number() }),
  async run({ seconds, failTimes = 0 }, { task, signal, progress }) {
    for (let step = 1; step <= 10; step++) {
      await sleeping(seconds * 100, undefined, { signal })
      progress(step * 10, `step ${step} of 10`)
    }
    if (task.try <= failTimes) throw new Error(`try ${task.try} fails, as asked`)
    return { slept: seconds }
  },
})

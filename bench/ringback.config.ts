/** The task type of the benchmarks. */
import { z } from 'zod'
import { defineTask } from '../src/index.ts'

/** What is measured is the platform, not the work. */
const echo = defineTask({
  type: 'demo.echo',
  description: 'Returns its input.',
  input: z.strictObject({ n: z.int(), pad: z.string() }),
  run: (input) => input,
})

export default { tasks: [echo] }

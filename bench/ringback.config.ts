import { z } from 'zod'
import { defineTask } from '../src/index.ts'

/** Gives back its input: what is measured is the platform, not the work. */
export const echo = defineTask({
  type: 'demo.echo',
  description: 'Gives back its input',
  input: z.object({ n: z.number(), pad: z.string() }),
  async run(input) {
    return input
  },
})

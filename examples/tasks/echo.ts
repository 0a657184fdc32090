import { defineTask } from '../../src/index.ts'

export const echo = defineTask({
  type: 'demo.echo',
  description: 'Returns its input.',
  run: (input) => input,
})

/** The task types of `npm start`. */
import { datasetProfile } from './examples/tasks/dataset-profile.ts'
import { echo } from './examples/tasks/echo.ts'
import { primes } from './examples/tasks/primes.ts'
import { sleep } from './examples/tasks/sleep.ts'

export default { tasks: [echo, sleep, datasetProfile, primes] }

/** The task types of `npm start`: three to try the platform with. */
import { datasetProfile } from './examples/tasks/dataset-profile.ts'
import { echo } from './examples/tasks/echo.ts'
import { sleep } from './examples/tasks/sleep.ts'

export default { tasks: [echo, sleep, datasetProfile] }

/** The task types of an installation, from the module that `RINGBACK_CONFIG` names. */
import { existsSync } from 'node:fs'
import { pathToFileURL } from 'node:url'
import { StartupError } from '../core/errors.ts'
import { isTaskType, type TaskType } from '../tasks/define.ts'
import { resolveRingbackToThisCopy } from '../tasks/self-import.ts'

/** @throws StartupError when there is no such module, when it cannot be loaded, and when its default export is not `{ tasks: […] }`. */
export async function loadTaskTypes(path: string): Promise<readonly TaskType[]> {
  const mend = 'make it export default { tasks: [defineTask({ … })] }'
  if (!existsSync(path))
    throw new StartupError(`There is no ${path}, where the task types should be: ${mend}, or name yours in RINGBACK_CONFIG.`)
  resolveRingbackToThisCopy()
  const loaded = (await import(pathToFileURL(path).href).catch((error: unknown) => {
    throw new StartupError(`${path} cannot be loaded: ${told(error)}`)
  })) as { default?: { tasks?: unknown } }
  const tasks = loaded.default?.tasks
  if (!Array.isArray(tasks)) throw new StartupError(`${path} does not say which task types there are: ${mend}.`)
  if (tasks.length === 0) throw new StartupError(`${path} has an empty list of task types: ${mend}.`)
  tasks.forEach((task: unknown, i) => {
    if (!isTaskType(task)) throw new StartupError(`tasks[${i}] in ${path} is no task type: make it with defineTask({ … }).`)
  })
  return tasks
}

function told(error: unknown): string {
  const message = error instanceof Error ? error.message : String(error)
  // What `npm init` writes makes a module with imports a syntax error.
  const outside = /outside a module/.test(message)
  return outside
    ? `${message}. Set "type": "module" in its package.json, or call it ringback.config.mts and name it in RINGBACK_CONFIG.`
    : message
}

/** Loads the task types from the module that `RINGBACK_CONFIG` names. */
import { existsSync } from 'node:fs'
import { pathToFileURL } from 'node:url'
import { StartupError } from '../core/errors.ts'
import { isTaskType, type TaskType } from '../tasks/define.ts'
import { resolveRingbackToThisCopy } from '../tasks/self-import.ts'

/** @throws StartupError when the module does not exist, cannot be loaded, or its default export is not `{ tasks: […] }`. */
export async function loadTaskTypes(path: string): Promise<readonly TaskType[]> {
  const repair = 'make it export default { tasks: [defineTask({ … })] }'
  if (!existsSync(path))
    throw new StartupError(`There is no ${path}, the module with the task types: ${repair}, or set RINGBACK_CONFIG to yours.`)
  resolveRingbackToThisCopy()
  const loaded = (await import(pathToFileURL(path).href).catch((error: unknown) => {
    throw new StartupError(`${path} cannot be loaded: ${loadErrorMessage(error)}`)
  })) as { default?: { tasks?: unknown } }
  const tasks = loaded.default?.tasks
  if (!Array.isArray(tasks)) throw new StartupError(`${path} does not export a list of task types: ${repair}.`)
  if (tasks.length === 0) throw new StartupError(`${path} has an empty list of task types: ${repair}.`)
  tasks.forEach((task: unknown, i) => {
    if (!isTaskType(task)) throw new StartupError(`tasks[${i}] in ${path} is not a task type: create it with defineTask({ … }).`)
  })
  return tasks
}

function loadErrorMessage(error: unknown): string {
  const message = error instanceof Error ? error.message : String(error)
  // The package.json of `npm init` makes a module with imports a syntax error.
  if (!/outside a module/.test(message)) return message
  return `${message}. Set "type": "module" in its package.json, or rename it to ringback.config.mts and set RINGBACK_CONFIG.`
}

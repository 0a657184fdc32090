/** The task types of a node, by name. */
import { StartupError } from '../core/errors.ts'
import type { TaskType } from './define.ts'

export interface Registry {
  get(type: string): TaskType | undefined
  /** Sorted by name. */
  list(): readonly TaskType[]
}

/** @throws StartupError when two task types have the same name. */
export function createRegistry(types: readonly TaskType[]): Registry {
  const byName = new Map<string, TaskType>()
  for (const type of types) {
    if (byName.has(type.type)) throw new StartupError(`two task types have the name "${type.type}": rename one of them`)
    byName.set(type.type, type)
  }
  const all = [...byName.values()].sort((a, b) => (a.type < b.type ? -1 : 1))
  return { get: (type) => byName.get(type), list: () => all }
}

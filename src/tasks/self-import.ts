/**
 * What `ringback` means in a module of task types: the copy that runs. A clone has no package of that name beside it, and a program installed
 * globally may find another one in the project; `Permanent` and `Postpone` of that one would be strangers here.
 */
import { registerHooks } from 'node:module'

const entries: Readonly<Record<string, string>> = {
  ringback: 'index',
  'ringback/client': 'client/index',
  'ringback/receiver': 'receiver/index',
}

/** From now on, in this thread. */
export function resolveRingbackToThisCopy(): void {
  const extension = import.meta.url.endsWith('.ts') ? 'ts' : 'js'
  registerHooks({
    resolve(specifier, context, next) {
      const entry = Object.hasOwn(entries, specifier) ? entries[specifier] : undefined
      if (entry === undefined) return next(specifier, context)
      return { url: new URL(`../${entry}.${extension}`, import.meta.url).href, shortCircuit: true }
    },
  })
}

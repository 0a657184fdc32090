/**
 * Makes `import 'ringback'` in a module of task types resolve to the running copy. A clone has no package of that name, and a global
 * installation could find another copy in the project, whose `Permanent` and `Postpone` are different classes.
 */
import { registerHooks } from 'node:module'

const entries: Readonly<Record<string, string>> = {
  ringback: 'index',
  'ringback/client': 'client/index',
  'ringback/receiver': 'receiver/index',
}

/** For this thread, from now on. */
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

/** Finds a route by method and path: a map for paths without parameters, patterns for the rest. */
import type { Result, Router } from 'hono/router'
import { UnsupportedPathError } from 'hono/router'

type Params = Record<string, string>

interface Pattern<T> {
  readonly pattern: RegExp
  readonly names: readonly string[]
  readonly handlers: readonly T[]
}

/**
 * A router for a table whose concrete paths stand beside paths with parameters (`/v1/tasks/batch`, `/v1/tasks/:id/cancel`), which
 * Hono's regular-expression router refuses. The concrete path wins. It takes no wildcards: what an embedding app adds to ours
 * makes Hono fall back to its general router.
 */
export class TableRouter<T> implements Router<T> {
  readonly name = 'TableRouter'
  readonly #plain = new Map<string, Map<string, T[]>>()
  readonly #patterns = new Map<string, Pattern<T>[]>()

  add(method: string, path: string, handler: T): void {
    if (method === 'ALL' || /[*{}?]/.test(path)) throw new UnsupportedPathError(path)
    if (!path.includes(':')) {
      const plain = this.#plain.get(method) ?? new Map<string, T[]>()
      this.#plain.set(method, plain.set(path, [...(plain.get(path) ?? []), handler]))
      return
    }
    const names = [...path.matchAll(/:(\w+)/g)].map(([, name]) => name as string)
    const pattern = new RegExp(`^${path.replaceAll('.', '\\.').replaceAll(/:\w+/g, '([^/]+)')}$`)
    this.#patterns.set(method, [...(this.#patterns.get(method) ?? []), { pattern, names, handlers: [handler] }])
  }

  match(method: string, path: string): Result<T> {
    const plain = this.#plain.get(method)?.get(path)
    if (plain) return [plain.map((handler): [T, Params] => [handler, NO_PARAMS])]
    // Of a path that other methods take, GET /v1/tasks/batch for one, it is the method that is wrong.
    for (const paths of this.#plain.values()) if (paths.has(path)) return NOTHING
    for (const { pattern, names, handlers } of this.#patterns.get(method) ?? []) {
      const found = pattern.exec(path)
      if (!found) continue
      const params: Params = {}
      for (const [index, name] of names.entries()) params[name] = found[index + 1] as string
      return [handlers.map((handler): [T, Params] => [handler, params])]
    }
    return NOTHING
  }
}

const NO_PARAMS: Params = {}
// biome-ignore lint/suspicious/noExplicitAny: an empty result is one of every type
const NOTHING: Result<any> = [[]]

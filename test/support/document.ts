/** Reads operations from the OpenAPI document and checks values against their schemas. */
import Ajv2020 from 'ajv/dist/2020.js'
import addFormats from 'ajv-formats'

// biome-ignore lint/suspicious/noExplicitAny: a document of many shapes is walked
export type Node = any

export interface Judge {
  /** What `pointer` names, references followed. */
  at(...pointer: readonly string[]): Node
  /** What is wrong with `value` by the schema at `pointer`; empty: nothing. */
  faults(value: unknown, ...pointer: readonly string[]): string[]
  /** The path template and the operation that serve this request; undefined: it is not documented. */
  operation(method: string, pathname: string): { readonly path: string; readonly operation: Node } | undefined
}

export function judgeBy(document: Node): Judge {
  const ajv = new Ajv2020.default({ strict: false, allErrors: true, validateSchema: false })
  addFormats.default(ajv)
  ajv.addSchema(document, 'api')
  const follow = (node: Node): Node =>
    typeof node?.$ref === 'string' ? follow(step(document, node.$ref.slice(2).split('/').map(unescaped))) : node
  const step = (node: Node, steps: readonly string[]): Node => steps.reduce((place, name) => follow(place)?.[name], node)
  const paths = Object.keys(document.paths)
    // A concrete path wins over one with parameters.
    .sort((a, b) => Number(a.includes('{')) - Number(b.includes('{')))
    .map((path) => ({ path, pattern: new RegExp(`^${path.replaceAll('.', '\\.').replaceAll(/\{\w+\}/g, '[^/]+')}$`) }))
  return {
    at: (...pointer) => follow(step(document, pointer)),
    faults(value, ...pointer) {
      const judge = ajv.compile({ $ref: `api#/${pointer.map(escaped).join('/')}` })
      return judge(value) ? [] : judge.errors!.map(({ instancePath, message }) => `${instancePath} ${message}`)
    },
    operation(method, pathname) {
      const found = paths.find(({ path, pattern }) => pattern.test(pathname) && document.paths[path][method.toLowerCase()])
      return found && { path: found.path, operation: document.paths[found.path][method.toLowerCase()] }
    },
  }
}

const escaped = (name: string): string => encodeURIComponent(name.replaceAll('~', '~0').replaceAll('/', '~1'))
const unescaped = (name: string): string => decodeURIComponent(name).replaceAll('~1', '/').replaceAll('~0', '~')

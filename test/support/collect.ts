/** Lists all tests from their sources, without running them or opening a database. */
import { readFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseSync } from '@swc/core'
import type { Engine } from './stores.ts'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))

export interface Collected {
  /** The file that contains the test. Tests of a contract run from another file. */
  readonly file: string
  /** Its titles as written, from outermost to innermost, joined by " > ". */
  readonly name: string
  /** The databases it runs on. */
  readonly on: ReadonlySet<Engine>
  /** Never runs. */
  readonly skipped: boolean
  /** Runs only under a condition. */
  readonly conditional: boolean
}

/** The parts of swc nodes that are read here. */
// biome-ignore lint/suspicious/noExplicitAny: a tree of a hundred kinds of nodes, of which five are told apart
type Node = any
interface Source {
  readonly path: string
  readonly module: Node
  /** Local name → source file and exported name. */
  readonly imports: ReadonlyMap<string, { readonly from: string; readonly as: string }>
}
interface Around {
  readonly titles: readonly string[]
  readonly on: ReadonlySet<Engine>
  readonly skipped: boolean
  readonly conditional: boolean
}
const SPEAKS = new Set(['describe', 'test', 'it'])
/** Names of lists with both databases, and the files that export them. */
const BOTH: Readonly<Record<string, string>> = { engines: 'test/support/stores.ts', databases: 'test/support/server.ts' }
const ENGINES = new Set<Engine>(['sqlite', 'postgres'])

/** The tests of these files, including the contracts they call. A test that two files run is listed once. */
export function collectTests(files: readonly string[]): readonly Collected[] {
  const sources = new Map<string, Source>()
  const open = (path: string): Source => {
    const known = sources.get(path)
    if (known) return known
    const module = parseSync(readFileSync(join(ROOT, path), 'utf8'), { syntax: 'typescript', target: 'es2022' })
    const imports = new Map<string, { from: string; as: string }>()
    for (const item of module.body as Node[])
      if (item.type === 'ImportDeclaration' && item.source.value.startsWith('.'))
        for (const { local, imported } of item.specifiers)
          imports.set(local.value, { from: relative(ROOT, join(ROOT, dirname(path), item.source.value)), as: (imported ?? local).value })
    const source = { path, module, imports }
    sources.set(path, source)
    return source
  }
  const found = new Map<string, Collected[]>()
  const record = (source: Source, around: Around): void => {
    const { titles, ...how } = around
    const name = titles.join(' > ')
    const key = `${source.path} ${name}`
    found.set(key, [...(found.get(key) ?? []), { file: source.path, name, ...how }])
  }

  const visit = (node: Node, source: Source, around: Around): void => {
    if (node === null || typeof node !== 'object') return
    if (Array.isArray(node)) {
      for (const each of node) visit(each, source, around)
      return
    }
    if (node.type === 'CallExpression') {
      const said = spoken(node.callee, source)
      const [title] = node.arguments
      if (said && title && !said.open) {
        const inner: Around = {
          titles: [...around.titles, textOf(title.expression)],
          on: said.on.size > 0 ? said.on : around.on,
          skipped: around.skipped || said.skipped,
          conditional: around.conditional || said.conditional,
        }
        if (said.root === 'describe') visit(node.arguments.slice(1), source, inner)
        else record(source, inner)
        return
      }
      const called = node.callee.type === 'Identifier' ? source.imports.get(node.callee.value) : undefined
      if (called && /^test\/store\/contract\//.test(called.from)) {
        const given = node.arguments.map(({ expression }: Node) => expression.value)
        const on = new Set<Engine>(given.filter((value: unknown) => ENGINES.has(value as Engine)))
        const other = open(called.from)
        const made = (other.module.body as Node[]).find(({ declaration }) => declaration?.identifier?.value === called.as)
        if (!made) throw new Error(`${called.from} exports no function ${called.as}, which ${source.path} calls`)
        // Tests of a contract are named by the titles in its own file.
        visit(made.declaration.body, other, { ...around, titles: [], on: on.size > 0 ? on : around.on })
        return
      }
    }
    for (const each of Object.values(node)) visit(each, source, around)
  }

  for (const file of files) visit(open(file).module.body, open(file), { titles: [], on: new Set(), skipped: false, conditional: false })
  return [...found.values()].map((same) => ({
    ...same[0]!,
    on: new Set(same.flatMap(({ on, skipped }) => (skipped ? [] : [...on]))),
    skipped: same.every(({ skipped }) => skipped),
    conditional: same.some(({ conditional }) => conditional),
  }))
}

/** Parses `describe.skip`, `test.each(engines)` and `test.runIf(…)`; null for other calls. `open`: the title follows in the next call. */
function spoken(
  callee: Node,
  source: Source,
): { readonly root: string; on: Set<Engine>; skipped: boolean; conditional: boolean; open: boolean } | null {
  const said = { root: '', on: new Set<Engine>(), skipped: false, conditional: false, open: false }
  for (let at = callee; ; ) {
    if (at.type === 'Identifier') {
      said.root = at.value
      return SPEAKS.has(said.root) ? said : null
    }
    if (at.type === 'MemberExpression') {
      const { value } = at.property
      if (value === 'skip' || value === 'todo') said.skipped = true
      if (value === 'runIf' || value === 'skipIf') said.conditional = true
      if (at === callee && ['each', 'for', 'runIf', 'skipIf'].includes(value)) said.open = true
      at = at.object
    } else if (at.type === 'CallExpression') {
      if (['each', 'for'].includes(at.callee.property?.value))
        for (const each of listed(at.arguments[0]?.expression, source)) said.on.add(each)
      at = at.callee
    } else return null
  }
}
function listed(list: Node, { imports }: Source): readonly Engine[] {
  const from = list?.type === 'Identifier' ? imports.get(list.value) : undefined
  return from && BOTH[from.as] === from.from ? [...ENGINES] : []
}

/** A title as written; a template expression becomes its name. */
function textOf(title: Node): string {
  if (title.type === 'StringLiteral') return title.value
  if (title.type !== 'TemplateLiteral') return '…'
  return title.quasis
    .map(({ cooked }: Node, i: number) => {
      const expression = title.expressions[i]
      return `${cooked}${expression ? `\${${expression.type === 'Identifier' ? expression.value : '…'}}` : ''}`
    })
    .join('')
}

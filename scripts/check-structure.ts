/**
 * The structure of `src`, checked: where files lie, how long they are, what is declared twice, which words names use. `npm run check` runs it.
 * Exits 1 with a sentence for each fault, otherwise prints one line. The layers are checked by dependency-cruiser.
 */
import { globSync, readFileSync } from 'node:fs'
import { basename } from 'node:path'
import { type Module, parseSync } from '@swc/core'

const MAX_ROOT_FILES = 2
const MAX_FILE_LINES = 450
const MAX_FUNCTION_LINES = 120
const MAX_STORE_METHODS = 15
const MAX_STORE_PARTS = 9

/** Words that no identifier may hold, each with what to write instead. */
const BANNED: Readonly<Record<string, string>> = {
  house: 'context',
  porch: 'pipeline',
  door: 'listener',
  doorkeeper: 'limiter',
  visitor: 'connection',
  seats: 'limiter',
  legible: 'sanitized',
  heard: 'notified',
  hears: 'subscribes',
  tells: 'notifies',
  told: 'notified',
  tell: 'notify',
  canary: 'keyCheck',
  seal: 'encrypt',
  sealed: 'encrypted',
  sealer: 'encryptor',
  unseal: 'decrypt',
  reseal: 'reencrypt',
  walk: 'page',
  walked: 'checkpoint',
  wish: 'targetState',
  ours: 'local',
  deed: 'record',
  stones: 'tombstones',
  creditors: 'owedEndpoints',
  shown: 'to…Document',
  utils: 'the name of what it does',
  helper: 'the name of what it does',
  impl: 'the name of what it does',
}
/** Names of columns, and of records inside SQL statements, which stay. */
const FIXED = new Set(['failingToldAt', 'sealed', 'stones', 'wish'])

const kinds = new Set([
  'FunctionDeclaration',
  'FunctionExpression',
  'ArrowFunctionExpression',
  'ClassMethod',
  'PrivateMethod',
  'MethodProperty',
  'Constructor',
])
const declarations = new Set(['TsInterfaceDeclaration', 'TsTypeAliasDeclaration', 'ClassDeclaration'])

interface Syntax {
  readonly type: string
  readonly span?: { readonly start: number; readonly end: number }
  readonly [member: string]: unknown
}
const isSyntax = (value: unknown): value is Syntax =>
  typeof value === 'object' && value !== null && typeof (value as Syntax).type === 'string'

const faults: string[] = []
const declared = new Map<string, string>()
const files = globSync('src/**/*.ts').sort()
let lines = 0

const root = files.filter((file) => file.split(/[\\/]/).length === 2)
if (root.length > MAX_ROOT_FILES)
  faults.push(`src has ${root.length} files in its root (${root.join(', ')}): move all but index.ts and platform.ts into a folder.`)

for (const file of files) {
  const source = readFileSync(file, 'utf8')
  const count = source.split('\n').length - 1
  lines += count
  if (count > MAX_FILE_LINES) faults.push(`${file} has ${count} lines: split it, ${MAX_FILE_LINES} are the limit.`)
  if (/^(utils?|helpers?|common|misc)\.ts$/.test(basename(file)))
    faults.push(`${file} has a name that says nothing: name it after its subject.`)
  checkSyntax(file, source)
}
if (faults.length > 0) {
  console.error(faults.join('\n'))
  process.exit(1)
}
console.log(
  `Structure: ${files.length} files, ${lines} lines in src; ${root.length} in the root; none over ${MAX_FILE_LINES} lines, no function over ${MAX_FUNCTION_LINES}, ` +
    `no type declared twice, no banned word; ${MAX_STORE_PARTS} store interfaces of at most ${MAX_STORE_METHODS} methods.`,
)

function checkSyntax(file: string, source: string): void {
  const module: Module = parseSync(source, { syntax: 'typescript', target: 'es2024' })
  // Spans count the bytes of all files parsed so far, and end at the last character that is no white space.
  const bytes = Buffer.from(source)
  const base = module.span.end - Buffer.byteLength(source.trimEnd())
  const lineOf = (position: number): number =>
    bytes
      .subarray(0, Math.max(0, position - base))
      .toString()
      .split('\n').length
  const words = new Set<string>()
  const visit = (node: Syntax, depth: number): void => {
    if (kinds.has(node.type) && node.span) {
      const length = lineOf(node.span.end) - lineOf(node.span.start) + 1
      if (length > MAX_FUNCTION_LINES)
        faults.push(`${file}:${lineOf(node.span.start)} has a function of ${length} lines: ${MAX_FUNCTION_LINES} are the limit.`)
    }
    if (depth <= 2 && declarations.has(node.type)) {
      const name = ((node.id ?? node.identifier) as { value: string }).value
      const before = declared.get(name)
      if (before) faults.push(`The type ${name} is declared in ${before} and in ${file}: share one or give each its own name.`)
      declared.set(name, file)
      if (file.endsWith('store/interfaces.ts') && node.type === 'TsInterfaceDeclaration') checkStore(name, node)
    }
    if (node.type === 'Identifier' && typeof node.value === 'string') words.add(node.value)
    for (const value of Object.values(node)) {
      if (isSyntax(value)) visit(value, depth + 1)
      else if (Array.isArray(value))
        for (const item of value)
          if (isSyntax(item)) visit(item, depth + 1)
          else if (item && isSyntax((item as { expression?: unknown }).expression))
            visit((item as { expression: Syntax }).expression, depth + 1)
    }
  }
  visit(module as unknown as Syntax, 0)
  for (const name of words) {
    if (FIXED.has(name)) continue
    for (const word of name.split(/(?=[A-Z])|_/).map((part) => part.toLowerCase()))
      if (Object.hasOwn(BANNED, word)) faults.push(`${file} names something ${name}: write ${BANNED[word]} instead of ${word}.`)
  }
}

function checkStore(name: string, node: Syntax): void {
  const { body } = node.body as { body: readonly Syntax[] }
  const methods = body.filter(({ type }) => type === 'TsMethodSignature').length
  if (methods > MAX_STORE_METHODS) faults.push(`The store's interface ${name} has ${methods} methods: ${MAX_STORE_METHODS} are the limit.`)
  if (name === 'Store') {
    const parts = body.filter(
      ({ type, typeAnnotation }) =>
        type === 'TsPropertySignature' && typeAnnotation && JSON.stringify(typeAnnotation).includes('TsTypeReference'),
    ).length
    if (parts > MAX_STORE_PARTS) faults.push(`The store has ${parts} parts: ${MAX_STORE_PARTS} are the limit.`)
  }
}

// The layers: imports go down only, and every dependency has one home.

try {
  require.resolve('@swc/core')
} catch {
  // Without a parser for TypeScript nothing would be read, and nothing found wrong.
  throw new Error('The layers cannot be checked without @swc/core, which reads TypeScript for dependency-cruiser: run npm ci.')
}

/** A layer for each folder, from the bottom up. A file may import from its own layer and from those before it. */
const layers = [
  ['core', '^src/core/'],
  ['config', '^src/config/'],
  ['observe', '^src/observe/'],
  ['store', '^src/store/'],
  ['tasks', '^src/tasks/'],
  ['webhook', '^src/webhook/'],
  ['client', '^src/client/'],
  ['receiver', '^src/receiver/'],
  ['engine', '^src/engine/'],
  ['http', '^src/http/'],
  ['server', '^src/server/'],
  ['platform', '^src/platform\\.ts$'],
  ['cli', '^src/cli/'],
  ['index', '^src/index\\.ts$'],
]

/** Of these, none imports another. */
const siblings = [
  ['^src/store/sqlite\\.ts$', '^src/store/postgres\\.ts$'],
  ['^src/tasks/', '^src/webhook/'],
  ['^src/cli/', '^src/index\\.ts$'],
]

const homes = {
  'better-sqlite3': '^src/store/',
  'drizzle-orm': '^src/store/[^/]+$',
  pg: '^src/store/',
  jose: '^src/webhook/(signer|keys)\\.ts$|^src/receiver/verify\\.ts$',
  undici: '^src/webhook/(transport|attempt)\\.ts$',
  hono: '^src/http/',
  '@hono/zod-openapi': '^src/http/',
  '@hono/node-server': '^src/(http|server)/',
  commander: '^src/cli/',
  pino: '^src/observe/log\\.ts$',
  'ipaddr.js': '^src/(webhook/address|config/parsers)\\.ts$',
  'typeid-js': '^src/core/id\\.ts$',
  canonicalize: '^src/http/request/idempotency\\.ts$',
  'eventsource-parser': '^src/client/',
  piscina: '^src/engine/threads/pool\\.ts$',
  'lru-cache': '^src/http/(request/auth|live/endpoint-owners|limits/open-tasks)\\.ts$|^src/engine/dispatcher\\.ts$',
  croner: '^src/core/cron\\.ts$',
  'rate-limiter-flexible': '^src/http/limits/rate-limit\\.ts$',
}

const rule = (name, comment, from, to) => ({ name, comment, severity: 'error', from, to })
const paths = (rows) => rows.map(([, path]) => path)

module.exports = {
  forbidden: [
    rule(
      'a-layer-for-every-file',
      'Say in .dependency-cruiser.cjs which layer this file belongs to.',
      { path: '^src/', pathNot: paths(layers) },
      {},
    ),
    ...layers
      .slice(0, -1)
      .map(([name], i) =>
        rule(`downwards-only: ${name}`, 'Imports go down only.', { path: layers[i][1] }, { path: paths(layers.slice(i + 1)) }),
      ),
    ...siblings.flatMap((group) =>
      group.map((path) =>
        rule(`siblings-apart: ${path}`, 'Siblings do not import each other.', { path }, { path: group.filter((it) => it !== path) }),
      ),
    ),
    rule(
      'store-by-its-interface',
      'All but the composition roots know the store by its interfaces and types.',
      { path: '^src/', pathNot: '^src/(store/|platform\\.ts$|cli/)' },
      { path: '^src/store/', pathNot: '^src/store/(interfaces|types)\\.ts$' },
    ),
    rule(
      'client-and-receiver-stand-alone',
      'The client and the receiver import core/documents.ts and nothing else of the platform.',
      { path: '^src/(client|receiver)/' },
      { path: '^src/', pathNot: '^src/(client|receiver)/|^src/core/documents\\.ts$' },
    ),
    rule(
      'scripts-know-no-driver',
      'A script is one body for two databases.',
      { path: '^src/store/(scripts|queue|check/checks)' },
      { path: '^src/store/(sqlite|postgres|open)\\.ts$' },
    ),
    ...Object.entries(homes).map(([name, path]) =>
      rule(
        `one-home: ${name}`,
        `${name} has one home.`,
        { path: '^src/', pathNot: path },
        { path: `(^|/)node_modules/${name.replace('.', '\\.')}/` },
      ),
    ),
    rule('no-cycles', 'Two files that need each other are one.', { path: '^src/' }, { circular: true }),
    rule(
      'only-what-is-installed',
      'Product code uses what package.json lists under dependencies.',
      { path: '^src/' },
      { dependencyTypes: ['npm-dev', 'npm-no-pkg', 'npm-unknown', 'unknown'] },
    ),
    rule('resolvable', 'There is no such module.', {}, { couldNotResolve: true }),
  ],
  options: {
    parser: 'swc',
    tsPreCompilationDeps: true,
    doNotFollow: { path: 'node_modules' },
    enhancedResolveOptions: { exportsFields: ['exports'], conditionNames: ['import', 'node', 'types'] },
  },
}

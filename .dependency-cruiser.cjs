// The layers of the house: imports go down only, siblings stay apart, and every dependency has one home.

try {
  require.resolve('@swc/core')
} catch {
  // Without a parser for TypeScript nothing would be read, and nothing found wrong.
  throw new Error('The layers cannot be checked without @swc/core, which reads TypeScript for dependency-cruiser: run npm ci.')
}

/** From the ground up. A file may import from its own layer and from those before it. */
const layers = [
  ['words', '^src/(model|errors|clock)\\.ts$|^src/store/(store|terms)\\.ts$'],
  [
    'rules',
    '^src/(lifecycle|health|task|batch|config|cron|settings|id|seal|representation|replay|bulk|walk|depth|durations|apikey|idempotency|callbackurl|legible|self|slots)\\.ts$',
  ],
  ['storage, webhooks, log', '^src/(store/(?!(store|terms)\\.ts)|webhook/|receiver/|client/|(observe|receiver|client)\\.ts$)'],
  ['pump', '^src/((pump|run|threads|reseal)\\.ts$|threads/)'],
  ['engine, API, console', '^src/((scheduler|dispatcher|janitor|schedules)\\.ts$|http/|console/)'],
  ['platform', '^src/(platform|upkeep)\\.ts$'],
  ['faces', '^src/(cli/|(index|testing)\\.ts$)'],
]

/** Of these, none imports another. */
const siblings = [
  ['^src/store/(?!(store|terms)\\.ts)', '^src/webhook/', '^src/observe\\.ts$', '^src/receiver(/|\\.ts$)', '^src/client(/|\\.ts$)'],
  ['^src/scheduler\\.ts$', '^src/dispatcher\\.ts$', '^src/janitor\\.ts$', '^src/schedules\\.ts$', '^src/http/', '^src/console/'],
  ['^src/store/sqlite\\.ts$', '^src/store/postgres\\.ts$'],
  ['^src/index\\.ts$', '^src/testing\\.ts$', '^src/cli/'],
]

const homes = {
  'better-sqlite3': '^src/store/',
  'drizzle-orm': '^src/store/[^/]+$',
  pg: '^src/store/',
  jose: '^src/webhook/(signer|keys)\\.ts$|^src/receiver/verify\\.ts$',
  undici: '^src/webhook/(transport|attempt)\\.ts$',
  hono: '^src/(http|console)/',
  '@hono/zod-openapi': '^src/http/',
  '@hono/node-server': '^src/(http/|cli/|platform\\.ts$)',
  commander: '^src/cli/',
  pino: '^src/observe\\.ts$',
  'ipaddr.js': '^src/(webhook/address|settings)\\.ts$',
  'typeid-js': '^src/id\\.ts$',
  canonicalize: '^src/idempotency\\.ts$',
  'eventsource-parser': '^src/client/',
  piscina: '^src/threads\\.ts$',
  croner: '^src/cron\\.ts$',
  'rate-limiter-flexible': '^src/http/quotas\\.ts$',
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
      'store-by-its-promise',
      'All but the composition roots know the store by its interface, store/store.ts.',
      { path: '^src/', pathNot: '^src/(store/|(platform|upkeep|testing)\\.ts$)' },
      { path: '^src/store/(?!(store|terms)\\.ts)' },
    ),
    rule(
      'scripts-know-no-driver',
      'A script is one body for two databases.',
      { path: '^src/store/scripts/' },
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

import Database from 'better-sqlite3'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { generateApiKey } from '../../src/core/api-key.ts'
import { type ApiKey, type AuditEntry, clientScopes } from '../../src/core/model.ts'
import type { Route } from '../../src/http/request/route.ts'
import { defineTask } from '../../src/tasks/define.ts'
import { createRegistry } from '../../src/tasks/registry.ts'
import { anything, type Client, type Kit, openKit, REPORT, report, routesOf } from './kit.ts'

const pulled = defineTask({ type: 'pulled.one', where: 'worker' })
let kit: Kit
let behind: InstanceType<typeof Database>
let foreign: Client
let suspended: Client
let worker: Client['call']
let operator: Client['call']
beforeAll(async () => {
  kit = await openKit({ registry: createRegistry([report, anything, pulled]) })
  behind = new Database(kit.file, { readonly: true })
  foreign = await kit.newClient()
  suspended = await kit.newClient()
  await kit.admin.call('POST', `/v1/clients/${suspended.id}/suspend`)
  const operators = async (scope: string) => (await kit.admin.call('POST', '/v1/operator-keys', { name: scope, scopes: [scope] })).json.key
  worker = kit.as(await operators('worker'))
  operator = kit.as(await operators('admin'))
  const key = {
    alg: 'ES256',
    publicJwk: '{}',
    privateJwk: '',
    createdAt: 1,
    publishedAt: 1,
    activatedAt: 1,
    retiredAt: null,
    wantedAt: null,
  } as const
  await kit.store.signing.addKeys({
    keys: [
      { ...key, id: 'kid_active', state: 'active' },
      { ...key, id: 'kid_next', state: 'next' },
    ],
  })
})
afterAll(async () => {
  behind.close()
  await kit.close()
})

const LATER = { ...REPORT, delaySeconds: 600 }
let urls = 0
const newUrl = (): string => `https://app.example.net/hooks/${urls++}`

/** Makes what a request names, each of it a client's own; answers its id. */
interface Owner {
  readonly client: Client
  task(): Promise<string>
  canceled(): Promise<string>
  completed(): Promise<string>
  endpoint(body?: object): Promise<string>
  delivery(): Promise<string>
  schedule(): Promise<string>
  key(): Promise<string>
}
function owning(client: Client): Owner {
  const make = async (path: string, body: object): Promise<string> => (await client.call('POST', path, body)).json.id
  const owner: Owner = {
    client,
    task: () => make('/v1/tasks', LATER),
    async canceled() {
      const id = await owner.task()
      await client.call('POST', `/v1/tasks/${id}/cancel`)
      return id
    },
    async completed() {
      const id = await make('/v1/tasks', REPORT)
      await kit.finish(id)
      return id
    },
    endpoint: (body = {}) => make('/v1/endpoints', { url: newUrl(), ...body }),
    async delivery() {
      await owner.endpoint()
      await owner.canceled()
      return (await client.call('GET', '/v1/deliveries')).json.data[0].id
    },
    schedule: () => make('/v1/schedules', { ...REPORT, cron: '@yearly' }),
    key: async () => (await kit.admin.call('GET', `/v1/clients/${client.id}/keys`)).json.data[0].id,
  }
  return owner
}
const operatorKey = async (): Promise<string> =>
  (await kit.admin.call('POST', '/v1/operator-keys', { name: 'another', scopes: ['worker'] })).json.id

interface Ask {
  /** What stands for `{id}`, `{keyId}`, `{name}`. */
  readonly id?: string
  readonly keyId?: string
  readonly body?: object
  /** What the operator must say besides. */
  readonly whose?: string
}
const nothing = async (): Promise<Ask> => ({})
const a =
  (kind: Exclude<keyof Owner, 'client'>, body?: object) =>
  async (owner: Owner): Promise<Ask> => ({ id: await owner[kind](), ...(body && { body }) })
const client = async (owner: Owner): Promise<Ask> => ({ id: owner.client.id })
const clientKey = async (owner: Owner): Promise<Ask> => ({ id: owner.client.id, keyId: await owner.key() })
const sending = (body: object) => async (): Promise<Ask> => ({ body })

/** A task that a worker has, and what it says of it. */
const leased =
  (body: object = {}) =>
  async (owner: Owner): Promise<Ask> => {
    const { id } = (await owner.client.call('POST', '/v1/tasks', { type: 'pulled.one', input: null })).json
    const { tasks } = (await worker('POST', '/v1/worker/claim', { types: ['pulled.one'], limit: 100 })).json
    const { lease } = tasks.find((task: { id: string }) => task.id === id)
    return { id, body: { lease: lease.token, ...body } }
  }

/** A request of each route that is in order: whatever is refused, is refused for who asks. */
const requests: Readonly<Record<string, (owner: Owner) => Promise<Ask>>> = {
  createTask: sending(LATER),
  createTasks: sending({ tasks: [LATER] }),
  listTasks: nothing,
  getTask: a('task'),
  getTaskInput: a('task'),
  getTaskResult: a('completed'),
  cancelTask: a('task'),
  retryTask: a('canceled'),
  deleteTask: a('canceled'),
  cancelTasks: sending({}),
  retryTasks: sending({}),
  listTaskEvents: a('task'),
  listEvents: async ({ client: { id } }) => ({ whose: `?clientId=${id}` }),
  createSchedule: sending({ ...REPORT, cron: '@yearly' }),
  listSchedules: nothing,
  getSchedule: a('schedule'),
  changeSchedule: a('schedule', { cron: '@monthly' }),
  deleteSchedule: a('schedule'),
  createEndpoint: async () => ({ body: { url: newUrl() } }),
  listEndpoints: nothing,
  getEndpoint: a('endpoint'),
  changeEndpoint: a('endpoint', { description: 'changed' }),
  deleteEndpoint: a('endpoint'),
  pauseEndpoint: a('endpoint'),
  async resumeEndpoint(owner) {
    const id = await owner.endpoint()
    await owner.client.call('POST', `/v1/endpoints/${id}/pause`)
    return { id }
  },
  rotateSecret: a('endpoint'),
  pingEndpoint: a('endpoint'),
  verifyEndpoint: async (owner) => ({ id: await owner.endpoint({ verification: 'challenge' }) }),
  listDeliveries: nothing,
  getDelivery: a('delivery'),
  redeliver: a('delivery'),
  replayDeliveries: sending({}),
  listTaskTypes: nothing,
  getTaskType: async () => ({ id: 'report.build' }),
  pauseTaskType: async () => ({ id: 'anything' }),
  resumeTaskType: async () => ({ id: 'anything' }),
  createClient: sending({ name: 'Another' }),
  listClients: nothing,
  getClient: client,
  suspendClient: client,
  resumeClient: client,
  deleteClient: client,
  createKey: client,
  listKeys: client,
  rotateKey: clientKey,
  revokeKey: clientKey,
  createOperatorKey: sending({ name: 'Another', scopes: ['worker'] }),
  listOperatorKeys: nothing,
  rotateOperatorKey: async () => ({ id: await operatorKey() }),
  revokeOperatorKey: async () => ({ id: await operatorKey() }),
  listSigningKeys: nothing,
  rotateSigningKeys: nothing,
  revokeSigningKey: async () => ({ id: 'kid_active' }),
  listAuditLog: nothing,
  claimTasks: sending({ types: ['pulled.one'] }),
  heartbeatTask: leased(),
  completeTask: leased({ result: null }),
  failTask: leased({ error: { message: 'it broke' } }),
  releaseTask: leased(),
  getHealth: nothing,
  getReadiness: nothing,
  getJwks: nothing,
  getOpenApi: nothing,
  getEventSchema: async () => ({ id: 'task.completed' }),
  getReference: nothing,
  getReferenceFile: async () => ({ id: 'start.js' }),
}

async function ask(route: Route, call: Client['call'], { id = '', keyId = '', body, whose }: Ask): Promise<number> {
  const path = route.path.replaceAll(/\{(\w+)\}/g, (_, name) => (name === 'keyId' ? keyId : id)) + (call === operator ? (whose ?? '') : '')
  return (await call(route.method.toUpperCase(), path, body ?? (route.body && !route.bodyOptional ? {} : undefined))).status
}

/** Everything the database holds but when keys were used. */
function everything(): unknown {
  const tables = behind
    .prepare(`select name from sqlite_master where type = 'table' and name not like 'sqlite_%'`)
    .pluck()
    .all() as string[]
  const rows = (table: string): unknown[] => behind.prepare(`select * from ${table}`).all()
  return tables.map((table) => [table, rows(table).map((row) => ({ ...(row as object), last_used_at: null }))])
}
const entries = (): AuditEntry[] => behind.prepare('select * from audit_log order by id').all() as AuditEntry[]

/** A key that the client had, or has, written as it came to be. */
async function keyOf(owner: Owner, how: Partial<Pick<ApiKey, 'expiresAt' | 'scopes'>>, revoked = false): Promise<Client['call']> {
  const { key, hash, hint } = generateApiKey(kit.clock)
  const id = `key_${hash.slice(0, 26)}`
  await kit.store.access.addKey({
    max: 100,
    key: {
      id,
      clientId: owner.client.id,
      name: '',
      hash,
      hint,
      scopes: JSON.stringify(clientScopes),
      taskTypes: null,
      expiresAt: null,
      ...how,
    },
  })
  if (revoked) await kit.store.access.revokeKey({ id, clientId: owner.client.id })
  return kit.as(key)
}

type Identity = 'no key' | 'unknown' | 'expired' | 'revoked' | 'no scope' | 'foreign' | 'suspended' | 'worker' | 'operator' | 'client'

/** Who is refused on every route, but for those that anyone may ask. */
async function refused(owner: Owner): Promise<(route: Route) => readonly (readonly [Identity, Client['call']])[]> {
  const expired = await keyOf(owner, { expiresAt: kit.clock.now() - 1 })
  const revoked = await keyOf(owner, {}, true)
  const narrow = new Map<string, Client['call']>()
  for (const without of [...clientScopes, 'admin'])
    narrow.set(without, await keyOf(owner, { scopes: JSON.stringify(clientScopes.filter((scope) => scope !== without)) }))
  return ({ scope }) => [
    ['no key', kit.stranger.call],
    ['unknown', kit.as(generateApiKey(kit.clock).key)],
    ['expired', expired],
    ['revoked', revoked],
    ['no scope', narrow.get(scope) ?? owner.client.call],
    ['suspended', suspended.call],
    ...(scope === 'worker' ? [] : ([['worker', worker]] as const)),
  ]
}

const found: string[] = []
describe('Who may do what:', () => {
  test('every route has a request to try it with', async () => {
    const names = routesOf(kit.options).map(({ name }) => name)
    expect(names.filter((name) => !(name in requests))).toEqual([])
    expect(Object.keys(requests).filter((name) => !names.includes(name))).toEqual([])
  })

  test('each route answers each caller as the table says; who is refused changes nothing, and what takes a privilege is kept', async () => {
    const lasting = owning(await kit.newClient())
    const refusing = await refused(lasting)
    for (const route of routesOf(kit.options)) {
      const owner = route.path.startsWith('/v1/clients/') ? owning(await kit.newClient()) : lasting
      const request = requests[route.name]!
      const asked = await request(owner)
      const answers: Partial<Record<Identity, number>> = {}
      const forOperators = route.scope === 'admin' || route.scope === 'worker'
      const namesOneOfAClient = route.scope !== 'public' && !forOperators && route.path.includes('{id}')
      const before = everything()
      for (const [who, call] of refusing(route)) answers[who] = await ask(route, call, asked)
      if (forOperators || namesOneOfAClient) answers.foreign = await ask(route, foreign.call, asked)
      if (route.scope !== 'public') expect([route.name, everything()]).toEqual([route.name, before])
      answers.foreign ??= await ask(route, foreign.call, route.path.includes('{') ? asked : await request(owning(foreign)))
      for (const who of ['no key', 'unknown', 'expired', 'revoked'] as const)
        expect([route.name, who, answers[who]]).toEqual([route.name, who, route.scope === 'public' ? 200 : 401])
      for (const who of ['no scope', 'suspended'] as const)
        expect([route.name, who, answers[who]]).toEqual([route.name, who, route.scope === 'public' ? 200 : 403])
      if (forOperators) expect([route.name, answers.foreign]).toEqual([route.name, 403])
      if (route.scope !== 'worker' && route.scope !== 'public') expect([route.name, answers.worker]).toEqual([route.name, 403])
      if (namesOneOfAClient) expect([route.name, 'foreign', answers.foreign]).toEqual([route.name, 'foreign', 404])

      const kept: Partial<Record<Identity, string>> = {}
      for (const [who, call] of [
        ['client', owner.client.call],
        ['operator', operator],
        ...(route.scope === 'worker' ? ([['worker', worker]] as const) : []),
      ] as const) {
        const wanted = await request(owner)
        const known = entries().length
        answers[who] = await ask(route, call, wanted)
        const fresh = entries().slice(known)
        expect([route.name, who, fresh.length <= 1]).toEqual([route.name, who, true])
        if (fresh[0]) kept[who] = fresh[0].action
        if (answers[who]! >= 300 || route.method === 'get') expect([route.name, who, kept[who]]).toEqual([route.name, who, undefined])
      }
      // Whatever the operator changes is kept; what workers do is the work itself.
      if (route.method !== 'get' && route.scope !== 'worker' && answers.operator! < 300)
        expect([route.name, kept.operator]).toEqual([route.name, expect.any(String)])
      expect([route.name, answers.operator! < 300]).toEqual([route.name, route.clientOnly !== true])
      expect([route.name, answers.client! < 300]).toEqual([route.name, !forOperators])
      found.push(row(route, answers, kept))
    }
  })

  test('docs/reference/access.md is what was found', async () => {
    await expect(page(found)).toMatchFileSnapshot('../../docs/reference/access.md')
  })
})

/** Callers that the test above found to get the same status from every route share a column. */
const columns: readonly (readonly [title: string, caller: Identity])[] = [
  ['no valid key', 'no key'],
  ['missing scope, suspended', 'no scope'],
  ['other client', 'foreign'],
  ['worker', 'worker'],
  ['operator', 'operator'],
  ['client', 'client'],
]

function row(route: Route, answers: Partial<Record<Identity, number>>, kept: Partial<Record<Identity, string>>): string {
  const action = kept.operator ?? kept.client
  const limit = action === undefined || route.scope === 'admin' || kept.client !== undefined ? '' : '*'
  const cells = [
    `\`${route.method.toUpperCase()} ${route.path}\``,
    `\`${route.scope}\``,
    ...columns.map(([, caller]) => answers[caller]),
    action === undefined ? '' : `\`${action}\`${limit}`,
  ]
  return `| ${cells.join(' | ')} |`
}

const page = (rows: readonly string[]): string => `# Who may do what

Generated by a test that calls every route as every caller: do not edit. Cells show the status of the response.

| caller | key of the request |
|---|---|
| no valid key | none, unknown, expired or revoked |
| missing scope, suspended | a client’s key with every client scope except the route’s; or a key of a suspended client |
| other client | a key of a client that does not own the object in the path; routes without an id act for that client, hence 202 |
| worker | operator key with scope \`worker\` |
| operator | operator key with scope \`admin\` (also with both scopes), or the admin token |
| client | the owner’s key with the route’s scope |

A request answered 401, 403 or 404 changes at most the key’s \`lastUsedAt\`. The last column names the [audit log](http.md#the-audit-log) action; *: logged only when the operator does it. The operator verifies an endpoint without a proof, hence 200.

| route | scope | ${columns.map(([title]) => title).join(' | ')} | audit log |
|${'---|'.repeat(columns.length + 3)}
${rows.join('\n')}
`

describe('What is another client’s', () => {
  test('cannot be named in a body or a query either', async () => {
    const owner = owning(await kit.newClient())
    const [endpointId, taskId] = [await owner.endpoint(), await owner.task()]
    const { json: events } = await owner.client.call('GET', '/v1/events')
    const pointer = async (path: string, body: object) => (await foreign.call('POST', path, body)).json.errors?.[0]?.pointer
    expect(await pointer('/v1/tasks', { ...LATER, callback: { endpointId } })).toBe('#/callback/endpointId')
    expect(await pointer('/v1/tasks/batch', { tasks: [{ ...LATER, callback: { endpointId } }] })).toBe('#/tasks/0/callback/endpointId')
    expect(await pointer('/v1/schedules', { ...REPORT, cron: '@yearly', callback: { endpointId } })).toBe('#/callback/endpointId')
    expect(await pointer('/v1/deliveries/replay', { endpointId })).toBe('#/endpointId')
    for (const query of [`endpointId=${endpointId}`, `taskId=${taskId}`])
      expect((await foreign.call('GET', `/v1/deliveries?${query}`)).json.data).toEqual([])
    expect(events.data).toEqual([])
    for (const list of ['tasks', 'endpoints', 'deliveries', 'events', 'schedules'])
      expect((await foreign.call('GET', `/v1/${list}?clientId=${owner.client.id}`)).status).toBe(422)
  })
})

/** What the HTTP tests stand on: a real store in a file, the app over it, and short ways to call it. */

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { z } from 'zod'
import { type Clock, systemClock } from '../../src/core/clock.ts'
import { createEncryptor } from '../../src/core/encryption.ts'
import type { Task } from '../../src/core/model.ts'
import { type AppOptions, apiRoutes, createApp } from '../../src/http/app.ts'
import { createWorkerClaims } from '../../src/http/live/claims.ts'
import { createWatchers, type Watchers } from '../../src/http/live/waits.ts'
import { errorCodesByStatus } from '../../src/http/openapi/document.ts'
import type { Route } from '../../src/http/request/route.ts'
import { problem } from '../../src/http/shapes/system.ts'
import type { Store } from '../../src/store/interfaces.ts'
import { openStore } from '../../src/store/open.ts'
import { defineTask } from '../../src/tasks/define.ts'
import { createRegistry } from '../../src/tasks/registry.ts'
import { parseAddressRules, parseCallbackUrl } from '../../src/webhook/address.ts'
import { generateSecret, secretHint } from '../../src/webhook/signer.ts'
import { printTrouble } from '../support/events.ts'

export const PUBLIC_URL = 'https://tasks.example.com/ring'
export const ADMIN = 'admin-token-of-the-tests-0123456789'

export const report = defineTask({
  type: 'report.build',
  description: 'Builds a report',
  input: z.object({ month: z.string(), width: z.number().min(1).optional() }),
  result: z.object({ rows: z.number() }),
  run: () => ({ rows: 1 }),
})
export const anything = defineTask({ type: 'anything', run: (input) => input })

type Body = string | object | undefined
export interface Answer {
  readonly status: number
  readonly headers: Headers
  readonly text: string
  // biome-ignore lint/suspicious/noExplicitAny: tests look into answers of every shape
  readonly json: any
}

export interface Client {
  readonly id: string
  readonly key: string
  /** `signal` hangs up: a stream is read until then. */
  call(method: string, path: string, body?: Body, headers?: Record<string, string>, signal?: AbortSignal): Promise<Answer>
}

export interface Kit {
  /** Of the database file. */
  readonly file: string
  readonly store: Store
  readonly clock: Clock
  readonly waits: Watchers
  readonly app: ReturnType<typeof createApp>
  readonly options: AppOptions
  /** The operator. */
  readonly admin: Client
  /** Someone without a key. */
  readonly stranger: Client
  as(key: string): Client['call']
  newClient(options?: { scopes?: string[] }): Promise<Client>
  /** Claims a task and completes it, as a scheduler would. */
  finish(id?: string, result?: unknown): Promise<Task>
  claim(id?: string): Promise<Task>
  close(): Promise<void>
}

export async function openKit(overrides: Partial<AppOptions> = {}): Promise<Kit> {
  const folder = mkdtempSync(join(tmpdir(), 'ringback-http-'))
  const clock = overrides.clock ?? systemClock()
  const file = join(folder, 'test.db')
  const url = `file:${file}`
  const store = overrides.store ?? (await openStore({ url, clock, publicUrl: () => PUBLIC_URL, retrySchedule: [0, 5, 30] }))
  // Waits of many seconds take a twentieth of their time.
  const waits = createWatchers({ store, clock: { ...clock, after: (ms, wake) => clock.after(ms / 20, wake) } })
  const rules = parseAddressRules({ allowHttp: true, allowLoopback: true })
  const claims = createWorkerClaims({ store, clock, leaseMs: 30_000, events: printTrouble() })
  const options: AppOptions = {
    store,
    registry: createRegistry([report, anything]),
    clock,
    publicUrl: () => PUBLIC_URL,
    adminToken: ADMIN,
    encryptor: createEncryptor({ masterKey: Buffer.alloc(32, 7).toString('base64'), clock }),
    retentionMs: () => 7 * 86_400_000,
    typicalDurationMs: () => null,
    signingKeys: {
      jwks: () => ({ body: '{"keys":[]}', etag: '"keys"' }),
      load: async () => {},
      keyTransitionTimes: () => ({ signsFrom: null, leavesAt: null }),
    },
    validateCallbackUrl: (url) => parseCallbackUrl(url, rules),
    generateSecret: () => generateSecret(clock),
    secretHint,
    verificationDefault: 'none',
    bodyLimitBytes: 1024 * 1024,
    corsOrigins: [],
    maxOpenTasks: 2_000_000,
    maxPerClient: { openTasks: 1_000_000, endpoints: 1_000, schedules: 1_000, keys: 1_000 },
    streamLimits: { node: 100, client: 100 },
    waitLimits: { node: 200, client: 200 },
    health: async () => ({ store: 'ok' }),
    watchers: waits,
    claims,
    leaseMs: 30_000,
    events: printTrouble(),
    ...overrides,
  }
  const app = createApp(options)
  const routes = routesOf(options)
  const as =
    (key: string | null): Client['call'] =>
    async (method, path, body, headers = {}, signal) => {
      const text = body === undefined || typeof body === 'string' ? body : JSON.stringify(body)
      const response = await app.request(path, {
        method,
        headers: {
          ...(key === null ? {} : { authorization: `Bearer ${key}` }),
          ...(text === undefined ? {} : { 'content-type': 'application/json' }),
          ...headers,
        },
        ...(text === undefined ? {} : { body: text }),
        ...(signal && { signal }),
      })
      const answer = await response.text()
      checkAnswer(routes, method, path, response, answer)
      const isJson = /json/.test(response.headers.get('content-type') ?? '') && answer !== ''
      return { status: response.status, headers: response.headers, text: answer, json: isJson ? JSON.parse(answer) : undefined }
    }
  const admin: Client = { id: '', key: ADMIN, call: as(ADMIN) }
  const claimed = new Map<string, Task>()
  const claim = async (id?: string): Promise<Task> => {
    const types = options.registry.list().map(({ type }) => ({ type, concurrency: null }))
    const { items } = await store.tasks.claim({ types, limit: 200, leaseMs: 600_000, leasedBy: 'boot_test' })
    for (const task of items) claimed.set(task.id, task)
    const task = claimed.get(id ?? [...claimed.keys()][0] ?? '')
    if (!task) throw new Error(`the task ${id} could not be claimed`)
    claimed.delete(task.id)
    return task
  }
  return {
    file,
    store,
    clock,
    waits,
    app,
    options,
    admin,
    stranger: { id: '', key: '', call: as(null) },
    as,
    async newClient({ scopes } = {}) {
      const { json: client } = await admin.call('POST', '/v1/clients', { name: 'A client' })
      const { json: made } = await admin.call('POST', `/v1/clients/${client.id}/keys`, scopes ? { scopes } : {})
      return { id: client.id, key: made.key, call: as(made.key) }
    },
    claim,
    async finish(taskId, result = { rows: 1 }) {
      const { id, fence } = await claim(taskId)
      const settled = await store.tasks.settle({ id, fence, outcome: { kind: 'complete', result: JSON.stringify(result) } })
      if (settled.kind !== 'settled') throw new Error('the task was not settled')
      return settled.value
    },
    async close() {
      waits.stop()
      await claims.stop()
      if (!overrides.store) await store.close()
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

/** The table of routes, for what it declares: none of them can be called without its context. */
export const routesOf = (options: AppOptions): readonly Route[] =>
  apiRoutes({
    ...options,
    authenticator: undefined as never,
    endpointOwners: undefined as never,
    cursors: undefined as never,
    waitingReasons: undefined as never,
    checkCapacity: undefined as never,
    streamLimiter: undefined as never,
    waitLimiter: undefined as never,
  })

const patternOf = (route: Route): RegExp => new RegExp(`^${route.path.replaceAll('.', '\\.').replaceAll(/\{\w+\}/g, '[^/]+')}$`)

/** Headers of every answer, and those that say nothing of the one they stand in. */
const OF_ALL =
  /^(content-type|content-length|content-security-policy|referrer-policy|x-content-type-options|x-request-id|x-accel-buffering|cache-control|vary|ratelimit(-policy)?|access-control-.*)$/

/** Every answer of every test is held against what its route declares: the OpenAPI document is made of the same. */
export function checkAnswer(routes: readonly Route[], method: string, path: string, response: Response, text: string): void {
  const { pathname } = new URL(path, 'http://test')
  const asked = method === 'HEAD' ? 'get' : method.toLowerCase()
  // Where the path itself is one of ours, none with parameters is meant, whatever the method.
  const meant = routes.some((candidate) => candidate.path === pathname) ? routes.filter((candidate) => candidate.path === pathname) : routes
  const matching = meant.filter((candidate) => candidate.method === asked && patternOf(candidate).test(pathname))
  const route = matching.find((candidate) => candidate.path === pathname) ?? matching[0]
  const answer = route?.responses[response.status]
  const type = response.headers.get('content-type')
  for (const name of ['x-request-id', 'cache-control', 'content-security-policy', 'referrer-policy'])
    if (!response.headers.get(name)) throw new Error(`${method} ${path} answered without ${name}`)
  if (response.headers.get('x-content-type-options') !== 'nosniff') throw new Error(`${method} ${path} lets its type be guessed`)
  for (const name of ['server', 'x-powered-by', 'set-cookie'])
    if (response.headers.has(name)) throw new Error(`${method} ${path} answered with ${name}`)
  if (response.status < 400) {
    if (method === 'OPTIONS') return
    const declared = (answer?.headers ?? []).map((name) => name.toLowerCase())
    for (const [name] of response.headers)
      if (answer && !OF_ALL.test(name) && !declared.includes(name))
        throw new Error(`${method} ${path} answered ${response.status} with ${name}, which its route does not declare`)
    if (!route || !answer) throw new Error(`${method} ${path} answered ${response.status}, which its route does not declare`)
    if (answer.schema === undefined || method === 'HEAD') {
      if (text !== '') throw new Error(`${method} ${path} answered a body it does not declare: ${text}`)
      return
    }
    if (type !== null && type === answer.alternative?.type) {
      if (type !== 'text/event-stream') return void answer.alternative.schema.parse(text)
      for (const [, data] of text.matchAll(/^data: (.*)$/gm)) answer.alternative.schema.parse(JSON.parse(data!))
      return
    }
    if (type !== (answer.type ?? 'application/json')) throw new Error(`${method} ${path} answered ${type}`)
    answer.schema.parse(/json/.test(type) ? JSON.parse(text) : text)
    return
  }
  if (type !== 'application/problem+json') throw new Error(`${method} ${path} answered ${response.status} as ${type}: ${text}`)
  if (method === 'HEAD') return
  const { code, status, type: urn } = problem.parse(JSON.parse(text))
  if (status !== response.status || urn !== `urn:ringback:problem:${code}`) throw new Error(`${method} ${path} contradicts itself: ${text}`)
  const declared: readonly string[] = route ? (errorCodesByStatus(route)[response.status] ?? []) : ['not_found', 'method_not_allowed']
  if (!declared.includes(code)) throw new Error(`${method} ${path} refused with ${code}, which its route does not declare: ${text}`)
}

export const REPORT = { type: 'report.build', input: { month: '2026-10' } }

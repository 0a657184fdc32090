import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { errorStatuses } from '../../../src/core/errors.ts'
import { type EventType, endpointEventTypes, taskEventTypes } from '../../../src/core/model.ts'
import { errorCodesByStatus } from '../../../src/http/openapi/document.ts'
import { type Judge, judgeBy, type Node } from '../../support/document.ts'
import { type Kit, openKit, PUBLIC_URL, routesOf } from '../kit.ts'

const root = fileURLToPath(new URL('../../..', import.meta.url))

let kit: Kit
let document: Node
let judge: Judge
beforeAll(async () => {
  kit = await openKit()
  const answer = await kit.stranger.call('GET', '/openapi.json')
  document = answer.json
  judge = judgeBy(document)
})
afterAll(() => kit.close())

const METHODS = ['get', 'post', 'patch', 'delete']

/** Every object in the document, with its place. */
function* walk(node: Node, path: readonly string[] = []): Generator<readonly [Node, string]> {
  if (typeof node !== 'object' || node === null) return
  yield [node, path.join('/')]
  for (const [key, value] of Object.entries(node)) yield* walk(value, [...path, key])
}

test('The document describes every route, and nothing but routes', () => {
  expect(document.openapi).toMatch(/^3\.1\./)
  expect(document.servers).toEqual([{ url: PUBLIC_URL, description: expect.any(String) }])
  const described = Object.entries<Node>(document.paths).flatMap(([path, item]) => Object.keys(item).map((method) => `${method} ${path}`))
  expect(described.sort()).toEqual(
    routesOf(kit.options)
      .map((route) => `${route.method} ${route.path}`)
      .sort(),
  )
})

test('Every reference leads somewhere', () => {
  for (const [node, place] of walk(document)) {
    if (typeof node.$ref !== 'string') continue
    const target = node.$ref
      .slice(2)
      .split('/')
      .reduce((at: Node, step: string) => at?.[step], document)
    expect([place, node.$ref, target !== undefined]).toEqual([place, node.$ref, true])
  }
})

test('Every operation has a name of its own, a summary, its path parameters, its scope and its refusals as problems', () => {
  const names = new Set<string>()
  for (const route of routesOf(kit.options)) {
    const operation = document.paths[route.path][route.method]
    expect(operation.summary).toBeTruthy()
    const said = operation.description?.replace(/Scope: `[\w:]+`\./, '').trim()
    expect([route.name, said !== undefined && said !== '']).toEqual([route.name, true])
    expect(METHODS).toContain(route.method)
    names.add(operation.operationId)
    const declared = (operation.parameters ?? [])
      .filter((parameter: Node) => parameter.in === 'path')
      .map((parameter: Node) => parameter.name)
    expect(declared).toEqual([...route.path.matchAll(/\{(\w+)\}/g)].map(([, name]) => name))
    for (const parameter of operation.parameters ?? []) if (parameter.in === 'path') expect(parameter.required).toBe(true)
    expect(operation.security).toEqual(route.scope === 'public' ? [] : [{ bearer: [route.scope] }])
    if (route.scope !== 'public') expect(operation.description).toContain(route.scope)
    for (const status of [...Object.keys(route.responses), ...Object.keys(errorCodesByStatus(route))]) {
      const answer = operation.responses[status]
      expect([route.name, status, typeof answer?.description]).toEqual([route.name, status, 'string'])
      if (Number(status) >= 400) expect(answer.content['application/problem+json'].schema).toEqual({ $ref: '#/components/schemas/Problem' })
    }
  }
  expect(names.size).toBe(routesOf(kit.options).length)
})

/** Every place where JSON is sent or answered, with the steps that lead there. */
function* jsonPlaces(): Generator<readonly [Node, readonly string[]]> {
  for (const group of ['paths', 'webhooks'])
    for (const [path, item] of Object.entries<Node>(document[group]))
      for (const method of METHODS) {
        if (!item[method]) continue
        const steps = [group, path, method]
        for (const [type, media] of Object.entries<Node>(item[method].requestBody?.content ?? {}))
          yield [media, [...steps, 'requestBody', 'content', type]]
        for (const [status, answer] of Object.entries<Node>(item[method].responses))
          for (const [type, media] of Object.entries<Node>(answer.content ?? {}))
            yield [media, [...steps, 'responses', status, 'content', type]]
      }
}

test('Whatever is sent or answered as JSON is shown by examples, and each fits its schema', () => {
  let seen = 0
  for (const [media, steps] of jsonPlaces()) {
    // The document itself, schemas, and files of the page.
    if (steps.some((step) => /^\/(openapi\.json|schemas|docs)/.test(step)) && !steps.includes('application/problem+json')) continue
    const names = Object.keys(media.examples ?? {})
    expect([steps.join(' '), names.length > 0]).toEqual([steps.join(' '), true])
    for (const name of names) {
      const { summary, value } = judge.at(...steps, 'examples', name)
      expect([name, summary]).toEqual([name, expect.any(String)])
      expect([steps.join(' '), name, judge.faults(value, ...steps, 'schema')]).toEqual([steps.join(' '), name, []])
      seen++
    }
  }
  expect(seen).toBeGreaterThan(200)
})

test('The shapes that validate take the examples too', () => {
  for (const route of routesOf(kit.options)) {
    const { requestBody } = document.paths[route.path][route.method]
    for (const name of Object.keys(Object.values<Node>(requestBody?.content ?? {})[0]?.examples ?? {}))
      expect(route.body!.safeParse(document.components.examples[name].value).error).toBeUndefined()
  }
})

test('Links lead from an answer to operations, by parameters that these have and members that it has', () => {
  const byId = new Map(
    Object.values<Node>(document.paths).flatMap((item) => Object.values<Node>(item).map((each) => [each.operationId, each])),
  )
  let seen = 0
  for (const [path, item] of Object.entries<Node>(document.paths))
    for (const [method, operation] of Object.entries<Node>(item))
      for (const [status, answer] of Object.entries<Node>(operation.responses))
        for (const name of Object.keys(answer.links ?? {})) {
          const { operationId, parameters } = judge.at('paths', path, method, 'responses', status, 'links', name)
          const taken = byId.get(operationId).parameters.map((parameter: Node) => parameter.name)
          for (const [parameter, from] of Object.entries<string>(parameters)) {
            expect([operationId, taken]).toEqual([operationId, expect.arrayContaining([parameter])])
            const member = /^\$response\.body#\/(\w+)$/.exec(from)?.[1]
            if (member === undefined) expect(path).toContain(`{${from.replace('$request.path.', '')}}`)
            else
              expect(
                judge.at('paths', path, method, 'responses', status, 'content', 'application/json', 'schema').properties,
              ).toHaveProperty(member)
          }
          seen++
        }
  expect(seen).toBeGreaterThan(50)
  const accepted = document.paths['/v1/tasks'].post.responses[202].links
  expect(Object.keys(accepted)).toEqual(expect.arrayContaining(['status', 'cancel', 'events', 'result', 'deliveries']))
})

test('Headers are described, with an example that fits', () => {
  for (const [name, header] of Object.entries<Node>(document.components.headers)) {
    expect([name, header.description]).toEqual([name, expect.any(String)])
    expect([name, judge.faults(header.example, 'components', 'headers', name, 'schema')]).toEqual([name, []])
  }
  const { responses } = document.paths['/v1/tasks'].post
  expect(Object.keys(responses[202].headers)).toEqual(
    expect.arrayContaining(['Location', 'Retry-After', 'ETag', 'RateLimit', 'X-Request-Id']),
  )
  expect(Object.keys(responses[401].headers)).toContain('WWW-Authenticate')
  for (const status of [429, 503]) expect(Object.keys(responses[status].headers)).toContain('Retry-After')
  // The operator and workers are not counted.
  for (const path of ['/v1/clients', '/v1/worker/claim'])
    expect([path, Object.keys(document.paths[path].post.responses[401].headers)]).toEqual([path, expect.not.arrayContaining(['RateLimit'])])
})

test('Redocly finds nothing to say against the document', () => {
  const folder = mkdtempSync(join(tmpdir(), 'ringback-lint-'))
  try {
    const file = join(folder, 'openapi.json')
    writeFileSync(file, JSON.stringify(document))
    const { status, stdout, stderr } = spawnSync(
      process.execPath,
      [join(root, 'node_modules/@redocly/cli/bin/cli.js'), 'lint', file, '--config', join(root, 'redocly.yaml'), '--format', 'stylish'],
      { encoding: 'utf8', env: { ...process.env, REDOCLY_TELEMETRY: 'off', REDOCLY_SUPPRESS_UPDATE_NOTICE: 'true' } },
    )
    expect([status, status === 0 ? '' : stdout + stderr]).toEqual([0, ''])
  } finally {
    rmSync(folder, { recursive: true })
  }
})

test('The document says what the validator does: bounds, closed objects, query parameters', () => {
  const { schemas } = document.components
  expect(schemas.CreateTask.additionalProperties).toBe(false)
  expect(schemas.CreateTask.required.sort()).toEqual(['input', 'type'])
  expect(schemas.CreateTask.properties.maxTries).toMatchObject({ minimum: 1, maximum: 100 })
  expect(schemas.CreateTask.properties.concurrencyKey).toMatchObject({ maxLength: 255 })
  expect(schemas.Task.additionalProperties).toBe(false)
  expect(schemas.Task.required).toEqual(expect.arrayContaining(['result', 'error', 'callback', 'links', 'estimatedCompletionAt']))
  expect(schemas.CreateSchedule.additionalProperties).toBe(false)
  expect(schemas.CreateSchedule.required.sort()).toEqual(['cron', 'input', 'type'])
  expect(schemas.CreateSchedule.properties.cron).toMatchObject({ minLength: 1, maxLength: 200 })
  expect(schemas.PatchSchedule.required).toBeUndefined()
  expect(schemas.Schedule.required).toEqual(expect.arrayContaining(['nextAt', 'lastAt', 'upcoming', 'revision']))
  const list = document.paths['/v1/tasks'].get.parameters
  expect(list.map((parameter: Node) => parameter.name)).toEqual(
    expect.arrayContaining(['status', 'type', 'batchId', 'metadata', 'createdAfter', 'createdBefore', 'order', 'limit', 'cursor']),
  )
  expect(list.find((parameter: Node) => parameter.name === 'metadata').style).toBe('deepObject')
  expect(document.paths['/v1/tasks/{id}'].get.parameters.find((parameter: Node) => parameter.name === 'wait').schema).toMatchObject({
    type: 'integer',
  })
  expect(Object.keys(document.paths['/v1/schedules/{id}'].patch.requestBody.content)).toContain('application/merge-patch+json')
  expect(Object.keys(document.paths['/v1/endpoints/{id}'].patch.requestBody.content)).toContain('application/merge-patch+json')
})

test('Webhooks and callbacks share the components of the API', () => {
  expect(Object.keys(document.webhooks).sort()).toEqual([...taskEventTypes, ...endpointEventTypes].sort())
  const event = { $ref: '#/components/schemas/TaskEvent' }
  const sent = (type: EventType): Node => document.webhooks[type].post.requestBody.content['application/json'].schema
  for (const type of taskEventTypes) expect(sent(type)).toEqual(event)
  for (const type of endpointEventTypes) expect(sent(type).properties.type.enum).toEqual([type])
  const callback = document.paths['/v1/tasks'].post.callbacks.onTaskEvent['{$request.body#/callback/url}'].post
  expect(callback.requestBody.content['application/json'].schema).toEqual(event)
  expect(callback.parameters.map((parameter: Node) => parameter.name)).toContain('webhook-jws')
})

test('Every code a route may refuse with is one of the closed list, and those of this API are all named', () => {
  const named = new Set(routesOf(kit.options).flatMap((route) => Object.values(errorCodesByStatus(route)).flat()))
  for (const code of named) expect(Object.keys(errorStatuses)).toContain(code)
  const elsewhere = ['method_not_allowed', 'challenge_mismatch']
  expect(Object.keys(errorStatuses).filter((code) => !named.has(code as never) && !elsewhere.includes(code))).toEqual([])
})

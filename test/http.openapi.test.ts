import { afterAll, beforeAll, expect, test } from 'vitest'
import { statuses } from '../src/errors.ts'
import { refusals } from '../src/http/openapi.ts'
import { taskEventTypes } from '../src/model.ts'
import { type Kit, openKit, PUBLIC_URL, routesOf } from './http.kit.ts'

// biome-ignore lint/suspicious/noExplicitAny: a document of many shapes is walked
type Node = any

let kit: Kit
let document: Node
beforeAll(async () => {
  kit = await openKit()
  const answer = await kit.stranger.call('GET', '/openapi.json')
  document = answer.json
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
  expect(document.servers).toEqual([{ url: PUBLIC_URL }])
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
    expect(METHODS).toContain(route.method)
    names.add(operation.operationId)
    const declared = (operation.parameters ?? [])
      .filter((parameter: Node) => parameter.in === 'path')
      .map((parameter: Node) => parameter.name)
    expect(declared).toEqual([...route.path.matchAll(/\{(\w+)\}/g)].map(([, name]) => name))
    for (const parameter of operation.parameters ?? []) if (parameter.in === 'path') expect(parameter.required).toBe(true)
    expect(operation.security).toEqual(route.scope === 'public' ? [] : [{ bearer: [] }])
    if (route.scope !== 'public') expect(operation.description).toContain(route.scope)
    for (const status of [...Object.keys(route.answers), ...Object.keys(refusals(route))]) {
      const answer = operation.responses[status]
      expect([route.name, status, typeof answer?.description]).toEqual([route.name, status, 'string'])
      if (Number(status) >= 400) expect(answer.content['application/problem+json'].schema).toEqual({ $ref: '#/components/schemas/Problem' })
    }
  }
  expect(names.size).toBe(routesOf(kit.options).length)
})

test('The document says what the validator does: bounds, closed objects, query parameters', () => {
  const { schemas } = document.components
  expect(schemas.CreateTask.additionalProperties).toBe(false)
  expect(schemas.CreateTask.required.sort()).toEqual(['input', 'type'])
  expect(schemas.CreateTask.properties.maxTries).toMatchObject({ minimum: 1, maximum: 100 })
  expect(schemas.CreateTask.properties.concurrencyKey).toMatchObject({ maxLength: 255 })
  expect(schemas.Task.additionalProperties).toBe(false)
  expect(schemas.Task.required).toEqual(expect.arrayContaining(['result', 'error', 'callback', 'links', 'estimatedCompletionAt']))
  const list = document.paths['/v1/tasks'].get.parameters
  expect(list.map((parameter: Node) => parameter.name)).toEqual(
    expect.arrayContaining(['status', 'type', 'batchId', 'metadata', 'createdAfter', 'createdBefore', 'order', 'limit', 'cursor']),
  )
  expect(list.find((parameter: Node) => parameter.name === 'metadata').style).toBe('deepObject')
  expect(document.paths['/v1/tasks/{id}'].get.parameters.find((parameter: Node) => parameter.name === 'wait').schema).toMatchObject({
    type: 'integer',
  })
  expect(Object.keys(document.paths['/v1/endpoints/{id}'].patch.requestBody.content)).toContain('application/merge-patch+json')
})

test('Webhooks and callbacks share the components of the API', () => {
  expect(Object.keys(document.webhooks).sort()).toEqual([...taskEventTypes].sort())
  const event = { $ref: '#/components/schemas/TaskEvent' }
  for (const item of Object.values<Node>(document.webhooks)) expect(item.post.requestBody.content['application/json'].schema).toEqual(event)
  const callback = document.paths['/v1/tasks'].post.callbacks.onTaskEvent['{$request.body#/callback/url}'].post
  expect(callback.requestBody.content['application/json'].schema).toEqual(event)
  expect(callback.parameters.map((parameter: Node) => parameter.name)).toContain('webhook-jws')
})

test('Every code a route may refuse with is one of the closed list, and those of this API are all named', () => {
  const named = new Set(routesOf(kit.options).flatMap((route) => Object.values(refusals(route)).flat()))
  for (const code of named) expect(Object.keys(statuses)).toContain(code)
  const elsewhere = ['method_not_allowed', 'lease_lost', 'challenge_mismatch']
  expect(Object.keys(statuses).filter((code) => !named.has(code as never) && !elsewhere.includes(code))).toEqual([])
})

/** What a node serves for people and for tools: the API reference as a page, and the JSON Schemas of events. */
import Ajv2020 from 'ajv/dist/2020.js'
import addFormats from 'ajv-formats'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { endpointEventTypes, taskEventTypes } from '../../../src/core/model.ts'
import { openPlatform } from '../../support/platform.ts'
import { openReceiver } from '../../support/receiver.ts'
import { type Kit, openKit, PUBLIC_URL } from '../kit.ts'

let kit: Kit
beforeAll(async () => {
  kit = await openKit()
})
afterAll(() => kit.close())

describe('The API reference', () => {
  test('is a page that runs no script and loads no style but those of the node, and leaves no cookie', async () => {
    const { status, headers, text } = await kit.stranger.call('GET', '/docs')
    expect(status).toBe(200)
    expect(headers.get('content-type')).toBe('text/html; charset=utf-8')
    expect(headers.get('set-cookie')).toBeNull()
    expect(headers.get('x-content-type-options')).toBe('nosniff')
    const policy = headers.get('content-security-policy')!
    expect(policy).toContain("default-src 'none'; script-src 'self'; style-src 'self'")
    expect(policy).toContain("frame-ancestors 'none'")
    expect(policy).not.toContain('unsafe')
    expect(policy).not.toMatch(/https?:/)
    // Everything it names is relative, and nothing stands inline.
    const named = [...text.matchAll(/(?:src|href)="([^"]+)"/g)].map(([, url]) => url!)
    expect(named).toEqual(['data:,', 'docs/swagger-ui.css', 'openapi.json', 'docs/swagger-ui-bundle.js', 'docs/start.js'])
    expect(text).not.toMatch(/<style|style=|<script>|\son\w+=/)
    for (const file of named.filter((url) => url.startsWith('docs/'))) {
      const answer = await kit.stranger.call('GET', `/${file}`)
      expect([file, answer.status, answer.headers.get('content-type')]).toEqual([
        file,
        200,
        file.endsWith('.css') ? 'text/css; charset=utf-8' : 'text/javascript; charset=utf-8',
      ])
      expect(answer.text.length).toBeGreaterThan(50)
    }
  })

  test('serves its own files and no other', async () => {
    for (const file of ['package.json', '..%2f..%2fpackage.json', 'swagger-ui.js', '%2e%2e', 'constructor', '__proto__'])
      expect([file, (await kit.stranger.call('GET', `/docs/${file}`)).status]).toEqual([file, 404])
  })
})

describe('The JSON Schema of an event type', () => {
  const schemaOf = async (type: string) => (await kit.stranger.call('GET', `/schemas/v1/events/${type}`)).json
  const judgeOf = (schema: object) => {
    const ajv = new Ajv2020.default({ strict: true, strictTypes: false, strictRequired: false, allErrors: true, keywords: ['example'] })
    addFormats.default(ajv)
    return ajv.compile(schema)
  }

  test('is there for every type, stands by itself, and takes the example of the document', async () => {
    const { components } = (await kit.stranger.call('GET', '/openapi.json')).json
    for (const type of [...taskEventTypes, ...endpointEventTypes]) {
      const schema = await schemaOf(type)
      expect(schema).toMatchObject({
        $schema: 'https://json-schema.org/draft/2020-12/schema',
        $id: `${PUBLIC_URL}/schemas/v1/events/${type}`,
        title: type,
      })
      const judge = judgeOf(schema)
      const { value } = components.examples[type]
      expect([type, judge(value), judge.errors]).toEqual([type, true, null])
      expect(judge({ ...value, type: 'task.other' })).toBe(false)
      expect(judge({ ...value, data: undefined })).toBe(false)
    }
    expect((await kit.stranger.call('GET', '/schemas/v1/events/task.other')).json.code).toBe('not_found')
  })

  test('takes what webhooks really carry, and what the feed lists', async () => {
    const receiver = await openReceiver()
    try {
      const platform = await openPlatform()
      const { id } = await platform.call('POST', '/v1/endpoints', {
        url: `${receiver.url}/hooks`,
        events: ['task.created', 'task.started', 'task.completed', 'task.failed', 'task.canceled'],
      })
      const thin = await platform.call('POST', '/v1/endpoints', { url: `${receiver.url}/thin`, payload: 'thin' })
      expect(thin.payload).toBe('thin')
      await platform.call('POST', '/v1/tasks', { type: 'echo', input: { a: [1.5, null, 'ü'] }, metadata: { order: 'A-17' } })
      const { id: later } = await platform.call('POST', '/v1/tasks', { type: 'echo', input: 1, delaySeconds: 3_600 })
      await platform.call('POST', `/v1/tasks/${later}/cancel`)
      await platform.call('POST', '/v1/tasks', {
        type: 'echo',
        input: 1,
        delaySeconds: 60,
        startBy: new Date(platform.clock.wall() + 90_000),
      })
      await platform.call('POST', `/v1/endpoints/${id}/ping`)
      await platform.until(() => ['task.completed', 'task.canceled', 'endpoint.ping'].every((type) => types().has(type)))
      function types(): Set<string> {
        return new Set(receiver.arrivals.map(({ event }) => event.type))
      }
      const feed = await platform.call('GET', '/v1/events')
      const sent = [...receiver.arrivals.map(({ event }) => event), ...feed.data]
      expect(types()).toEqual(new Set(['task.created', 'task.started', 'task.completed', 'task.canceled', 'endpoint.ping']))
      for (const event of sent) {
        const judge = judgeOf(await schemaOf(event.type))
        expect([event, judge(event), judge.errors]).toEqual([event, true, null])
      }
    } finally {
      await receiver.close()
    }
  })
})

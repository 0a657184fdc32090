/** What a served route reports. */
import { expect, test } from 'vitest'
import { createEventSink, type EventFacts } from '../../../src/observe/events.ts'
import { openKit, REPORT } from '../kit.ts'

test('Every request that a route serves is an event, with the pattern of the route and the status', async () => {
  const events = createEventSink()
  const served: EventFacts['http.served'][] = []
  events.on('http.served', (facts) => served.push(facts))
  const kit = await openKit({ events })
  const client = await kit.newClient()
  served.length = 0

  const { json } = await client.call('POST', '/v1/tasks', REPORT)
  await client.call('GET', `/v1/tasks/${json.id}`)
  await client.call('HEAD', `/v1/tasks/${json.id}`)
  await client.call('GET', '/v1/tasks/task_x')
  await kit.stranger.call('GET', '/v1/tasks')
  await kit.stranger.call('PUT', '/v1/tasks')
  await kit.stranger.call('GET', '/no/route')
  await kit.close()

  expect(served).toEqual([
    { method: 'POST', route: '/v1/tasks', status: 202, durationMs: expect.any(Number) },
    { method: 'GET', route: '/v1/tasks/{id}', status: 200, durationMs: expect.any(Number) },
    { method: 'HEAD', route: '/v1/tasks/{id}', status: 200, durationMs: expect.any(Number) },
    { method: 'GET', route: '/v1/tasks/{id}', status: 404, durationMs: expect.any(Number) },
    { method: 'GET', route: '/v1/tasks', status: 401, durationMs: expect.any(Number) },
  ])
  for (const { durationMs } of served) expect(durationMs).toBeGreaterThanOrEqual(0)
})

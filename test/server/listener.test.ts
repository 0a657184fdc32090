import { once } from 'node:events'
import { createServer, type Server } from 'node:http'
import { type AddressInfo, connect, type Socket } from 'node:net'
import { serve } from '@hono/node-server'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { createApp } from '../../src/http/app.ts'
import { createWatchers } from '../../src/http/live/waits.ts'
import { limitConnections } from '../../src/server/connections.ts'
import { type HttpListener, openListener } from '../../src/server/listener.ts'
import { type Client, type Kit, openKit, REPORT } from '../http/kit.ts'

/** Over real sockets: what the server does with bodies, lengths and callers that leave. */
let kit: Kit
let client: Client
let server: Server
let base: string
let port: number
beforeAll(async () => {
  kit = await openKit({ bodyLimitBytes: 10_000 })
  client = await kit.newClient()
  server = serve({ fetch: kit.app.fetch, port: 0, hostname: '127.0.0.1' }) as Server
  await once(server, 'listening')
  port = (server.address() as AddressInfo).port
  base = `http://127.0.0.1:${port}`
})
afterAll(async () => {
  server.closeAllConnections()
  server.close()
  await kit.close()
})

const auth = () => ({ authorization: `Bearer ${client.key}`, 'content-type': 'application/json' })
const post = (body: string | Uint8Array<ArrayBuffer> | ReadableStream, headers: Record<string, string> = {}): Promise<Response> =>
  fetch(`${base}/v1/tasks`, { method: 'POST', headers: { ...auth(), ...headers }, body, duplex: 'half' } as RequestInit)

const stream = (...chunks: readonly (string | Uint8Array)[]): ReadableStream =>
  ReadableStream.from(chunks.map((chunk) => Buffer.from(chunk)))

/** Sends raw bytes and answers what came back until the server was done. */
async function raw(text: string, at = port): Promise<string> {
  const socket = connect(at, '127.0.0.1')
  socket.write(text)
  let answer = ''
  for await (const chunk of socket) {
    answer += chunk
    if (/\r\n\r\n.*\}$/s.test(answer)) break
  }
  socket.destroy()
  return answer
}

test('A task goes in and comes back over a socket, with exactly one of each header', async () => {
  const response = await post(JSON.stringify(REPORT), { 'x-request-id': 'abc' })
  expect(response.status).toBe(202)
  expect(Number(response.headers.get('content-length'))).toBe(Buffer.byteLength(await response.clone().text()))
  expect(response.headers.get('x-request-id')).toBe('abc')
  const { id } = (await response.json()) as { id: string }
  const again = await fetch(`${base}/v1/tasks/${id}`, { headers: { ...auth(), 'if-none-match': 'W/"1"' } })
  expect([again.status, again.headers.get('etag'), await again.text()]).toEqual([304, 'W/"1"', ''])
  const head = await fetch(`${base}/v1/tasks/${id}`, { method: 'HEAD', headers: auth() })
  expect([head.status, head.headers.get('content-type')]).toEqual([200, 'application/json'])
})

test('No answer names the server, lets its type be guessed, or may be framed', async () => {
  const missing = await fetch(`${base}/nothing`)
  const listed = await fetch(`${base}/v1/tasks`, { headers: auth() })
  for (const { headers } of [missing, listed]) {
    expect(Object.fromEntries(headers)).toMatchObject({
      'x-content-type-options': 'nosniff',
      'referrer-policy': 'no-referrer',
      'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
    })
    expect([headers.get('server'), headers.get('x-powered-by')]).toEqual([null, null])
  }
  expect([missing.headers.get('cache-control'), listed.headers.get('cache-control')]).toEqual(['no-store', 'private, no-cache'])
})

test('A body in chunks is read whole, and refused as soon as it is over the limit', async () => {
  expect((await post(stream('{"type":"report.build",', '"input":{"month":', '"é🎉"}}'))).status).toBe(202)
  expect((await post(stream('{"type":"anything","input":"', 'x'.repeat(20_000), '"}'))).status).toBe(413)
  expect((await post(stream('{"type":"anything","input":"', new Uint8Array([0xff]), '"}'))).status).toBe(400)
})

test('A declared length over the limit is refused before the body is sent', async () => {
  const answer = await raw(
    `POST /v1/tasks HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${client.key}\r\nContent-Type: application/json\r\nContent-Length: 99999999\r\n\r\n`,
  )
  expect(answer).toMatch(/^HTTP\/1\.1 413 /)
  expect(answer).toContain('payload_too_large')
})

test('A body that is not UTF-8 is refused with a declared length too', async () => {
  const bytes = Buffer.concat([Buffer.from('{"type":"anything","input":"'), Buffer.from([0xe2, 0x82]), Buffer.from('"}')])
  expect((await post(new Uint8Array(bytes))).status).toBe(400)
  expect((await post('{"type":"anything","input":"\ufffd"}')).status).toBe(202)
})

test('An action takes no body, with and without a length', async () => {
  const { id } = (await (await post(JSON.stringify({ ...REPORT, delaySeconds: 60 }))).json()) as { id: string }
  for (const length of ['', 'Content-Length: 0\r\n']) {
    const answer = await raw(`POST /v1/tasks/${id}/cancel HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${client.key}\r\n${length}\r\n`)
    expect(answer).toMatch(/^HTTP\/1\.1 200 /)
  }
  const endpoint = await client.call('POST', '/v1/endpoints', { url: 'https://app.example.net/raw' })
  const answer = await raw(
    `POST /v1/endpoints/${endpoint.json.id}/rotate-secret HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${client.key}\r\n\r\n`,
  )
  expect(answer).toMatch(/^HTTP\/1\.1 200 /)
})

test('Two Idempotency-Key headers are malformed, not one of the two', async () => {
  const body = JSON.stringify(REPORT)
  const answer = await raw(
    `POST /v1/tasks HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${client.key}\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n` +
      `Idempotency-Key: a\r\nIdempotency-Key: b\r\n\r\n${body}`,
  )
  expect(answer).toMatch(/^HTTP\/1\.1 400 /)
})

test('A caller that hangs up while it waits is let go', async () => {
  const { id } = (await (await post(JSON.stringify({ ...REPORT, delaySeconds: 60 }))).json()) as { id: string }
  const waited = Promise.withResolvers<void>()
  const findMany = (ids: readonly string[]) => {
    waited.resolve()
    return kit.store.tasks.findMany(ids)
  }
  const store = { ...kit.store, tasks: { ...kit.store.tasks, findMany } }
  const waits = createWatchers({ store, clock: kit.clock })
  const ended = Promise.withResolvers<unknown>()
  const app = createApp({
    ...kit.options,
    watchers: {
      ...waits,
      waitForTask(...of) {
        const waiting = waits.waitForTask(...of)
        void waiting.then(ended.resolve)
        return waiting
      },
    },
  })
  const other = serve({ fetch: app.fetch, port: 0, hostname: '127.0.0.1' }) as Server
  await once(other, 'listening')
  const socket = connect((other.address() as AddressInfo).port, '127.0.0.1')
  socket.write(`GET /v1/tasks/${id}?wait=60 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${client.key}\r\n\r\n`)
  await waited.promise
  socket.destroy()
  expect(await ended.promise).toBeNull()
  waits.stop()
  other.closeAllConnections()
  other.close()
})

test('A path that cannot be decoded, and an unknown method, are answered like any other', async () => {
  const bad = await fetch(`${base}/v1/tasks/%ff%fe`, { headers: auth() })
  expect([bad.status, bad.headers.get('content-type')]).toEqual([404, 'application/problem+json'])
  const odd = await raw('PROPFIND /v1/tasks HTTP/1.1\r\nHost: x\r\n\r\n')
  expect(odd).toMatch(/^HTTP\/1\.1 405 /)
  expect(odd).toContain('Allow: GET, HEAD, OPTIONS, POST')
})

test('What never becomes a request is refused with a problem document too', async () => {
  const door = await openListener({ host: '127.0.0.1', port: 0, maxConnections: 100 }, kit.clock)
  door.setHandler(kit.app.fetch)
  const refusals: [string, string][] = [
    ['FOO /v1/tasks HTTP/1.1\r\nHost: x\r\n\r\n', 'method_not_allowed'],
    ['hello\r\n\r\n', 'method_not_allowed'],
    ['CONNECT a:1 HTTP/1.1\r\nHost: x\r\n\r\n', 'method_not_allowed'],
    ['GET /healthz HTTP/1.1\r\nHost: a\r\nhost: b\r\nConnection: close\r\n\r\n', 'malformed_header'],
    [`GET /healthz HTTP/1.1\r\nHost: x\r\nX-Long: ${'a'.repeat(20_000)}\r\n\r\n`, 'malformed_header'],
    [`GET /v1/tasks?type=${'a'.repeat(20_000)} HTTP/1.1\r\nHost: x\r\n\r\n`, 'malformed_header'],
    ['POST /v1/tasks HTTP/1.1\r\nHost: x\r\nContent-Length: ten\r\n\r\n', 'malformed_header'],
    ['GET /healthz HTTP/1.1\r\nHost: x\r\nX-Delete: a\x7fb\r\n\r\n', 'malformed_header'],
    ['GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n', 'malformed_header'],
    ['GET /healthz HTTP/1.1\r\nHost: a b\r\nConnection: close\r\n\r\n', 'malformed_header'],
    ['OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n', 'malformed_header'],
  ]
  for (const [text, code] of refusals) {
    const answer = await raw(text, door.port)
    expect([text.slice(0, 40), answer]).toEqual([text.slice(0, 40), expect.stringMatching(/content-type: application\/problem\+json\r\n/i)])
    const problem = JSON.parse(/\{.*\}/s.exec(answer)?.[0] ?? '{}')
    expect([text.slice(0, 40), problem.code, answer]).toEqual([
      text.slice(0, 40),
      code,
      expect.stringContaining(`HTTP/1.1 ${problem.status} `),
    ])
    expect(answer.toLowerCase()).toContain(`x-request-id: ${problem.requestId.toLowerCase()}\r\n`)
    expect(answer).toMatch(/x-content-type-options: nosniff\r\n/i)
    expect(answer).toMatch(/content-security-policy: default-src 'none'; frame-ancestors 'none'\r\n/i)
    expect(answer).not.toMatch(/\r\n(server|x-powered-by): /i)
  }
  expect(await raw('GET /healthz HTTP/1.1\r\nHost: x\r\nExpect: wonders\r\n\r\n', door.port)).toMatch(/^HTTP\/1\.1 200 /)
  door.closeNow()
})

test('A health check that speaks HTTP/1.0 and names no host is answered', async () => {
  const door = await openListener({ host: '127.0.0.1', port: 0, maxConnections: 100 }, kit.clock)
  door.setHandler(kit.app.fetch)
  expect(await raw('GET /healthz HTTP/1.0\r\n\r\n', door.port)).toMatch(/^HTTP\/1\.1 200 /)
  door.closeNow()
})

test('Of answers that nobody reads only so much is kept: who has left one unread for longest is cut, of the same address first', async () => {
  const served: Socket[] = []
  const large = createServer((_request, response) => void response.end(Buffer.alloc(8_000_000)))
  limitConnections(large, 100, (socket) => socket.destroy(), 20_000_000)
  large.on('connection', (socket) => void served.push(socket))
  large.listen(0, '127.0.0.1')
  await once(large, 'listening')
  const readers: Socket[] = []
  for (const localAddress of ['127.0.0.1', '127.0.0.2', '127.0.0.2', '127.0.0.3']) {
    const reader = connect({ port: (large.address() as AddressInfo).port, host: '127.0.0.1', localAddress })
    readers.push(reader)
    reader.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n')
    await once(reader, 'readable')
  }
  expect(served.map((socket) => socket.destroyed)).toEqual([true, true, false, false])
  for (const reader of readers) reader.destroy()
  large.closeAllConnections()
  large.close()
})

describe('a door that lets in five', () => {
  let door: HttpListener
  const open: Socket[] = []
  const opened = async (text = '', localAddress = '127.0.0.1'): Promise<Socket> => {
    const socket = connect({ port: door.port, host: '127.0.0.1', localAddress })
    open.push(socket)
    await once(socket, 'connect')
    if (text !== '') socket.write(text)
    return socket
  }
  const health = async () =>
    JSON.parse(/\{.*\}/s.exec(await raw('GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n', door.port))![0])
  /** What a connection has been sent until it ended. */
  const allOf = async (socket: Socket): Promise<string> => {
    let text = ''
    for await (const chunk of socket) text += chunk
    return text
  }
  const ask = (path: string) => `GET ${path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${client.key}\r\n\r\n`
  beforeEach(async () => {
    door = await openListener({ host: '127.0.0.1', port: 0, maxConnections: 5 }, kit.clock)
    door.setHandler(kit.app.fetch)
  })
  afterEach(() => {
    for (const socket of open.splice(0)) socket.destroy()
    door.closeNow()
  })

  test('serves new connections while others are silent, or send their headers or bodies byte by byte', async () => {
    const slow = `POST /v1/tasks HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${client.key}\r\nContent-Type: application/json\r\n`
    const idlers: Socket[] = []
    for (const text of [
      '',
      'GET /v1/ta',
      slow,
      `${slow}Content-Length: 50\r\n\r\n{`,
      `${slow}Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n`,
    ])
      idlers.push(await opened(text))
    const ends = idlers.map((socket) => once(socket, 'close'))
    for (let i = 0; i < 30; i++) expect(await health()).toEqual({ status: 'ok' })
    await ends[0]
    for (let i = 0; i < 5; i++) await opened()
    await Promise.all(ends)
  })

  test('serves new connections while others do not read their large responses', async () => {
    const { json } = await client.call('POST', '/v1/tasks', { type: 'anything', input: 1 })
    // More than the buffers of the system take.
    await kit.finish(json.id, 'x'.repeat(8_000_000))
    for (let i = 0; i < 5; i++) await once(await opened(ask(`/v1/tasks/${json.id}/result`)), 'readable')
    for (let i = 0; i < 10; i++) expect(await health()).toEqual({ status: 'ok' })
  })

  test('cuts the one that has idled for longest, never one that is being answered', async () => {
    const { json } = await client.call('POST', '/v1/tasks', { ...REPORT, delaySeconds: 600 })
    const waiting = await opened(ask(`/v1/tasks/${json.id}?wait=60`))
    const kept = await opened(ask('/healthz'))
    await once(kept, 'data')
    const silent = [await opened(), await opened(), await opened()]
    kept.write(ask('/healthz'))
    await once(kept, 'data')
    const first = once(silent[0]!, 'close')
    expect(await health()).toEqual({ status: 'ok' })
    await first
    for (let i = 0; i < 20; i++) await opened()
    await client.call('POST', `/v1/tasks/${json.id}/cancel`)
    const [answer] = await once(waiting, 'data')
    expect(String(answer)).toMatch(/^HTTP\/1\.1 200 /)
  })

  test('lets a flood from one address displace its own connections', async () => {
    const kept = await opened(ask('/healthz'))
    await once(kept, 'data')
    for (let i = 0; i < 40; i++) await opened('', '127.0.0.2')
    const ended = once(kept, 'close').then(() => 'cut')
    kept.write(ask('/healthz'))
    expect(await Promise.race([ended, once(kept, 'data').then(([chunk]) => String(chunk).slice(0, 12))])).toBe('HTTP/1.1 200')
  })

  test('refuses a new connection with 503 when all connections are being answered', async () => {
    const { json } = await client.call('POST', '/v1/tasks', { ...REPORT, delaySeconds: 600 })
    let begun = 0
    const all = Promise.withResolvers<void>()
    door.setHandler((request, bindings) => {
      if (++begun === 5) all.resolve()
      return kit.app.fetch(request, bindings)
    })
    const waiting: Socket[] = []
    for (let i = 0; i < 5; i++) waiting.push(await opened(ask(`/v1/tasks/${json.id}?wait=60`)))
    await all.promise
    const refused = await allOf(await opened())
    expect(refused).toMatch(/^HTTP\/1\.1 503 Service Unavailable\r\n/)
    expect(refused).toMatch(/retry-after: 1\r\n/i)
    expect(JSON.parse(/\{.*\}/s.exec(refused)![0])).toMatchObject({ code: 'temporary_reduced_capacity' })
    await client.call('POST', `/v1/tasks/${json.id}/cancel`)
    for (const socket of waiting) expect(String((await once(socket, 'data'))[0])).toMatch(/^HTTP\/1\.1 200 /)
    expect(await health()).toEqual({ status: 'ok' })
  })

  test('takes requests that are sent ahead for one that is being answered until the last is', async () => {
    const { json } = await client.call('POST', '/v1/tasks', { ...REPORT, delaySeconds: 600 })
    const ahead = await opened(ask('/healthz') + ask(`/v1/tasks/${json.id}?wait=60`))
    await once(ahead, 'data')
    for (let i = 0; i < 20; i++) await opened()
    await client.call('POST', `/v1/tasks/${json.id}/cancel`)
    expect(String((await once(ahead, 'data'))[0])).toMatch(/"status":"canceled"/)
  })
})

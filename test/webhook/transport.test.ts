import { createPrivateKey } from 'node:crypto'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createServer as createTlsServer, type TLSSocket } from 'node:tls'
import { gzipSync } from 'node:zlib'
import { describe, expect, onTestFinished, test } from 'vitest'
import { systemClock } from '../../src/core/clock.ts'
import { createEventSink, type EventFacts } from '../../src/observe/events.ts'
import { type AddressRulesInput, type Listener, parseAddressRules } from '../../src/webhook/address.ts'
import type { SendResult } from '../../src/webhook/attempt.ts'
import { type Resolver, systemResolver } from '../../src/webhook/resolver.ts'
import { createTransport, type Transport, type TransportOptions } from '../../src/webhook/transport.ts'
import { eventsWith } from '../support/events.ts'

/** What arrived at a receiver. */
interface Arrived {
  readonly line: string
  readonly headers: Readonly<Record<string, string>>
  readonly body: string
}

interface Receiver {
  readonly port: number
  /** One for every connection made. */
  readonly connections: Socket[]
  readonly requests: Arrived[]
}

interface Listening {
  readonly host?: string
  readonly server?: Server
  readonly event?: 'connection' | 'secureConnection'
}

/** A receiver of raw bytes: `answer` writes whatever it likes when a whole request has arrived. */
async function receive(
  answer: (socket: Socket, arrived: Arrived) => void,
  { host = '127.0.0.1', server = createServer(), event = 'connection' }: Listening = {},
): Promise<Receiver> {
  const connections: Socket[] = []
  const requests: Arrived[] = []
  server.on(event, (socket: Socket) => {
    connections.push(socket)
    socket.on('error', () => {})
    let text = ''
    socket.setEncoding('latin1').on('data', (chunk: string) => {
      text += chunk
      const end = text.indexOf('\r\n\r\n')
      if (end < 0) return
      const [line = '', ...fields] = text.slice(0, end).split('\r\n')
      const headers = Object.fromEntries(
        fields.map((field) => [field.slice(0, field.indexOf(':')).toLowerCase(), field.slice(field.indexOf(':') + 2)]),
      )
      const length = Number(headers['content-length'] ?? 0)
      if (text.length < end + 4 + length) return
      const arrived = { line, headers, body: Buffer.from(text.slice(end + 4, end + 4 + length), 'latin1').toString('utf8') }
      text = text.slice(end + 4 + length)
      requests.push(arrived)
      answer(socket, arrived)
    })
  })
  server.on('tlsClientError', () => {})
  server.listen(0, host)
  await once(server, 'listening')
  onTestFinished(() => {
    for (const socket of connections) socket.destroy()
    server.close()
  })
  return { port: (server.address() as AddressInfo).port, connections, requests }
}

const ok = (socket: Socket): void => {
  socket.write('HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nok')
}
const silent = (): void => {}

/** Writes `chunk` as fast as it is taken, until the other side has had enough. */
function pour(socket: Socket, chunk: string | Buffer): void {
  if (socket.destroyed) return
  while (socket.write(chunk)) if (socket.destroyed) return
  socket.once('drain', () => pour(socket, chunk))
}

type Names = Readonly<Record<string, readonly string[]>>
const naming = (names: Names): Resolver => ({ resolve: async (name) => names[name] ?? [] })

interface Trial extends Partial<Omit<TransportOptions, 'rules'>> {
  readonly rules?: AddressRulesInput
}
function transportOf({ rules, ...rest }: Trial = {}): Transport {
  const transport = createTransport({
    clock: systemClock(),
    events: createEventSink(),
    rules: parseAddressRules({ allowHttp: true, allowLoopback: true, ...rules }),
    ...rest,
  })
  onTestFinished(() => transport.close())
  return transport
}

const call = (url: string, headers: Readonly<Record<string, string>> = {}) => ({
  url,
  headers: { 'content-type': 'application/json', ...headers },
  body: '{"type":"task.completed","note":"żółw 🐢"}',
})
/** A timer may fire a millisecond early, and times are whole ones. */
const EARLY_MS = 3
/** On a busy machine; without the limit that is set it would be the usual ones, or no end at all. */
const LATE_MS = 4_500
const failed = (sent: SendResult) => ({ outcome: sent.outcome, httpStatus: sent.httpStatus })

describe('an ordinary receiver', () => {
  test.each(['in one piece with the answer', 'before the answer'])('may send an unexpected 100, %s, on each request', async (how) => {
    const interim = 'HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n'
    const answer = 'HTTP/1.1 200 OK\r\ncontent-length: 24\r\n\r\nHTTP/1.1 100 Continue\r\n\n'
    const receiver = await receive((socket) => {
      if (how !== 'before the answer') socket.write(interim + answer)
      else socket.write(interim, () => setImmediate(() => socket.write(answer)))
    })
    const transport = transportOf()
    for (let i = 0; i < 2; i++) {
      const sent = await transport.send(call(`http://127.0.0.1:${receiver.port}/`))
      expect(sent).toMatchObject({ outcome: 'success', httpStatus: 200, responseExcerpt: 'HTTP/1.1 100 Continue\r\n\n' })
    }
    expect(receiver.connections).toHaveLength(1)
  })

  test('gets the given bytes with its own host header, and no framing headers of the caller', async () => {
    const receiver = await receive(ok)
    const hostile = {
      Host: 'evil.example',
      'Content-Length': '3',
      'Transfer-Encoding': 'chunked',
      Connection: 'close',
      'Accept-Encoding': 'gzip',
      'webhook-id': 'event_1',
    }
    const sent = await transportOf().send(call(`http://127.0.0.1:${receiver.port}/hooks?a=1`, hostile))
    expect(sent).toMatchObject({ outcome: 'success', httpStatus: 200, error: null, responseExcerpt: 'ok', remoteAddress: '127.0.0.1' })
    expect(sent.responseHeaders).toEqual({ 'content-type': 'text/plain', 'content-length': '2' })
    const [arrived] = receiver.requests
    expect(arrived?.line).toBe('POST /hooks?a=1 HTTP/1.1')
    expect(arrived?.body).toBe(call('').body)
    expect(arrived?.headers).toEqual({
      host: `127.0.0.1:${receiver.port}`,
      connection: 'keep-alive',
      'accept-encoding': 'identity',
      'content-type': 'application/json',
      'webhook-id': 'event_1',
      'content-length': String(Buffer.byteLength(call('').body)),
    })
  })

  test('is reached over one kept connection, and connect phases are timed only on the first attempt', async () => {
    const receiver = await receive(ok)
    const transport = transportOf({ resolver: naming({ 'hooks.example.test': ['127.0.0.1'] }) })
    const sent: SendResult[] = []
    for (let i = 0; i < 4; i++) sent.push(await transport.send(call(`http://hooks.example.test:${receiver.port}/`)))
    expect(receiver.connections).toHaveLength(1)
    expect(receiver.requests).toHaveLength(4)
    expect(sent[0]?.timings).toEqual({
      dnsMs: expect.any(Number),
      connectMs: expect.any(Number),
      tlsMs: null,
      firstByteMs: expect.any(Number),
    })
    expect(sent[3]?.timings).toEqual({ dnsMs: null, connectMs: null, tlsMs: null, firstByteMs: expect.any(Number) })
    expect(sent.map(({ remoteAddress }) => remoteAddress)).toEqual(Array(4).fill('127.0.0.1'))
  })

  test('is reported with one event per request, which says whether a kept connection carried it', async () => {
    const receiver = await receive((socket, { line }) => {
      ok(socket)
      if (line.includes('/last')) socket.end()
    })
    const facts: EventFacts['webhook.sent'][] = []
    const transport = transportOf({ events: eventsWith({ 'webhook.sent': (sent) => facts.push(sent) }) })
    const url = (path: string): string => `http://127.0.0.1:${receiver.port}${path}`
    const results = [await transport.send(call(url('/'))), await transport.send(call(url('/last')))]
    await gone(receiver.connections[0]!)
    results.push(await transport.send(call(url('/'))))
    expect(facts).toEqual(results.map(({ outcome, httpStatus, durationMs }, i) => ({ outcome, httpStatus, durationMs, reused: i === 1 })))
    expect(facts.map(({ outcome }) => outcome)).toEqual(['success', 'success', 'success'])
    // A URL that the rules forbid causes no request.
    expect((await transport.send(call('ftp://127.0.0.1/'))).outcome).toBe('blocked')
    expect(facts).toHaveLength(3)
  })

  test('that closed an idle connection is reached over a new one', async () => {
    const receiver = await receive((socket) => {
      ok(socket)
      if (receiver.requests.length === 1) socket.end()
    })
    const transport = transportOf()
    expect((await transport.send(call(`http://127.0.0.1:${receiver.port}/`))).outcome).toBe('success')
    await gone(receiver.connections[0]!)
    const second = await transport.send(call(`http://127.0.0.1:${receiver.port}/`))
    expect(second).toMatchObject({ outcome: 'success', timings: { connectMs: expect.any(Number) } })
    expect(receiver.connections).toHaveLength(2)
  })

  test('that answers "connection: close" gets a new connection each time', async () => {
    const receiver = await receive((socket) => socket.end('HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nbye'))
    const transport = transportOf()
    const sent = [
      await transport.send(call(`http://127.0.0.1:${receiver.port}/`)),
      await transport.send(call(`http://127.0.0.1:${receiver.port}/`)),
    ]
    expect(sent.map(({ outcome, responseExcerpt }) => [outcome, responseExcerpt])).toEqual(Array(2).fill(['success', 'bye']))
    expect(receiver.connections).toHaveLength(2)
  })

  test('answers many attempts at once, each with its own answer', async () => {
    const receiver = await receive((socket, { line }) => {
      const path = line.split(' ')[1]!
      socket.write(`HTTP/1.1 ${path.endsWith('7') ? 503 : 200} x\r\ncontent-length: ${path.length}\r\n\r\n${path}`)
    })
    const transport = transportOf()
    const paths = Array.from({ length: 200 }, (_, i) => `/hooks/${i}`)
    const sent = await Promise.all(paths.map((path) => transport.send(call(`http://127.0.0.1:${receiver.port}${path}`))))
    expect(sent.map(({ responseExcerpt }) => responseExcerpt)).toEqual(paths)
    expect(sent.map(({ outcome }) => outcome)).toEqual(paths.map((path) => (path.endsWith('7') ? 'http_error' : 'success')))
    expect(receiver.connections.length).toBeLessThanOrEqual(200)
  })

  test.each([
    [204, 'success', null],
    [299, 'success', null],
    [304, 'redirect', 'The endpoint answered 304, and redirects are not followed.'],
    [410, 'http_error', 'The endpoint answered 410.'],
    [500, 'http_error', 'The endpoint answered 500.'],
  ])('that answers %i makes the attempt a %s', async (status, outcome, error) => {
    const receiver = await receive((socket) => socket.write(`HTTP/1.1 ${status} x\r\ncontent-length: 0\r\nretry-after: 7\r\n\r\n`))
    const sent = await transportOf().send(call(`http://127.0.0.1:${receiver.port}/`))
    expect(sent).toMatchObject({ outcome, httpStatus: status, error, responseExcerpt: null, responseHeaders: { 'retry-after': '7' } })
  })

  test('may send interim responses before the final one', async () => {
    const receiver = await receive((socket) => {
      socket.write('HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n')
      ok(socket)
    })
    expect(await transportOf().send(call(`http://127.0.0.1:${receiver.port}/`))).toMatchObject({
      outcome: 'success',
      httpStatus: 200,
      responseExcerpt: 'ok',
    })
  })
})

describe('an address that may not be called', () => {
  test('behind a name that was public before is refused: names are resolved at every connect', async () => {
    const receiver = await receive((socket) => socket.end('HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n'), {
      host: '0.0.0.0',
    })
    const answers = [['127.0.0.2'], ['127.0.0.1']]
    const transport = transportOf({
      rules: { allowLoopback: false, allow: ['127.0.0.2/32'] },
      resolver: { resolve: async () => answers.shift() ?? [] },
    })
    const url = `http://rebinding.example.test:${receiver.port}/`
    expect((await transport.send(call(url))).outcome).toBe('success')
    const second = await transport.send(call(url))
    expect(second).toMatchObject({ outcome: 'blocked', httpStatus: null, remoteAddress: null })
    expect(second.error).toBe('The callback URL, or an address of its host, may not be called from here.')
    expect(receiver.connections).toHaveLength(1)
  })

  test.each([
    [['127.0.0.2', '127.0.0.1']],
    [['127.0.0.1', '127.0.0.2']],
    [['127.0.0.2', '::ffff:127.0.0.1']],
    [['127.0.0.2', 'fe80::1']],
    [['127.0.0.2', '64:ff9b::7f00:1']],
    [['127.0.0.2', '64:ff9b::a9fe:a9fe']],
    [['127.0.0.2', '2002:7f00:1::1']],
    [['127.0.0.2', 'not an address']],
  ])('among others refuses them all: %j', async (addresses) => {
    const receiver = await receive(ok, { host: '0.0.0.0' })
    const transport = transportOf({
      rules: { allowLoopback: false, allow: ['127.0.0.2/32'] },
      resolver: naming({ 'mixed.example.test': addresses }),
    })
    expect((await transport.send(call(`http://mixed.example.test:${receiver.port}/`))).outcome).toBe('blocked')
    expect(receiver.connections).toHaveLength(0)
  })

  test.each([
    '127.0.0.1',
    '0',
    '127.1',
    '0x7f000001',
    '2130706433',
    '0177.0.0.1',
    '[::ffff:127.0.0.1]',
    '[::ffff:7f00:1]',
    '127.0.0.1.',
    '１２７.０.０.１',
    'localhost',
    'localhost.',
    'a.localhost',
    '[::1]',
    '[64:ff9b::7f00:1]',
  ])('is refused in any spelling: %s', async (host) => {
    const receiver = await receive(ok, { host: '::' })
    const sent = await transportOf({ rules: { allowLoopback: false } }).send(call(`http://${host}:${receiver.port}/`))
    expect(sent).toMatchObject({ outcome: 'blocked', httpStatus: null, remoteAddress: null })
    expect(receiver.connections).toHaveLength(0)
  })

  test('is not called when a redirect names it', async () => {
    const inner = await receive(ok)
    const outer = await receive(
      (socket) => socket.write(`HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:${inner.port}/\r\ncontent-length: 0\r\n\r\n`),
      { host: '0.0.0.0' },
    )
    const transport = transportOf({ rules: { allowLoopback: false, allow: ['127.0.0.2/32'] } })
    expect(await transport.send(call(`http://127.0.0.2:${outer.port}/`))).toMatchObject({ outcome: 'redirect', httpStatus: 302 })
    expect([outer.connections.length, inner.connections.length]).toEqual([1, 0])
  })

  test.runIf(process.platform === 'linux')('is found out on the connected socket too, before a byte is sent', async () => {
    // Linux takes 0.0.0.0 for the loopback: what is dialled is allowed here, what answers is not.
    const receiver = await receive(ok, { host: '0.0.0.0' })
    const sent = await transportOf({ rules: { allowLoopback: false, allow: ['0.0.0.0/32'] } }).send(
      call(`http://0.0.0.0:${receiver.port}/`),
    )
    expect(sent).toMatchObject({ outcome: 'blocked', remoteAddress: null })
    expect(receiver.requests).toHaveLength(0)
  })

  test("is one of the server's own listeners, as soon as it is opened", async () => {
    const closing = await receive((socket) => socket.end('HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n'))
    const keeping = await receive(ok)
    const listeners: Listener[] = []
    const transport = transportOf({ rules: { listeners }, resolver: naming({ 'self.example.test': ['127.0.0.1'] }) })
    const urls = [`http://self.example.test:${closing.port}/`, `http://127.0.0.1:${keeping.port}/`]
    for (const url of urls) expect((await transport.send(call(url))).outcome).toBe('success')
    listeners.push({ address: '127.0.0.1', port: closing.port }, { address: '0.0.0.0', port: keeping.port })
    for (const url of urls) expect((await transport.send(call(url))).outcome).toBe('blocked')
    expect([closing.requests.length, keeping.requests.length]).toEqual([1, 1])
  })

  test('is not reached through a proxy of the environment', async () => {
    const proxy = await receive(ok)
    const receiver = await receive(ok)
    const names = ['HTTP_PROXY', 'http_proxy', 'HTTPS_PROXY', 'https_proxy', 'ALL_PROXY', 'NODE_USE_ENV_PROXY']
    const before = names.map((name) => process.env[name])
    for (const name of names) process.env[name] = name === 'NODE_USE_ENV_PROXY' ? '1' : `http://127.0.0.1:${proxy.port}`
    onTestFinished(() => {
      names.forEach((name, i) => {
        if (before[i] === undefined) delete process.env[name]
        else process.env[name] = before[i]
      })
    })
    expect((await transportOf().send(call(`http://127.0.0.1:${receiver.port}/`))).outcome).toBe('success')
    expect([proxy.connections.length, receiver.connections.length]).toEqual([0, 1])
  })
})

describe('a name', () => {
  test('with unreachable addresses is reached at the one that works', async () => {
    const receiver = await receive(ok)
    const transport = transportOf({ resolver: naming({ 'six.example.test': ['::1', '127.0.0.3', '127.0.0.1'] }) })
    const sent = await transport.send(call(`http://six.example.test:${receiver.port}/`))
    expect(sent).toMatchObject({ outcome: 'success', remoteAddress: '127.0.0.1' })
    expect(receiver.requests[0]?.headers.host).toBe(`six.example.test:${receiver.port}`)
  })

  test('whose first address drops packets is still reached in time', async () => {
    const receiver = await receive(ok)
    // RFC 6666: the discard prefix.
    const transport = transportOf({
      limits: { addressMs: 400 },
      rules: { allow: ['100::/64'] },
      resolver: naming({ 'six.example.test': ['100::1', '127.0.0.1'] }),
    })
    expect(await transport.send(call(`http://six.example.test:${receiver.port}/`))).toMatchObject({
      outcome: 'success',
      remoteAddress: '127.0.0.1',
    })
  })

  test('is queried once for concurrent attempts, and again at the next connect', async () => {
    const receiver = await receive((socket) => socket.end('HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n'))
    let asked = 0
    const resolver: Resolver = {
      resolve: async () => {
        asked++
        return ['127.0.0.1']
      },
    }
    const transport = transportOf({ resolver })
    const url = `http://hooks.example.test:${receiver.port}/`
    await Promise.all(Array.from({ length: 20 }, () => transport.send(call(url))))
    expect(asked).toBe(1)
    await transport.send(call(url))
    expect(asked).toBe(2)
  })

  test.each([
    ['without an address', { resolve: async () => [] }, 'The host name has no address.'],
    [
      'nobody knows',
      { resolve: async () => Promise.reject(Object.assign(new Error('queryA ENOTFOUND 10.0.0.53'), { code: 'ENOTFOUND' })) },
      'The host name could not be resolved (ENOTFOUND).',
    ],
  ])('%s ends the attempt as dns', async (_title, resolver, error) => {
    expect(await transportOf({ resolver }).send(call('http://nowhere.example.test/'))).toMatchObject({ outcome: 'dns', error })
  })

  test('whose name server is silent ends as dns and delays no other attempt', async () => {
    const receiver = await receive(ok)
    const port = await nameServer(Object.fromEntries(Array.from({ length: 20 }, (_, i) => [`ok${i}.example.test`, '127.0.0.1'])))
    const resolver = systemResolver({ servers: [`127.0.0.1:${port}`], timeoutMs: 2_000, hostsFile: '/nonexistent' })
    const transport = transportOf({ resolver })
    const ended: string[] = []
    const hanging = transport.send(call(`http://silent.example.test:${receiver.port}/`)).finally(() => ended.push('silent'))
    for (let i = 0; i < 20; i++) {
      expect((await transport.send(call(`http://ok${i}.example.test:${receiver.port}/`))).outcome).toBe('success')
      ended.push('ok')
    }
    expect(ended).not.toContain('silent')
    expect(await hanging).toMatchObject({ outcome: 'dns', error: 'The host name could not be resolved (ETIMEOUT).' })
  })

  test('that is never answered fails at the connect timeout', async () => {
    const transport = transportOf({ limits: { connectMs: 150 }, resolver: { resolve: () => new Promise(() => {}) } })
    const sent = await transport.send(call('http://silent.example.test/'))
    expect(sent).toMatchObject({ outcome: 'dns', error: 'The name servers did not answer in time.' })
    expect(sent.durationMs).toBeLessThan(LATE_MS)
  })

  test('in the hosts file needs no name server, and a change of the file applies at once', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'hosts-'))
    onTestFinished(() => rm(folder, { recursive: true }))
    const hostsFile = join(folder, 'hosts')
    const resolver = systemResolver({ servers: ['127.0.0.1:1'], timeoutMs: 100, hostsFile })
    expect(await resolver.resolve('localhost')).toEqual(['127.0.0.1', '::1'])
    await writeFile(
      hostsFile,
      '# 10.9.9.9 gone\n10.0.0.1\tBox.example.test box # the box\r\nfd00::1 box\nnonsense box\n127.0.0.1 localhost\n',
    )
    expect(await resolver.resolve('box')).toEqual(['10.0.0.1', 'fd00::1'])
    expect(await resolver.resolve('box.example.test')).toEqual(['10.0.0.1'])
    expect(await resolver.resolve('localhost')).toEqual(['127.0.0.1'])
    expect(await resolver.resolve('app.localhost')).toEqual(['127.0.0.1', '::1'])
    await writeFile(hostsFile, '10.0.0.222 box\n')
    expect(await resolver.resolve('box')).toEqual(['10.0.0.222'])
    await expect(resolver.resolve('gone')).rejects.toThrow()
  })
})

describe('a hostile receiver', () => {
  test('that trickles header bytes is disconnected at the deadline', async () => {
    const receiver = await receive((socket) => drip(socket, 'HTTP/1.1 200 OK\r\nx: '))
    const sent = await transportOf({ limits: { headersMs: 250 } }).send(call(`http://127.0.0.1:${receiver.port}/`))
    expect(sent).toMatchObject({ outcome: 'timeout', httpStatus: null, error: 'The endpoint did not answer in time.' })
    expect(sent.durationMs).toBeGreaterThanOrEqual(250 - EARLY_MS)
    expect(sent.durationMs).toBeLessThan(LATE_MS)
  })

  test('that trickles body bytes is disconnected at the overall deadline, and a 2xx stays a success', async () => {
    const receiver = await receive((socket) => drip(socket, 'HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n'))
    const sent = await transportOf({ limits: { totalMs: 250 } }).send(call(`http://127.0.0.1:${receiver.port}/`))
    expect(sent).toMatchObject({ outcome: 'success', httpStatus: 200 })
    expect(sent.durationMs).toBeGreaterThanOrEqual(250 - EARLY_MS)
    expect(sent.durationMs).toBeLessThan(LATE_MS)
    await gone(receiver.connections[0]!)
  })

  test('that trickles body bytes after a 500 has answered 500', async () => {
    const receiver = await receive((socket) => drip(socket, 'HTTP/1.1 500 Oops\r\ncontent-length: 100000\r\n\r\n'))
    expect(failed(await transportOf({ limits: { totalMs: 150 } }).send(call(`http://127.0.0.1:${receiver.port}/`)))).toEqual({
      outcome: 'http_error',
      httpStatus: 500,
    })
  })

  test('that never answers is disconnected', async () => {
    const receiver = await receive(silent)
    const sent = await transportOf({ limits: { headersMs: 100 } }).send(call(`http://127.0.0.1:${receiver.port}/`))
    expect(failed(sent)).toEqual({ outcome: 'timeout', httpStatus: null })
    await gone(receiver.connections[0]!)
  })

  test('may get a shorter timeout and a request without a body', async () => {
    const receiver = await receive(silent)
    const asked = {
      method: 'OPTIONS',
      url: `http://127.0.0.1:${receiver.port}/`,
      headers: { 'x-a': '1' },
      body: null,
      timeoutMs: 200,
    } as const
    const sent = await transportOf().send(asked)
    expect(sent).toMatchObject({ outcome: 'timeout', httpStatus: null })
    expect(sent.durationMs).toBeGreaterThanOrEqual(200 - EARLY_MS)
    expect(sent.durationMs).toBeLessThan(LATE_MS)
    expect(receiver.requests).toMatchObject([{ line: 'OPTIONS / HTTP/1.1', headers: { 'x-a': '1' }, body: '' }])
    expect(Object.keys(receiver.requests[0]!.headers)).not.toContain('content-length')
  })

  test('that hangs on a kept connection is disconnected too, and other attempts continue', async () => {
    const receiver = await receive((socket, { line }) => {
      if (!line.includes('hang')) ok(socket)
    })
    const transport = transportOf({ limits: { headersMs: 1_000 } })
    const url = `http://127.0.0.1:${receiver.port}/`
    await transport.send(call(url))
    const hanging = transport.send(call(`${url}hang`))
    expect((await transport.send(call(url))).outcome).toBe('success')
    expect((await hanging).outcome).toBe('timeout')
    expect((await transport.send(call(url))).outcome).toBe('success')
  })

  test('that sends endless headers is disconnected', async () => {
    const receiver = await receive((socket) => {
      socket.write('HTTP/1.1 200 OK\r\n')
      pour(socket, `x-more: ${'a'.repeat(1000)}\r\n`)
    })
    const sent = await transportOf().send(call(`http://127.0.0.1:${receiver.port}/`))
    expect(sent).toMatchObject({
      outcome: 'http_error',
      httpStatus: null,
      error: 'The answer was not acceptable HTTP (UND_ERR_HEADERS_OVERFLOW).',
    })
    await gone(receiver.connections[0]!)
  })

  test('that sends an endless status line is disconnected', async () => {
    const receiver = await receive((socket) => {
      socket.write('HTTP/1.1 200 ')
      pour(socket, 'a'.repeat(65_536))
    })
    const sent = await transportOf().send(call(`http://127.0.0.1:${receiver.port}/`))
    expect(failed(sent)).toEqual({ outcome: 'http_error', httpStatus: null })
    expect(sent.durationMs).toBeLessThan(LATE_MS)
  })

  test('that sends endless interim responses is disconnected', async () => {
    for (const interim of ['103 Early Hints', '100 Continue']) {
      const receiver = await receive((socket) => pour(socket, `HTTP/1.1 ${interim}\r\n\r\n`.repeat(100)))
      const sent = await transportOf().send(call(`http://127.0.0.1:${receiver.port}/`))
      expect(sent).toMatchObject({ outcome: 'http_error', httpStatus: null, error: 'The endpoint sent too many 1xx answers.' })
      await gone(receiver.connections[0]!)
    }
  })

  test('that sends an unexpected upgrade has not sent acceptable HTTP', async () => {
    const receiver = await receive((socket) =>
      socket.write('HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n'),
    )
    const sent = await transportOf().send(call(`http://127.0.0.1:${receiver.port}/`))
    expect(failed(sent)).toEqual({ outcome: 'http_error', httpStatus: null })
    await gone(receiver.connections[0]!)
  })

  test('may send headers up to the limit and no more', async () => {
    const receiver = await receive((socket, { line }) => {
      socket.write(`HTTP/1.1 200 OK\r\ncontent-length: 0\r\nx: ${'a'.repeat(line.includes('short') ? 400 : 500)}\r\n\r\n`)
    })
    const transport = transportOf({ limits: { headerBytes: 500 } })
    expect((await transport.send(call(`http://127.0.0.1:${receiver.port}/short`))).outcome).toBe('success')
    expect((await transport.send(call(`http://127.0.0.1:${receiver.port}/long`))).outcome).toBe('http_error')
  })

  test('may send a body of 64 KiB and is disconnected at the next byte', async () => {
    const full = await receive((socket) =>
      socket.write(Buffer.concat([Buffer.from('HTTP/1.1 200 OK\r\ncontent-length: 65536\r\n\r\n'), Buffer.alloc(65_536)])),
    )
    const long = await receive((socket) =>
      socket.write(Buffer.concat([Buffer.from('HTTP/1.1 200 OK\r\ncontent-length: 65538\r\n\r\n'), Buffer.alloc(65_537)])),
    )
    const transport = transportOf()
    for (let i = 0; i < 2; i++) expect((await transport.send(call(`http://127.0.0.1:${full.port}/`))).outcome).toBe('success')
    expect(full.connections).toHaveLength(1)
    expect(await transport.send(call(`http://127.0.0.1:${long.port}/`))).toMatchObject({
      outcome: 'success',
      responseExcerpt: '\0'.repeat(4096),
    })
    await gone(long.connections[0]!)
  })

  test('that sends an endless body is disconnected after 64 KiB, and 4 KiB are returned', async () => {
    const receiver = await receive((socket) => {
      socket.write('HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n')
      pour(socket, `3e8\r\n${'b'.repeat(1000)}\r\n`)
    })
    const sent = await transportOf().send(call(`http://127.0.0.1:${receiver.port}/`))
    expect(sent).toMatchObject({ outcome: 'success', httpStatus: 200, responseExcerpt: 'b'.repeat(4096) })
    await gone(receiver.connections[0]!)
  })

  test('that sends an unexpected gzip bomb inflates nothing', async () => {
    const bomb = gzipSync(Buffer.alloc(32 * 1024 * 1024))
    const receiver = await receive((socket) => {
      socket.write(`HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: ${bomb.length}\r\n\r\n`)
      socket.write(bomb)
    })
    expect(bomb.length).toBeLessThan(65_536)
    const transport = transportOf()
    const sent = await transport.send(call(`http://127.0.0.1:${receiver.port}/`))
    expect(sent).toMatchObject({ outcome: 'success', responseExcerpt: null, responseHeaders: { 'content-encoding': 'gzip' } })
    // Inflated, it would have been too long, and a connection with too long a body is not used again.
    await transport.send(call(`http://127.0.0.1:${receiver.port}/`))
    expect(receiver.connections).toHaveLength(1)
    expect(receiver.requests[0]?.headers['accept-encoding']).toBe('identity')
  })

  test.each([
    ['at once', '', { outcome: 'connect', httpStatus: null }],
    ['amid the headers', 'HTTP/1.1 200 OK\r\ncontent-le', { outcome: 'connect', httpStatus: null }],
    ['amid the body of a 200', 'HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf', { outcome: 'success', httpStatus: 200 }],
    ['amid a chunk of a 202', 'HTTP/1.1 202 OK\r\ntransfer-encoding: chunked\r\n\r\nff\r\nhalf', { outcome: 'success', httpStatus: 202 }],
    ['amid the body of a 500', 'HTTP/1.1 500 Oops\r\ncontent-length: 10\r\n\r\nhalf', { outcome: 'http_error', httpStatus: 500 }],
  ])('that hangs up %s is judged by what it had sent', async (_when, said, expected) => {
    for (const leave of ['end', 'resetAndDestroy'] as const) {
      const receiver = await receive((socket) => socket.write(said, () => setImmediate(() => socket[leave]())))
      expect(failed(await transportOf().send(call(`http://127.0.0.1:${receiver.port}/`)))).toEqual(expected)
    }
  })

  test('whose 2xx continues with garbage has succeeded', async () => {
    const receiver = await receive((socket) => socket.write('HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nthis is no chunk\r\n'))
    expect(failed(await transportOf().send(call(`http://127.0.0.1:${receiver.port}/`)))).toEqual({ outcome: 'success', httpStatus: 200 })
  })

  test('that does not speak HTTP has not answered', async () => {
    const receiver = await receive((socket) => socket.write('SSH-2.0-OpenSSH_9.9\r\n'))
    expect(failed(await transportOf().send(call(`http://127.0.0.1:${receiver.port}/`)))).toEqual({
      outcome: 'http_error',
      httpStatus: null,
    })
  })

  test('that sends a response before the request does not answer the next attempt', async () => {
    const receiver = await receive((socket) => {
      ok(socket)
      if (receiver.requests.length === 1) socket.write('HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged')
    })
    const transport = transportOf()
    const url = `http://127.0.0.1:${receiver.port}/`
    await transport.send(call(url))
    expect((await transport.send(call(url))).responseExcerpt).not.toBe('forged')
  })

  test('has its headers bounded, its cookies dropped, and a character cut in two left out', async () => {
    const many = Array.from({ length: 200 }, (_, i) => `x-${i}: ${i}\r\n`).join('')
    const body = `${'a'.repeat(4095)}żółw`
    const receiver = await receive((socket) =>
      socket.write(
        `HTTP/1.1 200 OK\r\nset-cookie: s=1\r\nX-Twice: a\r\nx-twice: b\r\nx-long: ${'l'.repeat(3000)}\r\n${many}content-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
      ),
    )
    const sent = await transportOf().send(call(`http://127.0.0.1:${receiver.port}/`))
    expect(Object.keys(sent.responseHeaders)).toHaveLength(64)
    expect(sent.responseHeaders).toMatchObject({ 'x-twice': 'a, b', 'x-long': 'l'.repeat(1024), 'x-0': '0' })
    expect(sent.responseHeaders).not.toHaveProperty('set-cookie')
    expect(sent.responseExcerpt).toBe('a'.repeat(4095))
  })
})

describe('TLS', () => {
  test("sends the receiver's name and accepts a certificate for it", async () => {
    const receiver = await receiveTls()
    const transport = transportOf({ ca: certificate, resolver: naming({ 'hooks.example.test': ['127.0.0.1'] }) })
    for (const name of ['hooks.example.test', 'hooks.example.test.']) {
      const sent = await transport.send(call(`https://${name}:${receiver.port}/hooks`))
      expect(sent).toMatchObject({ outcome: 'success', remoteAddress: '127.0.0.1', timings: { tlsMs: expect.any(Number) } })
    }
    expect(receiver.requests.map(({ headers }) => headers.host)).toEqual([
      `hooks.example.test:${receiver.port}`,
      `hooks.example.test.:${receiver.port}`,
    ])
    expect(receiver.connections.map((socket) => (socket as TLSSocket).servername)).toEqual(['hooks.example.test', 'hooks.example.test'])
  })

  test.each([
    ['of an unknown authority', undefined, 'hooks.example.test', 'DEPTH_ZERO_SELF_SIGNED_CERT'],
    ['for another name', 'known', 'other.example.test', 'ERR_TLS_CERT_ALTNAME_INVALID'],
    ['for a name where an address was called', 'known', '127.0.0.1', 'ERR_TLS_CERT_ALTNAME_INVALID'],
  ])('refuses a certificate %s, and nothing is sent', async (_title, known, host, code) => {
    const receiver = await receiveTls()
    const transport = transportOf({ ...(known === undefined ? {} : { ca: certificate }), resolver: naming({ [host]: ['127.0.0.1'] }) })
    expect(await transport.send(call(`https://${host}:${receiver.port}/`))).toMatchObject({
      outcome: 'tls',
      httpStatus: null,
      error: `The TLS handshake failed (${code}).`,
    })
    expect(receiver.requests).toHaveLength(0)
  })

  test('is not spoken by a receiver of plain HTTP', async () => {
    const server = createServer((socket) => socket.on('error', () => {}).end('HTTP/1.1 400 Bad Request\r\n\r\n'))
    const receiver = await receive(silent, { server })
    expect(failed(await transportOf().send(call(`https://127.0.0.1:${receiver.port}/`)))).toEqual({ outcome: 'tls', httpStatus: null })
  })

  test('that never completes is disconnected at the connect timeout', async () => {
    const receiver = await receive(silent)
    const sent = await transportOf({ limits: { connectMs: 150 } }).send(call(`https://127.0.0.1:${receiver.port}/`))
    expect(sent).toMatchObject({
      outcome: 'timeout',
      error: 'No connection could be made in time.',
      timings: { connectMs: expect.any(Number), firstByteMs: null },
    })
    expect(sent.durationMs).toBeLessThan(LATE_MS)
    await gone(receiver.connections[0]!)
  })
})

describe('an attempt', () => {
  test('to a closed port ends as connect, without the address in the error', async () => {
    const receiver = await receive(ok, { host: '127.0.0.9' })
    const sent = await transportOf().send(call(`http://127.0.0.8:${receiver.port}/`))
    expect(sent).toMatchObject({ outcome: 'connect', error: 'No connection could be made (ECONNREFUSED).', remoteAddress: null })
  })

  test.each([
    ['EMFILE', true],
    ['ENOTFOUND', undefined],
  ])('that fails with %s is a local fault if this machine ran out of a resource', async (code, ours) => {
    const resolver = { resolve: () => Promise.reject(Object.assign(new Error(code), { code })) }
    const sent = await transportOf({ resolver }).send(call('http://receiver.example.test/'))
    expect(sent).toMatchObject({ outcome: 'dns', error: `The host name could not be resolved (${code}).` })
    expect(sent.localFault).toBe(ours)
  })

  test('whose signal is aborted ends as aborted and leaves no connection', async () => {
    const receiver = await receive(silent)
    const control = new AbortController()
    const sending = transportOf().send(call(`http://127.0.0.1:${receiver.port}/`), control.signal)
    while (receiver.requests.length === 0) await new Promise((resolve) => setImmediate(resolve))
    control.abort()
    expect(await sending).toMatchObject({ outcome: 'aborted', httpStatus: null, error: 'The attempt was cut short by this server.' })
    await gone(receiver.connections[0]!)
  })

  test('whose signal was aborted before sends nothing', async () => {
    const receiver = await receive(ok)
    expect((await transportOf().send(call(`http://127.0.0.1:${receiver.port}/`), AbortSignal.abort())).outcome).toBe('aborted')
    expect(receiver.connections).toHaveLength(0)
  })

  test('aborted during its lookup makes no connection afterwards', async () => {
    const receiver = await receive(ok)
    const control = new AbortController()
    let answer: (addresses: readonly string[]) => void = () => {}
    const answered = new Promise<readonly string[]>((resolve) => {
      answer = resolve
    })
    const transport = transportOf({ resolver: { resolve: () => answered } })
    const sending = transport.send(call(`http://slow.example.test:${receiver.port}/`), control.signal)
    control.abort()
    expect((await sending).outcome).toBe('aborted')
    answer(['127.0.0.1'])
    expect((await transport.send(call(`http://127.0.0.1:${receiver.port}/`))).outcome).toBe('success')
    expect(receiver.connections).toHaveLength(1)
  })

  test('with an invalid header fails with an error and affects no other attempt', async () => {
    const receiver = await receive(ok)
    const transport = transportOf()
    const url = `http://127.0.0.1:${receiver.port}/`
    for (const headers of [{ 'x-a': 'b\r\nx-evil: 1' }, { 'x a': 'b' }, { 'x-a': '→' }] as Record<string, string>[]) {
      const sent = await transport.send(call(url, headers))
      expect(sent).toMatchObject({
        outcome: 'connect',
        error: 'The request could not be sent: the name or value of a header is not valid HTTP.',
      })
    }
    expect((await transport.send(call(url))).outcome).toBe('success')
    expect(receiver.requests).toHaveLength(1)
  })

  test('in flight when the transport closes ends as aborted, and later ones do not start', async () => {
    const receiver = await receive(silent)
    const transport = transportOf()
    const sending = transport.send(call(`http://127.0.0.1:${receiver.port}/`))
    while (receiver.requests.length === 0) await new Promise((resolve) => setImmediate(resolve))
    await transport.close()
    expect((await sending).outcome).toBe('aborted')
    expect((await transport.send(call(`http://127.0.0.1:${receiver.port}/`))).outcome).toBe('aborted')
    await gone(receiver.connections[0]!)
    expect(receiver.connections).toHaveLength(1)
  })

  test('leaves no more idle connections than allowed, not counting those the receiver closed', async () => {
    const receiver = await receive(ok)
    const other = await receive(ok)
    const transport = transportOf({ limits: { idleConnections: 2, idleMs: 60_000 } })
    await Promise.all(Array.from({ length: 6 }, () => transport.send(call(`http://127.0.0.1:${receiver.port}/`))))
    const closed = new Set<Socket>()
    await new Promise<void>((resolve) => {
      for (const socket of receiver.connections) void gone(socket).then(() => closed.add(socket).size === 4 && resolve())
    })
    const kept = receiver.connections.filter((socket) => !closed.has(socket))
    expect(kept).toHaveLength(2)
    for (const socket of kept) socket.end()
    await Promise.all(kept.map(gone))
    for (let i = 0; i < 3; i++) await transport.send(call(`http://127.0.0.1:${other.port}/`))
    expect(other.connections).toHaveLength(1)
  })

  test('leaves an idle connection open only for a limited time', async () => {
    const receiver = await receive(ok)
    const transport = transportOf({ limits: { idleMs: 100 } })
    await transport.send(call(`http://127.0.0.1:${receiver.port}/`))
    await gone(receiver.connections[0]!)
    expect((await transport.send(call(`http://127.0.0.1:${receiver.port}/`))).outcome).toBe('success')
  })
})

function drip(socket: Socket, start: string): void {
  socket.write(start)
  const timer = setInterval(() => socket.write('a'), 20)
  socket.on('close', () => clearInterval(timer))
}

async function gone(socket: Socket): Promise<void> {
  // A reset is as good an end as any, so an error does not count.
  if (!socket.closed) await new Promise((resolve) => socket.once('close', resolve))
}

/** A name server that answers A for the names it knows, says nothing about names that begin with "silent", and knows of no AAAA. */
async function nameServer(names: Readonly<Record<string, string>>): Promise<number> {
  const socket = createSocket('udp4')
  socket.on('message', (question, from) => {
    const labels: string[] = []
    let at = 12
    for (let length = question[at]!; length > 0; length = question[at]!) {
      labels.push(question.toString('latin1', at + 1, at + 1 + length))
      at += length + 1
    }
    const name = labels.join('.')
    if (name.startsWith('silent')) return
    const address = question.readUInt16BE(at + 1) === 1 ? names[name] : undefined
    const head = Buffer.from(question.subarray(0, 12))
    head.writeUInt16BE(0x8180, 2)
    head.writeUInt16BE(address === undefined ? 0 : 1, 6)
    head.writeUInt32BE(0, 8)
    const record =
      address === undefined ? [] : [Buffer.from([0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, ...address.split('.').map(Number)])]
    socket.send(Buffer.concat([head, question.subarray(12, at + 5), ...record]), from.port, from.address)
  })
  socket.bind(0, '127.0.0.1')
  await once(socket, 'listening')
  onTestFinished(() => void socket.close())
  return socket.address().port
}

/** Of hooks.example.test, self-signed, good until 2120. */
const certificate = `-----BEGIN CERTIFICATE-----
MIIBezCCASKgAwIBAgIBATAKBggqhkjOPQQDAjAdMRswGQYDVQQDDBJob29rcy5l
eGFtcGxlLnRlc3QwIBcNMjAwMTAxMDAwMDAwWhgPMjEyMDAxMDEwMDAwMDBaMB0x
GzAZBgNVBAMMEmhvb2tzLmV4YW1wbGUudGVzdDBZMBMGByqGSM49AgEGCCqGSM49
AwEHA0IABAI8XIfROuydV4t1KcP99wv/Rd7V8AO3ZpVajXJnERZj5qGm4KEnjGmR
/9HoG420FktY5brTImrK+Gzfx2N3y3qjUTBPMB0GA1UdEQQWMBSCEmhvb2tzLmV4
YW1wbGUudGVzdDAPBgNVHRMBAf8EBTADAQH/MB0GA1UdDgQWBBToOA5QpQPX0rQQ
JvWsQXdJgF9BXTAKBggqhkjOPQQDAgNHADBEAiBt6HZUMhs34H9wIR+bgf4Mb8dv
WyVeNdeJEprqhXEURAIgYI0RPR749DS8zU9zR6Fgv23GYuH9a+UAK8uyoWQ/jRY=
-----END CERTIFICATE-----`

function receiveTls(): Promise<Receiver> {
  const jwk = {
    kty: 'EC',
    crv: 'P-256',
    d: '-OtGia8ZuOn1iBXanfqK6REhEm7bcTgQYcJUpQfebyI',
    x: 'Ajxch9E67J1Xi3Upw_33C_9F3tXwA7dmlVqNcmcRFmM',
    y: '5qGm4KEnjGmR_9HoG420FktY5brTImrK-Gzfx2N3y3o',
  }
  const key = createPrivateKey({ key: jwk, format: 'jwk' }).export({ type: 'pkcs8', format: 'pem' })
  return receive(ok, { server: createTlsServer({ key, cert: certificate }), event: 'secureConnection' })
}

/** The operator's egress proxy: what it is asked for, and what is said when it refuses. */
import { once } from 'node:events'
import { createServer, type IncomingMessage } from 'node:http'
import { type AddressInfo, connect, createServer as createTcp, type Socket } from 'node:net'
import { expect, onTestFinished, test } from 'vitest'
import { parseConfig } from '../../src/config/config.ts'
import { systemClock } from '../../src/core/clock.ts'
import { createEventSink } from '../../src/observe/events.ts'
import { type AddressRulesInput, parseAddressRules } from '../../src/webhook/address.ts'
import type { TransportLimits } from '../../src/webhook/attempt.ts'
import { createTransport, type Transport } from '../../src/webhook/transport.ts'
import { openReceiver, type Receiver } from '../support/receiver.ts'

interface Proxy {
  readonly url: string
  /** What CONNECT named, one for each. */
  readonly asked: string[]
  readonly credentials: (string | undefined)[]
}

/** A proxy that tunnels wherever it is asked to; `answer` may do otherwise. */
async function openProxy(answer: (request: IncomingMessage, socket: Socket) => boolean = () => false): Promise<Proxy> {
  const asked: string[] = []
  const credentials: (string | undefined)[] = []
  const sockets = new Set<Socket>()
  const server = createServer()
  server.on('connection', (socket) => sockets.add(socket))
  server.on('connect', (request, socket: Socket) => {
    socket.on('error', () => {})
    asked.push(request.url!)
    credentials.push(request.headers['proxy-authorization'])
    if (answer(request, socket)) return
    const { hostname, port } = new URL(`http://${request.url}`)
    const onward = connect(Number(port), hostname.replace(/^\[|\]$/g, ''), () => {
      socket.write('HTTP/1.1 200 Connection established\r\n\r\n')
      onward.pipe(socket).pipe(onward)
    })
    onward.on('error', () => socket.end('HTTP/1.1 502 Bad Gateway\r\n\r\n'))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  onTestFinished(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, asked, credentials }
}

async function openGoal(): Promise<Receiver> {
  const receiver = await openReceiver()
  onTestFinished(() => receiver.close())
  return receiver
}
const portOf = ({ url }: Receiver): string => new URL(url).port

function through(
  proxy: string,
  {
    rules,
    addresses = ['127.0.0.1'],
    limits,
  }: { rules?: AddressRulesInput; addresses?: readonly string[]; limits?: Partial<TransportLimits> } = {},
): Transport {
  const transport = createTransport({
    clock: systemClock(),
    events: createEventSink(),
    rules: parseAddressRules({ allowHttp: true, allowLoopback: true, ...rules }),
    resolver: { resolve: async () => addresses },
    proxy: parseConfig({ env: { RINGBACK_EGRESS_PROXY: proxy } }).egressProxy,
    ...(limits && { limits }),
  })
  onTestFinished(() => transport.close())
  return transport
}
const call = (url: string) => ({ url, headers: { 'webhook-id': 'event_1' }, body: '{}' })

test('a proxy gets the checked address, never the name, and its credentials; the receiver gets its own name', async () => {
  const receiver = await openGoal()
  const proxy = await openProxy()
  const transport = through(proxy.url.replace('//', '//user:p%40ss@'))
  const sent = await transport.send(call(`http://app.example.test:${portOf(receiver)}/hooks`))
  expect(sent).toMatchObject({ outcome: 'success', remoteAddress: '127.0.0.1' })
  expect(proxy.asked).toEqual([`127.0.0.1:${portOf(receiver)}`])
  expect(proxy.credentials).toEqual([`Basic ${Buffer.from('user:p@ss').toString('base64')}`])
  const [arrival] = receiver.arrivals
  expect(arrival!.headers.host).toBe(`app.example.test:${portOf(receiver)}`)
  expect(arrival!.headers).not.toHaveProperty('proxy-authorization')
  // A tunnel is kept like any other connection.
  expect((await transport.send(call(`http://app.example.test:${portOf(receiver)}/hooks`))).outcome).toBe('success')
  expect(proxy.asked).toHaveLength(1)
})

test('a proxy gets no request for a forbidden address, nor for a name with one among its addresses', async () => {
  const proxy = await openProxy()
  for (const addresses of [['10.0.0.1'], ['127.0.0.1', '169.254.169.254']])
    expect(await through(proxy.url, { addresses }).send(call('http://app.example.test/hooks'))).toMatchObject({
      outcome: 'blocked',
      remoteAddress: null,
    })
  expect(await through(proxy.url).send(call('http://10.0.0.1/hooks'))).toMatchObject({ outcome: 'blocked' })
  expect(proxy.asked).toEqual([])
})

test('the checked addresses are tried in turn, also after one for which the proxy does not answer', async () => {
  const receiver = await openGoal()
  const proxy = await openProxy(({ url }) => url!.startsWith('127.0.0.2:'))
  const transport = through(proxy.url, { addresses: ['127.0.0.2', '127.0.0.3', '127.0.0.1'], limits: { addressMs: 400 } })
  const sent = await transport.send(call(`http://app.example.test:${portOf(receiver)}/hooks`))
  expect(sent).toMatchObject({ outcome: 'success', remoteAddress: '127.0.0.1' })
  expect(proxy.asked.map((authority) => authority.split(':')[0])).toEqual(['127.0.0.2', '127.0.0.3', '127.0.0.1'])
})

test.each([
  [403, 'The egress proxy refused the connection (4xx).'],
  [407, 'The egress proxy refused the connection (its credentials).'],
  [503, 'The egress proxy refused the connection (5xx).'],
])('a proxy that answers %i fails the attempt as connect, with an error without address or credentials', async (status, sentence) => {
  const proxy = await openProxy((_request, socket) => {
    socket.end(`HTTP/1.1 ${status} No\r\nproxy-authenticate: Basic realm="10.1.2.3"\r\ncontent-length: 0\r\n\r\n`)
    return true
  })
  const sent = await through(proxy.url.replace('//', '//user:secret@')).send(call('http://app.example.test:8080/hooks'))
  expect(sent).toMatchObject({ outcome: 'connect', httpStatus: null, error: sentence })
})

test('a proxy that never answers, or answers without end, is disconnected at the connect timeout', async () => {
  const silent = await openProxy(() => true)
  expect(
    (await through(silent.url, { limits: { connectMs: 200, addressMs: 100 } }).send(call('http://app.example.test/hooks'))).outcome,
  ).toBe('timeout')
  const endless = await openProxy((_request, socket) => {
    socket.write('HTTP/1.1 200 OK\r\n')
    const pour = (): void => {
      while (!socket.destroyed && socket.write(`x: ${'y'.repeat(1_000)}\r\n`));
      if (!socket.destroyed) socket.once('drain', pour)
    }
    pour()
    return true
  })
  // Cut for what it says, not for the time it takes.
  expect((await through(endless.url).send(call('http://app.example.test/hooks'))).outcome).toBe('connect')
})

test('an unreachable proxy fails the attempt as connect', async () => {
  // Held at another address: nobody can come to listen at this one meanwhile.
  const elsewhere = createTcp().listen(0, '127.0.0.9')
  onTestFinished(() => void elsewhere.close())
  await once(elsewhere, 'listening')
  const { port } = elsewhere.address() as AddressInfo
  const sent = await through(`http://127.0.0.8:${port}`).send(call('http://app.example.test/hooks'))
  expect(sent).toMatchObject({ outcome: 'connect', error: 'The egress proxy could not be reached (ECONNREFUSED).', localFault: true })
})

test.each(['socks5://proxy:1080', 'http://proxy/path', 'http://proxy?x', 'proxy:3128', 'http://us%er:pa%ss@proxy'])(
  'the setting %s is refused in a sentence that does not quote it',
  (text) => {
    expect(() => parseConfig({ env: { RINGBACK_EGRESS_PROXY: text } })).toThrow(
      /^RINGBACK_EGRESS_PROXY is not the URL of a proxy: write http/,
    )
    expect(() => parseConfig({ env: { RINGBACK_EGRESS_PROXY: text } })).not.toThrow(text)
  },
)

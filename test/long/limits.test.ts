/** Ten thousand connections that say nothing, or almost nothing, beside a client that wants to work. */
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { type Agent, request } from 'node:http'
import { connect, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, expect, test } from 'vitest'
import { type Home, newClient, openHome, type Server } from '../support/server.ts'

let home: Home
let crowd: Crowd | null = null
afterEach(async () => {
  crowd?.leave()
  await home.close()
})

/** As many as this process and the server may open, which both raise their limit as far as the system lets them. */
const files = execFileSync('sh', ['-c', 'ulimit -Hn']).toString().trim()
const MANY = files === 'unlimited' ? 10_000 : Math.min(10_000, Number(files) - 1_000)
/** Who was cut comes again after this long: more often, and it is this process that has no time for anything else. */
const AGAIN_MS = 1_000
/** So many source addresses share the crowd. */
const ADDRESSES = 50

interface Crowd {
  /** Connected now. */
  readonly count: number
  /** How often the server ended one. */
  readonly cut: number
  leave(): void
}

/** Connections of four kinds: silent, with headers byte by byte, with a body byte by byte, and kept after a request. Each comes back when it is cut. */
async function gather(base: string, size: number, key: string): Promise<Crowd> {
  const port = Number(new URL(base).port)
  const open = new Set<Socket>()
  const slow: Socket[] = []
  let cut = 0
  let over = false
  const head = (rest: string): string => `POST /v1/tasks HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${key}\r\n${rest}`
  const first = [
    '',
    head('X-Slow: '),
    head('Content-Type: application/json\r\nContent-Length: 100000\r\n\r\n{'),
    'GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n',
  ]
  const join = (i: number): Promise<void> =>
    new Promise((resolve) => {
      const socket = connect({ host: '127.0.0.1', port, localAddress: `127.0.1.${1 + (i % ADDRESSES)}` })
      socket.on('error', () => {})
      socket.once('connect', () => {
        open.add(socket)
        const text = first[i % first.length]!
        if (text !== '') socket.write(text)
        if (i % first.length === 1 || i % first.length === 2) slow.push(socket)
        resolve()
      })
      socket.once('close', () => {
        if (open.delete(socket)) cut++
        resolve()
        if (!over) setTimeout(() => void join(i), AGAIN_MS)
      })
      socket.resume()
    })
  for (let from = 0; from < size; from += 200)
    await Promise.all(Array.from({ length: Math.min(200, size - from) }, (_, i) => join(from + i)))
  const drip = setInterval(() => {
    for (const socket of slow) if (socket.writable) socket.write(' ')
  }, 2_000)
  return {
    get count() {
      return open.size
    },
    get cut() {
      return cut
    },
    leave() {
      over = true
      clearInterval(drip)
      for (const socket of open) socket.destroy()
    },
  }
}

/** One request over a connection of its own; answers its status and how long it took. */
function ask(
  base: string,
  key: string,
  method: string,
  path: string,
  body?: string,
  agent: Agent | false = false,
): Promise<{ status: number; ms: number }> {
  const start = performance.now()
  return new Promise((resolve, reject) => {
    const headers = { authorization: `Bearer ${key}`, ...(body === undefined ? {} : { 'content-type': 'application/json' }) }
    const sent = request(`${base}${path}`, { method, headers, agent, timeout: 30_000 }, (answer) => {
      answer.resume()
      answer.once('end', () => resolve({ status: answer.statusCode!, ms: performance.now() - start }))
    })
    sent.once('error', reject)
    sent.once('timeout', () => sent.destroy(new Error(`${method} ${path} was not answered in 30 s`)))
    sent.end(body)
  })
}

/** What would be no service any more; what it was is printed. */
const MAX_MS = 5_000
const TASK = JSON.stringify({ type: 'work.instant', input: null })
/** So many submissions, and as many lists, one after the other. */
async function measure(base: string, key: string, rounds: number): Promise<{ p50: number; p99: number; statuses: Set<number> }> {
  const times: number[] = []
  const statuses = new Set<number>()
  for (let i = 0; i < rounds; i++)
    for (const [method, path, body] of [['POST', '/v1/tasks', TASK] as const, ['GET', '/v1/tasks?limit=1', undefined] as const]) {
      const { status, ms } = await ask(base, key, method, path, body)
      times.push(ms)
      statuses.add(status)
    }
  times.sort((a, b) => a - b)
  const at = (share: number): number => Math.round(times[Math.floor(times.length * share)]! * 10) / 10
  return { p50: at(0.5), p99: at(0.99), statuses }
}

const residentMiB = ({ pid }: Server): number =>
  Math.round(Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]) / 1024)

test('ten thousand idle and slow connections do not keep a client from being served; what waits is not cut, who is late is', async () => {
  home = await openHome('SQLite')
  const server = await home.start()
  const base = await server.listening
  const { key, call } = await newClient(base)
  const alone = await measure(base, key, 200)
  const before = residentMiB(server)
  const { json } = await call('POST', '/v1/tasks', { type: 'work.instant', input: null, delaySeconds: 600 })
  const startedAt = performance.now()
  const waiting = ask(base, key, 'GET', `/v1/tasks/${json.id}?wait=28`)

  crowd = await gather(base, MANY, key)
  const gathered = { connections: crowd.count, seconds: Math.round((performance.now() - startedAt) / 100) / 10 }
  const beside = await measure(base, key, 200)
  console.log(JSON.stringify({ gathered, alone: shown(alone), beside: shown(beside), MiB: { before, with: residentMiB(server) } }))
  expect(gathered.connections).toBeGreaterThan(MANY * 0.95)
  expect(beside.statuses).toEqual(new Set([200, 202]))
  expect(beside.p99).toBeLessThan(MAX_MS)

  // Longer than any request may take to arrive.
  expect((await waiting).status).toBe(200)
  expect(performance.now() - startedAt).toBeGreaterThan(27_000)
  while (crowd.cut < MANY * 0.2) await sleep(500)
  expect((await measure(base, key, 20)).statuses).toEqual(new Set([200, 202]))
}, 120_000)

test('of more connections than there may be the idle ones give way, and a client is served beside those that come again and again', async () => {
  home = await openHome('SQLite')
  const server = await home.start({ RINGBACK_MAX_CONNECTIONS: '1000' })
  const base = await server.listening
  const { key } = await newClient(base)
  const alone = await measure(base, key, 100)
  crowd = await gather(base, 2_000, key)
  const beside = await measure(base, key, 100)
  console.log(JSON.stringify({ alone: shown(alone), beside: shown(beside), cut: crowd.cut, MiB: residentMiB(server) }))
  expect(beside.statuses).toEqual(new Set([200, 202]))
  expect(beside.p99).toBeLessThan(MAX_MS)
  expect(crowd.cut).toBeGreaterThanOrEqual(1_000)
}, 120_000)

const shown = ({ p50, p99 }: { p50: number; p99: number }): object => ({ p50, p99 })

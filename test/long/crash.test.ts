/** `kill -9` under load, at random points and at those that hurt: nothing acknowledged is lost, nothing that ended ends again. */
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, describe, expect, test } from 'vitest'
import { createReceiver } from '../../src/receiver/index.ts'
import { points } from '../support/deaths.ts'
import { drained, moody, proveNothingLost, proveSound, type Random, seededRandom, startLoad } from '../support/load.ts'
import { type Arrival, openReceiver, type Receiver } from '../support/receiver.ts'
import { calling, databases, type Home, linesOf, newClient, ok, openHome, type Server } from '../support/server.ts'

const KILLS = Number(process.env.RINGBACK_TEST_KILLS ?? 200)
const PUBLIC_URL = 'https://tasks.example.com'
const SETTINGS = { RINGBACK_LEASE_SECONDS: '3', RINGBACK_PUBLIC_URL: PUBLIC_URL }
/** Kills a server at the point that RINGBACK_TEST_DEATH names. */
const MORTAL = { NODE_OPTIONS: `--import ${new URL('../support/deaths.ts', import.meta.url).href}` }
/** A server that listens and has not come to its point by then is killed wherever it is. */
const MAX_LIFE_MS = 3_000

const closing: { close(): Promise<void> }[] = []
afterAll(async () => {
  await Promise.all(closing.map((it) => it.close()))
})

describe.each(databases)('on %s', (name) => {
  test('kill -9 under load, again and again, loses nothing', { timeout: 600_000 }, async () => {
    const { seed, random } = seededRandom()
    console.log(`${name}: RINGBACK_TEST_SEED=${seed}`)
    const home = await openHome(name)
    const receiver = await openReceiver()
    closing.push(home, receiver)
    receiver.answer(moody(random))
    const cluster = createCluster(home, name === 'SQLite' ? 1 : 2, random)
    const { key } = await prepare(cluster, receiver)

    const seconds: Record<string, number> = {}
    const timed = async (what: string, work: Promise<unknown>): Promise<void> => {
      const begun = performance.now()
      await work
      seconds[what] = Math.round((performance.now() - begun) / 1000)
    }
    const load = startLoad({ bases: cluster.bases, key, random, submitters: 16, pauseMs: 30 })
    await timed('killing', cluster.killUntil(KILLS))
    await timed('starting', cluster.startAll())
    await timed('stopping', load.stop())
    await timed('draining', drained(home))

    const base = cluster.bases()[0]!
    const proof = await proveNothingLost(home, calling(base, key), load, receiver.arrivals)
    await proveSound(home)
    console.log(
      `${name}: ${cluster.kills} kills, ${load.repeats} requests repeated, ${JSON.stringify(proof)}, seconds ${JSON.stringify(seconds)}`,
    )
    console.log(`${name}: ${JSON.stringify(cluster.troubles())}`)
    console.log(`${name}: died ${JSON.stringify(cluster.places())}`)
    expect(cluster.kills).toBeGreaterThanOrEqual(KILLS)
    expectRepeatsByDeathsOnly(receiver.arrivals, cluster.deaths)
    expect(proof.tasks).toBeGreaterThan(KILLS)

    // What came between the kills is as well signed as what came after them.
    const jwks = (await (await fetch(`${base}/.well-known/jwks.json`)).json()) as { keys: [] }
    const clocks = { wall: (): number => clocks.now, now: 0 }
    const verify = createReceiver({ issuer: PUBLIC_URL, audience: `${receiver.url}/steady`, jwks, clock: clocks })
    for (const arrival of receiver.arrivals.filter((it) => it.path === '/steady')) {
      clocks.now = arrival.at
      await verify.verify(arrival)
    }
  })
})

describe.each(databases)('on %s', (name) => {
  test('a task whose 202 has arrived exists, although the server was killed in that very moment', { timeout: 120_000 }, async () => {
    const home = await openHome(name)
    closing.push(home)
    let key: string | null = null
    const acknowledged: string[] = []
    for (let round = 1; round <= 8; round++) {
      const server = await home.start(SETTINGS)
      const base = await server.listening
      key ??= (await newClient(base)).key
      const call = calling(base, key)
      const before = acknowledged.length
      // Several share a commit, and some wait for the next: the first answer is the moment, one more the next round.
      await Promise.allSettled(
        Array.from({ length: 40 }, async () => {
          const { status, json } = await call('POST', '/v1/tasks', { type: 'work.instant', input: null, callback: null })
          if (status !== 202) return
          acknowledged.push(json.id)
          if (acknowledged.length - before === round) server.kill('SIGKILL')
        }),
      )
      expect(acknowledged.length - before).toBeGreaterThanOrEqual(round)
      expect((await server.ended).signal).toBe('SIGKILL')
      const rows = await home.query<{ id: string }>('select id from tasks')
      const there = new Set(rows.map(({ id }) => id))
      expect(acknowledged.filter((id) => !there.has(id))).toEqual([])
    }
    const base = await (await home.start(SETTINGS)).listening
    await drained(home)
    const call = calling(base, key!)
    for (const id of acknowledged) expect((await ok(call('GET', `/v1/tasks/${id}`))).json.status).toBe('completed')
    console.log(`${name}: ${acknowledged.length} acknowledged in 8 rounds`)
  })
})

/** A client with three endpoints that overlap. */
async function prepare(cluster: Cluster, receiver: Receiver): Promise<{ key: string }> {
  await cluster.startAll()
  const { key, call } = await newClient(cluster.bases()[0]!)
  const retrySchedule = Array(20).fill(0.2)
  await ok(call('POST', '/v1/endpoints', { url: `${receiver.url}/steady`, retrySchedule }))
  await ok(call('POST', '/v1/endpoints', { url: `${receiver.url}/moody`, retrySchedule, maxInFlight: 10 }))
  await ok(call('POST', '/v1/endpoints', { url: `${receiver.url}/failures`, retrySchedule, events: ['task.failed'] }))
  return { key }
}

/** What a server sent just before its death is read a moment after it. */
const READ_AFTER_MS = 500
/** A webhook that was taken comes again only when somebody died in between. */
function expectRepeatsByDeathsOnly(arrivals: readonly Arrival[], deaths: readonly number[]): void {
  const last = new Map<string, number>()
  for (const { id, path, at, status } of arrivals) {
    if (status !== 200) continue
    const before = last.get(`${id} ${path}`)
    if (before !== undefined)
      expect(
        deaths.filter((death) => death >= before - READ_AFTER_MS && death <= at),
        `deaths before ${id} came again`,
      ).not.toEqual([])
    last.set(`${id} ${path}`, at)
  }
}

interface Cluster {
  readonly kills: number
  /** When servers died. */
  readonly deaths: readonly number[]
  /** At which points, and how often. */
  places(): Readonly<Record<string, number>>
  /** Where servers listen now. */
  bases(): readonly string[]
  startAll(): Promise<void>
  /** At every place a server dies at one point or another, and the next one is started; one death in eight takes all of them. */
  killUntil(kills: number): Promise<void>
  /** What the servers complained about, and how often. */
  troubles(): Record<string, number>
}

function createCluster(home: Home, size: number, random: Random): Cluster {
  const places: { server: Server; base: string | null }[] = []
  const all: Server[] = []
  const deaths: number[] = []
  const died: Record<string, number> = {}
  const start = (place: number, death?: string): Server => {
    const server = home.spawn(death === undefined ? SETTINGS : { ...SETTINGS, ...MORTAL, RINGBACK_TEST_DEATH: death })
    const it: (typeof places)[number] = { server, base: null }
    places[place] = it
    all.push(server)
    server.listening.then(
      (url) => {
        it.base = url
      },
      () => {},
    )
    void server.ended.then(() => {
      it.base = null
    })
    return server
  }
  const count = (where: string): void => {
    deaths.push(Date.now())
    died[where] = (died[where] ?? 0) + 1
  }
  const kill = async (server: Server, where: string): Promise<void> => {
    if (!(await stillRuns(server))) return
    server.kill('SIGKILL')
    count(where)
  }
  /** How long the last start took. */
  let startMs = 500
  const live = async (place: number, until: number): Promise<void> => {
    while (deaths.length < until) {
      // Some are killed whenever it happens, some of those while they start: while they migrate, load their keys, rescue.
      const [kind, when] = random() < 0.3 ? [] : points[Math.floor(random() * points.length)]!
      const server = start(place, kind && `${kind} ${when} ${1 + Math.floor(random() * 20)}`)
      const ended = server.ended.then(() => 'ended' as const)
      const startedAt = performance.now()
      const isUp = server.listening.then(
        () => (startMs = performance.now() - startedAt),
        () => {},
      )
      if (kind === undefined && random() < 0.3) await Promise.race([sleep(random() * startMs), ended])
      else await isUp.then(() => Promise.race([sleep(kind === undefined ? random() * 1_000 : MAX_LIFE_MS), ended]))
      if (await stillRuns(server)) for (const each of random() < 0.125 ? places : [places[place]!]) await kill(each.server, 'anywhere')
      else if ((await ended) && (await server.ended).signal !== 'SIGKILL') throw new Error(`a server ended by itself: ${server.said()}`)
      // One that was taken with another is counted already.
      else if (!server.isKilled()) count(`${when} ${kind}`)
      await server.ended
    }
  }
  return {
    get kills() {
      return deaths.length
    },
    deaths,
    places: () => died,
    bases: () => places.flatMap(({ base }) => base ?? []),
    async startAll() {
      for (let place = 0; place < size; place++) {
        const it = places[place]
        if (it === undefined || !(await stillRuns(it.server))) start(place)
      }
      await Promise.all(places.map(({ server }) => server.listening))
    },
    async killUntil(until) {
      for (const { server } of places) await kill(server, 'anywhere')
      await Promise.all(places.map(({ server }) => server.ended))
      await Promise.all(Array.from({ length: size }, (_, place) => live(place, until)))
    },
    troubles() {
      const counts: Record<string, number> = {}
      for (const server of all)
        for (const line of linesOf(server.said())) {
          const parsed = line.startsWith('{') && line.endsWith('}') ? JSON.parse(line) : null
          if (parsed === null || parsed.level === 'info') continue
          const said = `${parsed.msg}: ${parsed.err?.message ?? ''}`
          counts[said] = (counts[said] ?? 0) + 1
        }
      return counts
    },
  }
}

const stillRuns = (server: Server): Promise<boolean> => Promise.race([server.ended.then(() => false), sleep(0).then(() => true)])

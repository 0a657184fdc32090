/** `kill -9` under load, at random points: nothing acknowledged is lost, nothing that ended ends again. */
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, describe, expect, test } from 'vitest'
import { createReceiver } from '../../src/receiver.ts'
import { drained, moody, proveNothingLost, type Random, seededRandom, startLoad } from '../support/load.ts'
import { openReceiver, type Receiver } from '../support/receiver.ts'
import { calling, databases, type Home, newClient, ok, openHome, type Server } from '../support/server.ts'

const KILLS = Number(process.env.RINGBACK_TEST_KILLS ?? 50)
const PUBLIC_URL = 'https://tasks.example.com'
const SETTINGS = { RINGBACK_LEASE_SECONDS: '2', RINGBACK_PUBLIC_URL: PUBLIC_URL }

const closing: { close(): Promise<void> }[] = []
afterAll(async () => {
  await Promise.all(closing.map((it) => it.close()))
})

describe.each(databases)('on %s', (name) => {
  test(`${KILLS} times kill -9 under load loses nothing`, { timeout: 600_000 }, async () => {
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
    console.log(
      `${name}: ${cluster.kills} kills, ${load.repeats} requests repeated, ${JSON.stringify(proof)}, seconds ${JSON.stringify(seconds)}`,
    )
    console.log(`${name}: ${JSON.stringify(cluster.troubles())}`)
    expect(cluster.kills).toBeGreaterThanOrEqual(KILLS)
    expect(proof.tasks).toBeGreaterThan(KILLS * 2)

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

interface Cluster {
  readonly kills: number
  /** Where servers listen now. */
  bases(): readonly string[]
  startAll(): Promise<void>
  /** Every place kills its server after a random time, and starts the next; one kill in five takes all of them. */
  killUntil(kills: number): Promise<void>
  /** What the servers complained about, and how often. */
  troubles(): Record<string, number>
}

function createCluster(home: Home, size: number, random: Random): Cluster {
  const places: { server: Server; base: string | null }[] = []
  const all: Server[] = []
  let kills = 0
  const start = (place: number): Server => {
    const server = home.spawn(SETTINGS)
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
  const kill = (server: Server): void => {
    server.kill('SIGKILL')
    kills++
  }
  const isUp = async (server: Server): Promise<boolean> => server.listening.then(Boolean, () => false)
  const live = async (place: number, until: number): Promise<void> => {
    while (kills < until) {
      const { server } = places[place]!
      // Some are killed while they start: while they migrate, load their keys, rescue.
      if (random() < 0.85) await isUp(server)
      await Promise.race([sleep(random() * (size > 1 ? 3_000 : 1_500)), server.ended])
      if (kills < until && (await stillRuns(server))) {
        for (const each of size > 1 && random() < 0.2 ? places : [places[place]!]) kill(each.server)
        await server.ended
      }
      start(place)
    }
  }
  return {
    get kills() {
      return kills
    },
    bases: () => places.flatMap(({ base }) => base ?? []),
    async startAll() {
      for (let place = 0; place < size; place++) {
        const it = places[place]
        if (it === undefined || !(await stillRuns(it.server))) start(place)
      }
      await Promise.all(places.map(({ server }) => server.listening))
    },
    async killUntil(until) {
      await Promise.all(places.map((_, place) => live(place, until)))
    },
    troubles() {
      const counts: Record<string, number> = {}
      for (const server of all)
        for (const line of server.said().split('\n')) {
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

/**
 * `npm run bench [-- --only intake,e2e,drain,latency,isolation,fairness,blocked,depth,memory,idle,start] [--contestants name,…] [--rounds 3] [--repeat 0] [--quick]`
 *
 * Runs every contestant of every bench side by side, round after round (A B C, A B C, …), and writes
 * `bench/results.json`, `bench/RESULTS.md` and `bench/results.svg`.
 */
import { availableParallelism } from 'node:os'
import { parseArgs } from 'node:util'
import {
  type Bench,
  type Figures,
  fullScale,
  measureDrain,
  measureEndToEnd,
  measureIntake,
  measureLatency,
  measureSending,
  quickScale,
} from './benches.ts'
import {
  bareHono,
  bullmq,
  type Contestant,
  graphileWorker,
  pgBoss,
  type Running,
  ringbackPostgres,
  ringbackSqlite,
  type Site,
} from './contestants.ts'
import { measureIsolation } from './isolation.ts'
import { describeMachine, readVersion } from './machine.ts'
import { type PostgresServer, startPostgres } from './postgres.ts'
import { askChild, findPlacement, launchCommanded, makeFolder, type Placement, pinProcess } from './process.ts'
import { findRedis } from './redis.ts'
import { type BenchName, benchNames, disturbance, isDisturbed, judgeBars, type Results, type Round, writeResults } from './report.ts'
import { measureBlocked, measureDepth, measureFairness } from './sharing.ts'
import { measureIdle, measureMemory, measureStart } from './standing.ts'

/** One row of a bench: its name in the results and how to measure it once. */
interface Entry {
  readonly bench: BenchName
  readonly contestant: string
  readonly missing: () => string | null
  measure(bench: Bench): Promise<Figures>
}

function enter<R extends Running>(
  bench: BenchName,
  contestant: Contestant<R>,
  measure: (bench: Bench, running: R) => Promise<Figures>,
): Entry {
  return {
    bench,
    contestant: contestant.name,
    missing: contestant.missing,
    async measure(at) {
      const running = await contestant.start(at.site, bench === 'latency' ? 'latency' : 'throughput')
      try {
        return await measure(at, running)
      } catch (error) {
        throw new Error([error instanceof Error ? error.message : error, ...complaints(running.server.logTail())].join('\n'))
      } finally {
        await running.stop()
      }
    },
  }
}

/** What a server's log says besides its ordinary lines. */
const complaints = (log: string): string[] =>
  log
    .split('\n')
    .slice(1)
    .filter((line) => line !== '' && !line.includes('"level":"info"'))
    .slice(-5)

const platforms = [ringbackSqlite, ringbackPostgres]
const peers = [bullmq, pgBoss, graphileWorker]

const entries: readonly Entry[] = [
  ...[bareHono, ...platforms, ...peers].map((one: Contestant) => enter('intake', one, measureIntake)),
  ...[...platforms, ...peers].map((one: Contestant) => enter('e2e', one, measureEndToEnd)),
  { bench: 'drain', contestant: 'bare-sending', missing: () => null, measure: measureSending },
  ...platforms.map((one) => enter('drain', one, measureDrain)),
  ...[...platforms, ...peers].map((one: Contestant) => enter('latency', one, measureLatency)),
  ...platforms.map((one) => enter('isolation', one, measureIsolation)),
  ...platforms.map((one) => enter('fairness', one, measureFairness)),
  ...platforms.map((one) => enter('blocked', one, measureBlocked)),
  ...platforms.map((one) => enter('depth', one, measureDepth)),
  ...platforms.map((one) => enter('memory', one, measureMemory)),
  ...platforms.map((one) => enter('idle', one, measureIdle)),
  ...platforms.map((one) => enter('start', one, measureStart)),
]

const titles: Readonly<Record<string, string>> = {
  'bare-sending': 'bare loop, jose + undici.request',
  ...Object.fromEntries([bareHono, ...platforms, ...peers].map(({ name, title }) => [name, title])),
}

function readVersions(postgres: string | null): Readonly<Record<string, string | null>> {
  const own = new URL('../', import.meta.url)
  const ofPeers = new URL('peers/', import.meta.url)
  const ours = ['hono', '@hono/node-server', 'jose', 'undici', 'better-sqlite3', 'pg'].map((name) => [name, readVersion(own, name)])
  const theirs = ['bullmq', 'ioredis', 'pg-boss', 'graphile-worker'].map((name) => [name, readVersion(ofPeers, name)])
  return {
    node: process.versions.node,
    ...Object.fromEntries(ours),
    PostgreSQL: postgres,
    Redis: findRedis(),
    ...Object.fromEntries(theirs),
  }
}

/** Millions of rows take minutes to make, and what stands still does not vary. */
const roundsAtMost: Readonly<Partial<Record<BenchName, number>>> = { depth: 1, memory: 1, idle: 1 }

interface Options {
  readonly only: readonly string[]
  readonly contestants: readonly string[]
  readonly rounds: number
  /** How often a round that others disturbed is measured again. */
  readonly repeats: number
  readonly quick: boolean
}

function readOptions(): Options {
  const { values } = parseArgs({
    options: {
      only: { type: 'string', default: benchNames.join(',') },
      contestants: { type: 'string', default: entries.map(({ contestant }) => contestant).join(',') },
      rounds: { type: 'string' },
      repeat: { type: 'string', default: '0' },
      quick: { type: 'boolean', default: false },
    },
  })
  const choose = (flag: string, text: string, known: readonly string[]): string[] => {
    const chosen = text.split(',')
    const unknown = chosen.find((name) => !known.includes(name))
    if (unknown !== undefined) throw new Error(`--${flag} has "${unknown}", but knows only ${[...new Set(known)].join(', ')}`)
    return chosen
  }
  const rounds = Number(values.rounds ?? (values.quick ? 1 : 3))
  if (!Number.isInteger(rounds) || rounds < 1) throw new Error(`--rounds takes a whole number from 1, not "${values.rounds}"`)
  const repeats = Number(values.repeat)
  if (!Number.isInteger(repeats) || repeats < 0) throw new Error(`--repeat takes a whole number from 0, not "${values.repeat}"`)
  const names = entries.map(({ contestant }) => contestant)
  return {
    only: choose('only', values.only, benchNames),
    contestants: choose('contestants', values.contestants, names),
    rounds,
    repeats,
    quick: values.quick,
  }
}

/** Runs `use` with a generator, a receiver of ten endpoints and a PostgreSQL that starts when it is first needed. */
async function withBench<R>(
  placement: Placement,
  quick: boolean,
  use: (bench: Bench, postgres: () => PostgresServer | null) => Promise<R>,
) {
  const folder = makeFolder()
  const file = (name: string): string => new URL(name, import.meta.url).pathname
  let postgres: PostgresServer | null = null
  const generator = launchCommanded(file('generator.ts'), placement.load, `${folder.path}/generator.log`)
  const receiver = launchCommanded(file('receiver.ts'), placement.load, `${folder.path}/receiver.log`)
  try {
    const port = await askChild<number>(receiver, undefined)
    const site: Site = {
      placement,
      receiverUrls: Array.from({ length: 10 }, (_, i) => `http://127.0.0.1:${port}/hooks/${i}`),
      postgres: async () => {
        postgres ??= await startPostgres(placement.server)
        return postgres
      },
    }
    return await use({ generator, receiver, site, scale: quick ? quickScale : fullScale }, () => postgres)
  } finally {
    await Promise.all([generator.stop(), receiver.stop()])
    await (postgres as PostgresServer | null)?.stop()
    folder.remove()
  }
}

async function runRound(entry: Entry, round: number, bench: Bench): Promise<Round> {
  const { bench: name, contestant } = entry
  const why = entry.missing()
  if (why !== null) return { bench: name, contestant, round, skipped: why }
  try {
    return { bench: name, contestant, round, figures: await entry.measure(bench) }
  } catch (error) {
    return { bench: name, contestant, round, failed: error instanceof Error ? error.message : String(error) }
  }
}

/** Measures again while others disturb, whoever the contestant is, and keeps the least disturbed; the rest stays in the results as discarded. */
async function runQuietly(entry: Entry, round: number, bench: Bench, repeats: number): Promise<Round> {
  let best = await runRound(entry, round, bench)
  const discarded: Figures[] = []
  for (let left = repeats; left > 0 && isDisturbed(best); left--) {
    const again = await runRound(entry, round, bench)
    if (again.figures === undefined) return again
    const [kept, dropped] = disturbance(again) < disturbance(best) ? [again, best] : [best, again]
    discarded.push(dropped.figures!)
    best = kept
  }
  return discarded.length === 0 ? best : { ...best, discarded }
}

function printRound({ bench, contestant, round, figures, skipped, failed }: Round): void {
  const line =
    figures === undefined
      ? (skipped ?? failed ?? '')
      : Object.entries(figures)
          .map(([name, value]) => `${name} ${value}`)
          .join('  ')
  console.log(`${bench.padEnd(8)}${contestant.padEnd(20)}round ${round}  ${line}`)
}

async function main(): Promise<void> {
  const options = readOptions()
  const placement = findPlacement(availableParallelism())
  pinProcess(process.pid, placement.load)
  const chosen = entries.filter(({ bench, contestant }) => options.only.includes(bench) && options.contestants.includes(contestant))
  const startedAt = new Date()
  const results = await withBench(placement, options.quick, async (bench, postgres): Promise<Results> => {
    const machine = describeMachine(placement)
    const rounds: Round[] = []
    for (const name of benchNames) {
      for (let round = 1; round <= Math.min(options.rounds, roundsAtMost[name] ?? options.rounds); round++) {
        for (const entry of chosen.filter((one) => one.bench === name)) {
          const result = await runQuietly(entry, round, bench, options.repeats)
          printRound(result)
          rounds.push(result)
        }
      }
    }
    const versions = readVersions(postgres()?.version ?? null)
    const command = `npm run bench${process.argv.length > 2 ? ` -- ${process.argv.slice(2).join(' ')}` : ''}`
    return {
      startedAt: startedAt.toISOString(),
      endedAt: new Date().toISOString(),
      command,
      quick: options.quick,
      machine,
      versions,
      titles,
      rounds,
    }
  })
  writeResults(results)
  for (const { what, shown, goal, met } of judgeBars(results)) console.log(`${what}: ${shown} (${goal})${met === false ? ' NOT MET' : ''}`)
  if (results.rounds.some(({ failed }) => failed !== undefined)) process.exitCode = 1
}

await main()

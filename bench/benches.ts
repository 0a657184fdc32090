/** The benches but isolation: each measures one round of one contestant. */
import { monotonicMs, sleepMs, waitUntil } from './clock.ts'
import { awaitRecorded, type Endpoint, type Running, type RunningProduct, type Site } from './contestants.ts'
import { type Commanded, coreBusyMs, cpuMs, familyCpuMs, launchCommanded, makeFolder, residentMiB } from './process.ts'
import type {
  ClosedLoad,
  KeptRequest,
  LoadReport,
  OpenLoad,
  ReceiverCommand,
  ReceiverCount,
  SendCommand,
  SendReport,
  Target,
} from './protocol.ts'
import { percentile, round } from './statistics.ts'
import { verifyRequests } from './verification.ts'

/** How much a round does. */
export interface Scale {
  /** What the measured part of an `e2e` round is meant to take; the warm-up before it says how many tasks that is. */
  readonly endToEndMs: number
  readonly drainDeliveries: number
  readonly intakeMs: number
  readonly latencyMs: number
  /** Deliveries due to one endpoint that hangs. */
  readonly mountain: number
  /** Tasks of the busy client in `fairness`. */
  readonly queued: number
  /** Tasks behind one key in `blocked`. */
  readonly blocked: number
  /** Pending tasks in other lanes in `depth`, all there are in `memory`. */
  readonly pending: number
  /** Ended tasks in `depth`. */
  readonly ended: number
  readonly idleMs: number
}
export const fullScale: Scale = {
  endToEndMs: 6_000,
  drainDeliveries: 20_000,
  intakeMs: 5_000,
  latencyMs: 10_000,
  mountain: 1_000_000,
  queued: 100_000,
  blocked: 10_000,
  pending: 1_000_000,
  ended: 5_000_000,
  idleMs: 30_000,
}
export const quickScale: Scale = {
  endToEndMs: 2_000,
  drainDeliveries: 5_000,
  intakeMs: 2_000,
  latencyMs: 4_000,
  mountain: 100_000,
  queued: 20_000,
  blocked: 10_000,
  pending: 50_000,
  ended: 100_000,
  idleMs: 10_000,
}

export const inputBytes = 200
export const latencyRatePerSecond = 500
const roundLimitMs = 20_000
const e2eConnections = 64
const intakeConnections = 128
const latencyConnections = 64
/** Where the bare loop is fastest: the limit is not to be made small. A dispatcher may have 1,000 in flight. */
const sendConcurrency = 64

/** One round's figures by name: rates a second, milliseconds, MiB, shares (0 to 1) of one core. */
export type Figures = Readonly<Record<string, number>>

export interface Bench {
  readonly generator: Commanded
  readonly receiver: Commanded
  readonly site: Site
  readonly scale: Scale
}

const targetOf = (running: Running, connections: number, firstNumber: number, delaySeconds?: number): Target => ({
  port: running.port,
  path: '/v1/tasks',
  headers: running.headers,
  connections,
  task: {
    type: 'demo.echo',
    inputBytes,
    endpointIds: running.endpoints.map(({ id }) => id),
    firstNumber,
    ...(delaySeconds === undefined ? {} : { delaySeconds }),
  },
})

const load = (bench: Bench, command: ClosedLoad | OpenLoad): Promise<LoadReport> => bench.generator.ask(command)
const tell = <R>(bench: Bench, command: ReceiverCommand): Promise<R> => bench.receiver.ask(command)

/**
 * Shares of a core used from now until what it returns is called. `foreignCpu` is what others used of the core of the
 * server under test, `foreignLoadCpu` of the other one: near 0 on a quiet machine. Where they are not, rates are too low
 * and latencies too high.
 */
export function startMeter(bench: Bench, serverPid: number, storePid: number | null): () => Figures {
  const { server: core, load: loadCore } = bench.site.placement
  const read = () => ({
    at: monotonicMs(),
    server: cpuMs(serverPid),
    store: storePid === null ? 0 : familyCpuMs(storePid),
    load: cpuMs(bench.generator.pid) + cpuMs(bench.receiver.pid),
    core: core === null ? 0 : coreBusyMs(core),
    runner: cpuMs(process.pid),
    loadCore: loadCore === null ? 0 : coreBusyMs(loadCore),
  })
  const before = read()
  return () => {
    const after = read()
    const share = (...keys: readonly Exclude<keyof typeof after, 'at'>[]): number =>
      keys.reduce((sum, key) => sum + after[key] - before[key], 0) / (after.at - before.at)
    const foreign = core === null ? 0 : Math.max(0, share('core') - share('server', 'store'))
    const foreignLoad = loadCore === null ? 0 : Math.max(0, share('loadCore') - share('load', 'runner'))
    return {
      serverCpu: hundredths(share('server')),
      storeCpu: hundredths(share('store')),
      loadCpu: hundredths(share('load')),
      foreignCpu: hundredths(foreign),
      foreignLoadCpu: hundredths(foreignLoad),
    }
  }
}

const hundredths = (share: number): number => Math.round(share * 100) / 100

/** Runs `count` tasks to their recorded webhooks and returns the rate a second at which these came. */
export async function runTasks(bench: Bench, running: Running, count: number, firstNumber: number): Promise<number> {
  await tell(bench, { command: 'reset', keepEvery: 0 })
  const report = await load(bench, { command: 'closed', target: targetOf(running, e2eConnections, firstNumber), count })
  refuseOthers(report)
  const { webhooks, lastAt } = await tell<ReceiverCount>(bench, { command: 'await', count, timeoutMs: roundLimitMs })
  if (webhooks < count) throw new Error(`only ${webhooks} of ${count} webhooks came`)
  await awaitRecorded(running)
  return (count / (lastAt - report.startedAt)) * 1e3
}

/**
 * JavaScript reaches its speed only after some ten thousand calls, so that a cold start is not what is measured:
 * a first run of 500 tasks says how many a second run of some seconds may have, and a third has as many. Returns that last run's rate.
 */
export async function warmUp(bench: Bench, running: Running): Promise<number> {
  const coldPerSecond = await runTasks(bench, running, 500, 1e9)
  const count = tasksPerRound(bench, coldPerSecond)
  await runTasks(bench, running, count, 2e9)
  return await runTasks(bench, running, count, 3e9)
}

/** As many as take the time that a round is meant to. */
export const tasksPerRound = (bench: Bench, warmPerSecond: number): number => Math.ceil((warmPerSecond * bench.scale.endToEndMs) / 1e3)

function refuseOthers(report: LoadReport): void {
  if (report.accepted < report.sent) throw new Error(`not every task was answered 202: ${JSON.stringify(report.answers)}`)
}

/** POST → durable 202; the tasks are due in an hour, so that nothing runs meanwhile. */
export async function measureIntake(bench: Bench, running: Running): Promise<Figures> {
  const target = targetOf(running, intakeConnections, 0, 3_600)
  await load(bench, { command: 'closed', target, durationMs: bench.scale.intakeMs })
  const stopMeter = startMeter(bench, running.server.pid, running.storePid)
  const report = await load(bench, { command: 'closed', target, durationMs: bench.scale.intakeMs })
  const meter = stopMeter()
  refuseOthers(report)
  const seconds = (report.endedAt - report.startedAt) / 1e3
  return { perSecond: round(report.accepted / seconds, 4), p50Ms: round(report.answerMs.p50), p99Ms: round(report.answerMs.p99), ...meter }
}

/** POST → run → signed webhook accepted and recorded, from the first POST to the last record. */
export async function measureEndToEnd(bench: Bench, running: Running): Promise<Figures> {
  const warmPerSecond = await warmUp(bench, running)
  const count = tasksPerRound(bench, warmPerSecond)
  await tell(bench, { command: 'reset', keepEvery: Math.ceil(count / 40) })
  const stopMeter = startMeter(bench, running.server.pid, running.storePid)
  const awaited = tell<ReceiverCount>(bench, { command: 'await', count, timeoutMs: roundLimitMs })
  const report = await load(bench, { command: 'closed', target: targetOf(running, e2eConnections, 0), count })
  refuseOthers(report)
  const received = await awaited
  if (received.webhooks < count) throw new Error(`only ${received.webhooks} of ${count} webhooks came in ${roundLimitMs / 1e3} s`)
  await awaitRecorded(running)
  const seconds = (monotonicMs() - report.startedAt) / 1e3
  const meter = stopMeter()
  return {
    perSecond: round(count / seconds, 4),
    receivedPerSecond: round((count / (received.lastAt - report.startedAt)) * 1e3, 4),
    acceptedPerSecond: round((count / (report.endedAt - report.startedAt)) * 1e3, 4),
    tasks: count,
    duplicates: received.requests - received.webhooks,
    verified: await verifyKept(bench, running.port, running.endpoints),
    residentMiB: round(residentMiB(running.server.pid)),
    ...meter,
  }
}

async function verifyKept(bench: Bench, port: number, endpoints: readonly Endpoint[]): Promise<number> {
  return await verifyRequests(
    `http://127.0.0.1:${port}/.well-known/jwks.json`,
    endpoints,
    await tell<KeptRequest[]>(bench, { command: 'kept' }),
  )
}

/** Deliveries queued while the endpoints were paused, from the first resume to the last record. */
export async function measureDrain(bench: Bench, running: RunningProduct): Promise<Figures> {
  const count = bench.scale.drainDeliveries
  await warmUp(bench, running)
  await running.pauseEndpoints()
  refuseOthers(await load(bench, { command: 'closed', target: targetOf(running, e2eConnections, 0), count }))
  await waitUntil('All tasks have run', async () => !(await running.hasOpenTasks()), 50, 2 * roundLimitMs)
  await tell(bench, { command: 'reset', keepEvery: Math.ceil(count / 40) })
  // Whatever the node still does after its last run (a checkpoint, a log line) is not drain.
  await sleepMs(500)
  const stopMeter = startMeter(bench, running.server.pid, running.storePid)
  const awaited = tell<ReceiverCount>(bench, { command: 'await', count, timeoutMs: roundLimitMs })
  const startedAt = monotonicMs()
  await running.resumeEndpoints()
  const received = await awaited
  if (received.webhooks < count) throw new Error(`only ${received.webhooks} of ${count} webhooks came in ${roundLimitMs / 1e3} s`)
  await awaitRecorded(running)
  const seconds = (monotonicMs() - startedAt) / 1e3
  const meter = stopMeter()
  return {
    perSecond: round(count / seconds, 4),
    receivedPerSecond: round((count / (received.lastAt - startedAt)) * 1e3, 4),
    deliveries: count,
    duplicates: received.requests - received.webhooks,
    verified: await verifyKept(bench, running.port, running.endpoints),
    ...meter,
  }
}

/** The bare loop: sign with jose and POST with `undici.request`; nothing is read or recorded. */
export async function measureSending(bench: Bench): Promise<Figures> {
  const folder = makeFolder()
  const sender = launchCommanded(new URL('limit-sending.ts', import.meta.url).pathname, bench.site.placement.server, `${folder.path}/log`)
  try {
    const { drainDeliveries: count } = bench.scale
    const command: SendCommand = { command: 'send', count, concurrency: sendConcurrency, urls: bench.site.receiverUrls }
    await tell(bench, { command: 'reset', keepEvery: 0 })
    await sender.ask<SendReport>(command)
    await tell(bench, { command: 'reset', keepEvery: 0 })
    const stopMeter = startMeter(bench, sender.pid, null)
    const report = await sender.ask<SendReport>(command)
    const meter = stopMeter()
    if (report.accepted < count) throw new Error(`only ${report.accepted} of ${count} posts were accepted`)
    return { perSecond: round((count / (report.endedAt - report.startedAt)) * 1e3, 4), deliveries: count, ...meter }
  } finally {
    await sender.stop()
    folder.remove()
  }
}

/** 500 tasks a second, due by the clock: from when a POST was due to its webhook's first byte. */
export async function measureLatency(bench: Bench, running: Running): Promise<Figures> {
  await warmUp(bench, running)
  await load(bench, {
    command: 'open',
    target: targetOf(running, latencyConnections, 1e9),
    ratePerSecond: latencyRatePerSecond,
    durationMs: 1_000,
  })
  await awaitRecorded(running)
  const stopMeter = startMeter(bench, running.server.pid, running.storePid)
  const figures = await latencyOf(bench, running)
  return { ...figures, ...stopMeter() }
}

/** One run of the open loop. */
export async function latencyOf(bench: Bench, running: Running, ratePerSecond = latencyRatePerSecond) {
  const durationMs = bench.scale.latencyMs
  const total = Math.floor((ratePerSecond * durationMs) / 1e3)
  await tell(bench, { command: 'reset', keepEvery: 1 })
  const report = await load(bench, { command: 'open', target: targetOf(running, latencyConnections, 0), ratePerSecond, durationMs })
  await tell<ReceiverCount>(bench, { command: 'await', count: total, timeoutMs: 5_000 })
  refuseOthers(report)
  // A webhook that never came is late without end: it must not make the percentiles better.
  const latencies = new Float64Array(total).fill(Number.POSITIVE_INFINITY)
  for (const { at, body } of await tell<KeptRequest[]>(bench, { command: 'kept' })) {
    const n: number = JSON.parse(body).data.input.n
    if (n < total) latencies[n] = Math.min(latencies[n]!, at - report.startedAt - (n / ratePerSecond) * 1e3)
  }
  return {
    p50Ms: round(percentile(latencies, 0.5)),
    p99Ms: round(percentile(latencies, 0.99)),
    missing: latencies.filter((late) => late === Number.POSITIVE_INFINITY).length,
    answerP50Ms: round(report.answerMs.p50),
    answerP99Ms: round(report.answerMs.p99),
    generatorLateP99Ms: round(report.lateMs.p99),
  }
}

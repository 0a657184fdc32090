/**
 * One run: nodes, their database, clients and receivers under a seed. All faults are injected first. Then they stop, and every acknowledged task
 * must end.
 */

import { createEncryptor } from '../../src/core/encryption.ts'
import type { Millis } from '../../src/core/model.ts'
import { runChecks } from '../../src/store/check/check.ts'
import type { ActiveKey } from '../../src/webhook/keys.ts'
import { createClients } from './clients.ts'
import { openShared, type Sabotage, type Weather } from './database.ts'
import { createLife, createMachine, type Machine } from './machine.ts'
import { type Boot, OVERDUE_GRACE_MS, type Setup, startBoot } from './node.ts'
import { createReceivers, type Moods } from './receivers.ts'
import { LIMITS } from './tasktypes.ts'
import { createWorkers, type Ways } from './workers.ts'
import { createWorld, Violation, type World } from './world.ts'

/** What every run shares, since making it takes time. */
export interface Ground {
  readonly empty: Buffer
  readonly key: ActiveKey
}
export interface Outcome {
  readonly seed: number
  /** Everything that happened, a line each. */
  readonly trace: readonly string[]
  /** The sentence that did not hold; null: all of them did. */
  readonly violation: string | null
  readonly tasks: number
  readonly webhooks: number
  readonly deaths: number
  readonly virtualMs: Millis
  /** How often which call of a worker was answered with which status: `complete 409`. */
  readonly answered: ReadonlyMap<string, number>
}

const CALM: Weather = { storeMs: 2, refuses: 0, losesAnswers: 0, lags: 0, lagMs: 0, losesWords: 0 }
const SURE: Ways = { losesRequests: 0, losesAnswers: 0, repeats: 0, forgets: 0 }
const KIND: Moods = { fails: 0, refuses: 0, isSlow: 0, losesAnswers: 0, throttles: 0 }
/** In which everything has to end once nothing fails any more. */
const DRAIN_MS: Millis = 1_800_000
/** A sweep of the janitor is late by its spread, and a commit takes its time. */
const SLACK_MS: Millis = 8_000

interface Node {
  readonly name: string
  readonly machine: Machine
  boot: Boot | null
  boots: number
}

export async function simulate(seed: number, { empty, key }: Ground, sabotage: Sabotage | null = null): Promise<Outcome> {
  const world = createWorld(seed)
  const { chance, between, whole, pick } = world
  const rare = (most: number): number => (chance(0.5) ? between(0, most) : 0)
  // One seed in six sees no process die and no request lost: then nothing may come twice.
  const isQuiet = chance(1 / 6)
  const nodeCount = pick([1, 2, 2, 3, 3, 4])
  const faultMs = between(40_000, 90_000)
  const leaseMs = pick([6_000, 6_000, 6_000, 30_000])
  const keeps = chance(0.7)
  const stormy: Weather = isQuiet
    ? { ...CALM, storeMs: between(1, 60), losesWords: rare(0.5) }
    : {
        storeMs: between(1, pick([10, 60, 400])),
        refuses: rare(0.1),
        losesAnswers: rare(0.08),
        // Where one node owns its store, there is no way between them on which anything could lag.
        lags: nodeCount === 1 ? 0 : rare(0.05),
        lagMs: 2 * leaseMs,
        losesWords: chance(0.2) ? 1 : rare(0.5),
      }
  const moods: Moods = isQuiet
    ? KIND
    : { fails: rare(0.3), refuses: rare(0.2), isSlow: chance(0.5) ? between(0.2, 0.8) : 0, losesAnswers: rare(0.15), throttles: rare(0.1) }

  const ways: Ways = isQuiet ? SURE : { losesRequests: rare(0.1), losesAnswers: rare(0.15), repeats: rare(0.3), forgets: rare(0.2) }

  let faults = true
  let deaths = 0
  const machineOf = (skewMs: Millis): Machine => createMachine(world, skewMs)
  const nodes: Node[] = Array.from({ length: nodeCount }, (_, i) => ({
    name: `node-${i + 1}`,
    machine: machineOf(between(-3_000, 3_000)),
    boot: null,
    boots: 0,
  }))
  // Where one node owns the store, the clock of the store is the node's own.
  const alone = nodeCount === 1
  const databaseMachine = alone ? nodes[0]!.machine : machineOf(between(-500, 500))
  const databaseLife = createLife(world, databaseMachine)
  const databaseNow = (): Millis => (alone && nodes[0]!.boot ? nodes[0]!.boot.life.clock.now() : databaseLife.clock.now())

  const shared = openShared(empty, world, databaseNow, LIMITS, sabotage)
  const { auditor } = shared
  const receivers = createReceivers(
    world,
    auditor,
    () => (faults ? moods : KIND),
    (arrival) => clients.arrived(arrival),
  )
  const clientLife = createLife(world, machineOf(0))
  const setup: Setup = {
    world,
    shared,
    leaseMs,
    concurrency: whole(1, 6),
    dispatchConcurrency: whole(1, 8),
    keepMs: keeps ? 7 * 86_400_000 : 60_000,
    holdMs: 3 * 3_600_000,
    encryptor: createEncryptor({ masterKey: Buffer.alloc(32, 7).toString('base64'), clock: clientLife.clock }),
    key,
    alone,
    weather: () => (faults ? stormy : CALM),
    transport: (life) => receivers.transport(life),
    sabotage,
  }
  const start = (node: Node): void => {
    node.boots++
    const name = `${node.name}#${node.boots}`
    world.note(name, 'starts')
    node.boot = startBoot(setup, node.machine, name)
  }
  const someBoot = (): Boot | null => {
    const up = nodes.flatMap(({ boot }) => (boot?.life.alive ? boot : []))
    return up.length === 0 ? null : pick(up)
  }
  const workers = createWorkers({
    world,
    auditor,
    leaseMs,
    now: databaseNow,
    ways: () => (faults ? ways : SURE),
    someBoot,
    sabotage,
  })
  const clients = createClients({
    world,
    setup: () => setup,
    auditor,
    life: clientLife,
    receivers,
    someBoot,
    moody: !isQuiet,
    keeps,
  })
  const startAgain = (node: Node): void => void world.after(between(100, 15_000), null, () => start(node))
  const kill = (node: Node): void => {
    if (!node.boot?.life.alive) return
    deaths++
    world.note(node.boot.name, 'is killed')
    node.boot.life.alive = false
    startAgain(node)
  }
  const trouble = (node: Node): void => {
    if (!faults) return
    const { boot } = node
    const whim = world.random()
    if (!boot?.life.alive) {
      // It comes back by itself.
    } else if (whim < 0.3) kill(node)
    else if (whim < 0.36) for (const each of nodes) kill(each)
    else if (whim < 0.46) {
      world.note(boot.name, 'shuts down')
      void boot.stop().then(() => startAgain(node))
    } else if (whim < 0.88) {
      const ms = chance(0.3) ? between(100, leaseMs) : between(leaseMs, 3 * leaseMs)
      if (boot.life.stalledUntil <= world.now()) {
        world.note(boot.name, `stands still for ${Math.round(ms)} ms`)
        boot.life.stall(ms, chance(0.5))
      }
    } else {
      // Set back by an hour and started anew, a node that owns its store would wait an hour for what was due: as it should.
      const ms = pick([alone ? -5_000 : -3_600_000, -5_000, 5_000, 3_600_000])
      world.note(node.name, `sets its clock by ${ms} ms`)
      node.machine.step(ms)
    }
    world.after(between(2_000, 30_000), null, () => trouble(node))
  }

  /** Between any two commits, in the middle of everything, the whole store is sound. What was planted is to be found by the sentences above. */
  const holdsNow = async (): Promise<void> => {
    if (sabotage) return
    const { violations } = await runChecks(shared, { leaseGraceMs: Infinity, retentionMs: setup.keepMs, limit: 3 })
    for (const { sentence } of violations.first) world.violated(`an audit finds: ${sentence}`)
  }

  let violation: string | null = null
  try {
    for (const node of nodes) start(node)
    let opened = false
    faults = false
    void Promise.all([clients.open(), workers.open(nodes[0]!.boot!.store)]).then(() => {
      opened = true
    })
    await world.pass(60_000, () => opened)
    workers.start()

    faults = true
    clients.load(whole(20, 45), faultMs)
    if (!isQuiet) {
      for (const node of nodes) world.after(between(1_000, 20_000), null, () => trouble(node))
      workers.trouble(() => faults)
    }
    for (let i = 0; i < 4; i++) {
      await world.pass(faultMs / 4)
      await holdsNow()
    }

    faults = false
    world.note('world', 'nothing fails any more')
    const up = (): boolean => nodes.every(({ boot }) => boot?.life.alive && boot.life.stalledUntil <= world.now()) && workers.up()
    await world.pass(120_000, up)
    // What was begun before has been found lost by then.
    await world.pass(2 * leaseMs + 10_000)
    clients.resume()
    auditor.calm()
    const calmAt = world.now()
    clients.load(8, 10_000)
    await world.pass(12_000)
    const drained = (): boolean => clients.busy === 0 && auditor.open().tasks === 0 && auditor.open().deliveries === 0
    await world.pass(DRAIN_MS, drained)
    if (!drained()) world.violated(`after ${DRAIN_MS / 60_000} quiet minutes there are still open: ${openWork(auditor).join(', ')}`)
    // Every pump has looked once more, and found nothing.
    await world.pass(40_000)
    // While a claim asks, the slots it asks for are lent.
    const isFree = (): boolean =>
      nodes.every(({ boot }) => {
        const { tasks, deliveries } = boot!.freeSlots()
        return tasks === setup.concurrency && deliveries === setup.dispatchConcurrency
      })
    await world.pass(5_000, isFree)
    if (!isFree()) world.violated('slots of a node that has nothing to do are taken')
    judge(world, setup, clients.acknowledged, calmAt)
    await holdsNow()
    if (isQuiet)
      for (const { event_id, endpoint_id } of auditor.deliveries.values())
        if (receivers.taken(event_id, endpoint_id) > 1) world.violated(`${auditor.name(event_id)} came twice although nothing failed`)
    await world.pass(1)
  } catch (error) {
    if (!(error instanceof Violation)) throw error
    violation = error.message
  } finally {
    for (const { boot } of nodes) if (boot) boot.life.alive = false
    shared.close()
  }
  return {
    seed,
    trace: world.trace,
    violation,
    tasks: auditor.tasks.size,
    webhooks: receivers.arrivals,
    deaths,
    virtualMs: world.now(),
    answered: workers.answered,
  }
}

const openWork = ({ tasks, deliveries, name }: Setup['shared']['auditor']): readonly string[] =>
  [...tasks.values(), ...deliveries.values()]
    .filter(({ state }) => state === 'pending' || state === 'running')
    .map(({ id, state, tries }) => `${name(id)} (${state}, try ${tries})`)

/** What must hold when everything has ended. */
function judge(world: World, { shared }: Setup, acknowledged: ReadonlySet<string>, calmAt: Millis): void {
  const { auditor } = shared
  const must = (holds: boolean, sentence: string): void => {
    if (!holds) world.violated(sentence)
  }
  for (const id of acknowledged) must(auditor.tasks.has(id), `${auditor.name(id)} was acknowledged and never written`)
  must(auditor.tasks.size === acknowledged.size, `${acknowledged.size} tasks were acknowledged, and ${auditor.tasks.size} written`)
  for (const { id, generation } of auditor.tasks.values())
    for (let g = 1; g <= generation; g++)
      must(auditor.ends.has(`${id} ${g}`), `generation ${g} of ${auditor.name(id)} has no terminal event`)
  for (const { id, state, tries, max_tries, canceled_reason } of auditor.deliveries.values()) {
    must(state !== 'failed' || tries === max_tries, `${auditor.name(id)} failed after ${tries} of ${max_tries} tries`)
    must(state !== 'canceled' || canceled_reason !== null, `${auditor.name(id)} was canceled for no reason`)
  }
  for (const { id, askedAt, tookMs } of auditor.cancels)
    must(askedAt < calmAt || tookMs <= OVERDUE_GRACE_MS + SLACK_MS, `the cancel of ${auditor.name(id)} took ${tookMs} ms`)
  const count = (text: string): number => shared.sql<{ n: number }>(`select count(*) as n from ${text}`)[0]!.n
  must(count('turns where turn is not null') === 0, 'turns are left of lanes that have nothing to do')
  for (const table of ['tasks', 'deliveries'])
    must(count(`${table} where leased_by is not null or leased_until is not null`) === 0, `ended ${table} are still leased`)
  must(
    count(
      `lanes l where filled = 1 and not exists (select 1 from tasks where lane_id = l.id and state = 'running')
        and not exists (select 1 from deliveries where lane_id = l.id and state = 'running')`,
    ) === 0,
    'a lane counts as full in which nothing runs',
  )
}

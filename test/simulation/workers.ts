/**
 * HTTP workers: separate processes that claim, renew leases, report progress and settle each try, over a network that loses and repeats
 * messages. They call the product's own routes, and every response is checked.
 */
import { generateApiKey } from '../../src/core/api-key.ts'
import { newId } from '../../src/core/id.ts'
import type { Millis } from '../../src/core/model.ts'
import type { LeaseEnd, LeaseRef, Store } from '../../src/store/interfaces.ts'
import type { Auditor } from './auditor.ts'
import type { Sabotage } from './database.ts'
import { createLife, createMachine, type Life, type Machine } from './machine.ts'
import { type Boot, PUBLIC_URL } from './node.ts'
import { nap, type Plan, PULLED } from './tasktypes.ts'
import type { World } from './world.ts'

/** How the network and the programs of workers fare. */
export interface Ways {
  readonly losesRequests: number
  /** An answer is lost; half of them so that the node notices that its caller is gone. */
  readonly losesAnswers: number
  /** The end of a try is sent twice. */
  readonly repeats: number
  /** A try during which no heartbeat is sent. */
  readonly forgets: number
}

export interface Workers {
  /** Makes their keys. */
  open(store: Store): Promise<void>
  /** Begins to claim. */
  start(): void
  /** From now on they die, stand still, are stopped and started anew now and then, for as long as `faults` says. */
  trouble(faults: () => boolean): void
  /** Whether all of them live. */
  up(): boolean
  /** How often which call was answered with which status: `complete 409`. */
  readonly answered: ReadonlyMap<string, number>
}

export interface WorkerOptions {
  readonly world: World
  readonly auditor: Auditor
  readonly leaseMs: Millis
  /** By the clock of the database. */
  readonly now: () => Millis
  readonly ways: () => Ways
  /** Some process that is up; it may stand still. Null: there is none. */
  readonly someBoot: () => Boot | null
  readonly sabotage: Sabotage | null
}

/** A task as a claim gives it. */
interface Claimed {
  readonly id: string
  readonly type: string
  readonly fence: number
  readonly generation: number
  readonly try: number
  readonly lease: { readonly token: string; readonly seconds: number }
  readonly input: Plan
}
interface Lease extends LeaseRef {
  readonly token: string
}
interface Answer {
  readonly status: number
  // biome-ignore lint/suspicious/noExplicitAny: answers of every shape
  readonly json: any
}
interface Worker {
  readonly name: string
  readonly machine: Machine
  readonly types: readonly string[]
  readonly slots: number
  readonly waitSeconds: number
  key: string
  process: Process | null
  starts: number
}
/** A worker from its start to its end. */
interface Process {
  readonly name: string
  readonly life: Life
  readonly key: string
  /** What it asked and has no answer to. */
  readonly asking: Set<() => void>
  readonly held: Set<{ readonly stop: AbortController; readonly ended: Promise<void> }>
  stopping: boolean
}

const ANSWER_WITHIN_MS: Millis = 5_000
const AGAIN_MS: Millis = 700
/** How long a node knows how a lease was ended. */
const REMEMBERED_MS: Millis = 3_600_000
const wayMs = (world: World): Millis => world.between(1, 40)

export function createWorkers(options: WorkerOptions): Workers {
  const { world, auditor, leaseMs, now, ways, someBoot, sabotage } = options
  const answered = new Map<string, number>()
  /** The newest lease token of each task. */
  const newest = new Map<string, string>()
  /** How a lease was ended, as a node answered, and when by the clock of the database. */
  const ends = new Map<string, { readonly as: LeaseEnd; readonly at: Millis }>()
  /** What has arrived at a node: a lease and the verb it was presented with; and whether it first did within the try's own time. */
  const arrived = new Map<string, { readonly late: boolean }>()
  const workers = Array.from({ length: world.whole(1, 3) }, (_, i): Worker => {
    const types = i === 0 ? PULLED : world.pick([PULLED, PULLED.slice(0, 1), PULLED.slice(1)])
    return {
      name: `worker-${i + 1}`,
      machine: createMachine(world, world.between(-3_000, 3_000)),
      types,
      slots: world.whole(1, 4),
      waitSeconds: world.pick([0, 10, 10, 10]),
      key: '',
      process: null,
      starts: 0,
    }
  })
  const must = (holds: boolean, sentence: () => string): void => {
    if (!holds) world.violated(sentence())
  }

  /** What a node answered to a lease, held against the rows as they were when the request reached it. */
  const judge = (lease: Lease, verb: LeaseEnd | 'heartbeat', then: ReturnType<typeof look>, answer: Answer): void => {
    const { status, json } = answer
    const it = `the ${verb} of ${auditor.name(lease.id)} under fence ${lease.fence}`
    if (status === 404 || status === 410) return
    if (status === 409) {
      must(!then.taken, () => `${it} had been taken, and was refused when it was said again`)
      must(!auditor.holds(lease), () => `${it} was refused, and its lease holds`)
      return
    }
    must(status === 200, () => `${it} was answered ${status}: ${JSON.stringify(json)}`)
    // Said again: it may be answered as what was said in time, which a node that stalled takes no sooner.
    must(!(then.held && then.late && then.said?.late !== false), () => `${it} was taken after the try’s own time`)
    if (verb === 'heartbeat') {
      must(then.held, () => `${it} kept a lease that was lost`)
      return
    }
    must(then.held || then.said !== undefined, () => `${it} was taken, and its lease was lost`)
    must(!auditor.holds(lease), () => `${it} was taken, and the try goes on`)
    const before = ends.get(lease.token)
    must(before === undefined || before.as === verb, () => `${it} was taken after a ${before?.as}`)
    if (!before) ends.set(lease.token, { as: verb, at: now() })
    const task = auditor.tasks.get(lease.id)
    if (verb === 'complete')
      must(
        json.status === 'completed' && JSON.parse(task?.result ?? '{}').fence === lease.fence,
        () => `${it} was taken, and the result is ${task?.result}`,
      )
  }
  const look = (lease: Lease, verb: string) => ({
    held: auditor.holds(lease),
    late: auditor.isLate(lease.id, now()),
    said: arrived.get(`${lease.token} ${verb}`),
    taken: ends.get(lease.token)?.as === verb && now() - ends.get(lease.token)!.at < REMEMBERED_MS,
  })

  /** Null: no answer came in time. */
  const post = (from: Process, path: string, body: object, withinMs: Millis, lease: Lease | null): Promise<Answer | null> =>
    new Promise((resolve) => {
      const { life } = from
      const verb = path.slice(path.lastIndexOf('/') + 1) as LeaseEnd | 'heartbeat'
      const hangUp = new AbortController()
      const boot = someBoot()
      let over = false
      const end = (answer: Answer | null): void => {
        over = true
        from.asking.delete(gone)
        resolve(answer)
      }
      /** The node notices, sooner or later, that nobody waits for its answer any more. */
      const gone = (): void => {
        if (boot) world.after(wayMs(world), boot.life, () => hangUp.abort())
      }
      from.asking.add(gone)
      world.after(withinMs, life, () => {
        if (over) return
        gone()
        end(null)
      })
      if (!boot || world.chance(ways().losesRequests)) return
      world.after(wayMs(world), boot.life, () => {
        if (!boot.serves()) return void world.after(wayMs(world), life, () => end(null))
        const sent = lease && sabotage?.lease ? { ...body, lease: sabotage.lease(lease.token, newest.get(lease.id)!) } : body
        const then = lease && look(lease, verb)
        if (lease && then && !then.said) arrived.set(`${lease.token} ${verb}`, then)
        ask(boot, from.key, path, sent, hangUp.signal).then((answer) => {
          const what = `${verb} ${answer.status}`
          answered.set(what, (answered.get(what) ?? 0) + 1)
          if (answer.status >= 500) must(answer.status === 503, () => `${path} was answered ${answer.status}`)
          else if (lease) judge(lease, verb, then!, answer)
          else must(answer.status === 200, () => `a claim was answered ${answer.status}: ${JSON.stringify(answer.json)}`)
          if (verb === ('claim' as string) && answer.status === 200)
            for (const task of answer.json.tasks as Claimed[]) newest.set(task.id, task.lease.token)
          if (world.chance(ways().losesAnswers)) {
            world.note(boot.name, `is not heard: ${path}`)
            return world.chance(0.5) ? gone() : undefined
          }
          world.after(wayMs(world), null, () => {
            if (over || !life.alive) gone()
            else {
              from.asking.delete(gone)
              world.after(0, life, () => !over && end(answer))
            }
          })
        })
      })
    })

  /** Repeats it until somebody answers it for good. */
  const say = async (from: Process, lease: Lease, verb: LeaseEnd, body: object): Promise<void> => {
    const once = () => post(from, `/v1/worker/tasks/${lease.id}/${verb}`, { lease: lease.token, ...body }, ANSWER_WITHIN_MS, lease)
    if (world.chance(ways().repeats)) world.after(world.between(0, 3_000), from.life, () => void once())
    for (;;) {
      const answer = await once()
      if (answer && answer.status < 500) return
      await nap(from.life.clock, AGAIN_MS, null)
    }
  }

  const work = async (from: Process, task: Claimed, stop: AbortSignal): Promise<void> => {
    const { clock } = from.life
    const lease: Lease = { id: task.id, fence: task.fence, token: task.lease.token }
    auditor.started(from.name, task)
    const plan = task.input
    /** Fires when the run should end: its lease is lost, its client has canceled it, the worker stops. */
    const cut = new AbortController()
    let lost = false
    let over = false
    stop.addEventListener('abort', () => cut.abort(), { once: true })
    const beat = async (progress: object): Promise<void> => {
      const path = `/v1/worker/tasks/${lease.id}/heartbeat`
      const answer = await post(from, path, { lease: lease.token, ...progress }, ANSWER_WITHIN_MS, lease)
      if (!answer || answer.status >= 500) return
      lost ||= answer.status !== 200
      if (lost || answer.json.cancelRequested) cut.abort()
    }
    const keep = (): void =>
      void clock.after((task.lease.seconds * 1000) / 3, () => {
        if (over || lost) return
        void beat({})
        keep()
      })
    if (!world.chance(ways().forgets)) keep()
    try {
      for (let step = 1; step <= plan.reports + 1; step++) {
        if (await nap(clock, plan.ms / (plan.reports + 1), plan.signal === 'ignores' ? null : cut.signal)) break
        if (step <= plan.reports) void beat({ progress: (100 * step) / (plan.reports + 1) })
      }
      if (from.stopping) return await say(from, lease, 'release', {})
      // Who heeds its signal leaves what it has lost; others try nevertheless.
      if (lost && plan.signal === 'heeds') return
      const ending = cut.signal.aborted && plan.signal === 'heeds' ? 'throws' : plan.endings[Math.min(task.try, plan.endings.length) - 1]!
      if (ending === 'throws') await say(from, lease, 'fail', { error: { message: `failed under fence ${task.fence}` } })
      else if (ending === 'refuses')
        await say(from, lease, 'fail', { error: { message: `refused under fence ${task.fence}` }, retryable: false })
      else if (ending === 'postpones' && world.chance(0.7)) await say(from, lease, 'release', { delaySeconds: 3 })
      else await say(from, lease, 'complete', { result: { fence: task.fence, try: task.try } })
    } finally {
      over = true
    }
  }

  const run = async (worker: Worker, from: Process): Promise<void> => {
    const { clock } = from.life
    while (!from.stopping) {
      const limit = worker.slots - from.held.size
      if (limit === 0) {
        await Promise.race([...from.held].map(({ ended }) => ended))
        continue
      }
      const { types, waitSeconds } = worker
      const answer = await post(from, '/v1/worker/claim', { types, limit, waitSeconds }, waitSeconds * 1000 + ANSWER_WITHIN_MS, null)
      const tasks = answer?.status === 200 ? (answer.json.tasks as Claimed[]) : []
      must(tasks.length <= limit, () => `${worker.name} asked for ${limit} tasks and got ${tasks.length}`)
      for (const task of tasks) {
        must(types.includes(task.type), () => `${worker.name} got ${auditor.name(task.id)} of type ${task.type}, for which it never asked`)
        const stop = new AbortController()
        const held = { stop, ended: work(from, task, stop.signal).finally(() => from.held.delete(held)) }
        held.ended.catch((error) => world.violated(`${from.name} met ${(error as Error).stack}`))
        from.held.add(held)
        if (from.stopping) stop.abort()
      }
      if (tasks.length === 0) await nap(clock, answer?.status === 200 && waitSeconds > 0 ? 50 : 3_000, null)
    }
  }
  const start = (worker: Worker): void => {
    worker.starts++
    const { machine, key } = worker
    const name = `${worker.name}#${worker.starts}`
    const from: Process = { name, life: createLife(world, machine), key, asking: new Set(), held: new Set(), stopping: false }
    worker.process = from
    world.note(name, 'starts')
    void run(worker, from)
  }
  const startAgain = (worker: Worker): void => void world.after(world.between(100, 15_000), null, () => start(worker))
  const end = (worker: Worker): void => {
    const { life, asking } = worker.process!
    life.alive = false
    for (const gone of asking) gone()
    startAgain(worker)
  }
  const trouble = (worker: Worker, faults: () => boolean): void => {
    if (!faults()) return
    const from = worker.process!
    const whim = world.random()
    if (!from.life.alive || from.stopping) {
      // It comes back by itself.
    } else if (whim < 0.3) {
      world.note(from.name, 'is killed')
      end(worker)
    } else if (whim < 0.45) {
      world.note(from.name, 'is stopped')
      from.stopping = true
      for (const { stop } of from.held) stop.abort()
      void Promise.all([...from.held].map(({ ended }) => ended)).then(() => from.life.alive && end(worker))
    } else if (whim < 0.85) {
      const ms = world.chance(0.3) ? world.between(100, leaseMs) : world.between(leaseMs, 3 * leaseMs)
      world.note(from.name, `stands still for ${Math.round(ms)} ms`)
      from.life.stall(ms, world.chance(0.5))
    } else worker.machine.step(world.pick([-3_600_000, -5_000, 5_000, 3_600_000]))
    world.after(world.between(4_000, 30_000), null, () => trouble(worker, faults))
  }

  return {
    answered,
    async open(store) {
      for (const worker of workers) {
        const { clock } = createLife(world, worker.machine)
        const { key, hash, hint } = generateApiKey(clock)
        worker.key = key
        const made = { id: newId(clock, 'key'), clientId: null, name: worker.name, hash, hint, scopes: '["worker"]', expiresAt: null }
        const taskTypes = world.chance(0.5) ? JSON.stringify(worker.types) : null
        await store.access.addKey({ key: { ...made, taskTypes }, max: 1 })
      }
    },
    start() {
      for (const worker of workers) start(worker)
    },
    trouble(faults) {
      for (const worker of workers) world.after(world.between(1_000, 20_000), null, () => trouble(worker, faults))
    },
    up: () => workers.every(({ process }) => process?.life.alive && !process.stopping && process.life.stalledUntil <= world.now()),
  }
}

/** One request, through the routes of a node. */
async function ask({ fetch }: Boot, key: string, path: string, body: object, signal: AbortSignal): Promise<Answer> {
  const text = JSON.stringify(body)
  const headers = { authorization: `Bearer ${key}`, 'content-type': 'application/json', 'content-length': String(text.length) }
  const request = new Request(`${PUBLIC_URL}${path}`, { method: 'POST', headers, body: text })
  // Given as a member, a signal is followed until the Request is collected: nothing here may depend on when that is.
  Object.defineProperty(request, 'signal', { value: signal })
  const response = await fetch(request)
  return { status: response.status, json: await response.json() }
}

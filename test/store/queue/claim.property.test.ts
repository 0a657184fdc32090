/** Any sequence of what clients, nodes and receivers may do: nothing is lost, no limit is exceeded, no fence falls, one end each. */

import { expect, test } from 'vitest'
import { SlotShares } from '../../../src/core/fair-share.ts'
import { decideOutcome } from '../../../src/core/lifecycle.ts'
import type { Task } from '../../../src/core/model.ts'
import type { OwedDelivery } from '../../../src/store/interfaces.ts'
import { fc } from '../../support/chance.ts'
import { type Ground, openGround } from '../../support/stores.ts'
import {
  addClient,
  addEndpoint,
  claim,
  completed,
  delivered,
  failed,
  idOf,
  newTask,
  released,
  retried,
  undeliverable,
  undelivered,
} from '../../support/work.ts'

const TYPES = [
  { type: 'plain.task', concurrency: null },
  { type: 'scarce.task', concurrency: 2 },
] as const
const CAP = 2
const LEASE_MS = 10_000
/** Slots for deliveries: few enough that clients and endpoints are refused. */
const SLOTS = 5

const nat = (max: number) => fc.nat({ max })
const action = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant('add' as const),
      client: nat(1),
      type: nat(1),
      key: fc.boolean(),
      delayed: fc.boolean(),
      priority: nat(3),
      maxTries: fc.integer({ min: 1, max: 3 }),
      startBy: fc.boolean(),
      count: fc.integer({ min: 1, max: 6 }),
    }),
  },
  { weight: 5, arbitrary: fc.record({ kind: fc.constant('claim' as const), limit: fc.integer({ min: 1, max: 5 }) }) },
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant('settle' as const),
      which: nat(50),
      how: fc.constantFrom(0, 0, 0, 1, 2, 3),
      stale: fc.nat({ max: 5 }).map((n) => n === 0),
    }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('cancel' as const), which: nat(50) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('redo' as const), which: nat(50) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('erase' as const), which: nat(50) }) },
  { weight: 5, arbitrary: fc.record({ kind: fc.constant('send' as const), limit: fc.integer({ min: 1, max: 5 }) }) },
  { weight: 6, arbitrary: fc.record({ kind: fc.constant('answer' as const), which: nat(50), how: nat(4) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('hold' as const), endpoint: nat(2), on: fc.boolean() }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('redeliver' as const), which: nat(50) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('pass' as const), ms: fc.constantFrom(1, 50, 1_000, 6_000, 11_000) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('sweep' as const) }) },
)
type Action = typeof action extends fc.Arbitrary<infer A> ? A : never

/** One world: two clients, three endpoints, and what its nodes hold. */
async function world(ground: Ground) {
  const { store, sql, pass } = ground
  const clients = [await addClient(store), await addClient(store)]
  const endpoints = [
    { id: await addEndpoint(store, { clientId: clients[0]!, maxInFlight: CAP }), clientId: clients[0]! },
    { id: await addEndpoint(store, { clientId: clients[0]!, maxInFlight: CAP, maxPerMinute: 600 }), clientId: clients[0]! },
    {
      id: await addEndpoint(store, { clientId: clients[1]!, maxInFlight: CAP, events: '["task.created","task.completed","task.failed"]' }),
      clientId: clients[1]!,
    },
  ]
  const held: Task[] = []
  const sending: OwedDelivery[] = []
  const slots = new SlotShares()
  const allot = () => slots.allot(SLOTS - sending.length)
  const made: string[] = []
  const erased = new Set<string>()
  const deliveries = async () => sql<{ id: string }>('select id from deliveries order by id')
  const pick = <T>(list: readonly T[], which: number): T | undefined => list[which % Math.max(1, list.length)]
  const settlements = [completed, failed, released, (task: Task) => retried(task, 500)] as const
  const answers = [
    delivered,
    undeliverable,
    (owed: OwedDelivery) => undelivered(owed, 500),
    (owed: OwedDelivery) => undelivered(owed, 500, { holdMs: 3_000 }),
    (owed: OwedDelivery) => ({ ...undelivered(owed), outcome: { kind: 'release', delayMs: 0 } as const, attempt: null }),
  ] as const

  const sweep = async (): Promise<void> => {
    await store.maintenance.endOverdue({ limit: 100, graceMs: 5_000 })
    const clock = { now: () => 0, random: () => 0 }
    const ended = { kind: 'threw', error: { code: 'worker_lost', message: 'lost', details: null } } as const
    for (const task of (await store.maintenance.findExpired(100, null)).tasks)
      await store.tasks.settle({
        id: task.id,
        fence: task.fence,
        outcome: decideOutcome({ ...task, deadlineAt: null }, ended, () => 0, clock),
      })
    for (const delivery of (await store.maintenance.findExpired(100, null)).deliveries) {
      const outcome = decideOutcome(delivery, ended, () => 0, clock)
      await store.deliveries.settle({ ...undelivered(delivery), outcome, attempt: null })
    }
  }
  const carryOut: { [K in Action['kind']]: (action: Extract<Action, { kind: K }>) => Promise<unknown> } = {
    async add({ client, type, key, delayed, priority, maxTries, startBy, count }) {
      const now = await store.now()
      const tasks = Array.from({ length: count }, () =>
        newTask({
          clientId: clients[client]!,
          type: TYPES[type]!.type,
          concurrencyKey: key ? 'a' : null,
          dueAt: delayed ? now + 2_000 : null,
          startBy: startBy ? now + 8_000 : null,
          priority,
          maxTries,
        }),
      )
      made.push(...tasks.map(({ id }) => id))
      await store.tasks.add({ tasks, idempotency: null })
    },
    async claim({ limit }) {
      const { items } = await store.tasks.claim({ limit, leaseMs: LEASE_MS, leasedBy: 'boot_a', types: TYPES })
      expect(items.length).toBeLessThanOrEqual(limit)
      held.push(...items)
    },
    async settle({ which, how, stale }) {
      const task = pick(held, which)
      if (!task) return
      if (stale) {
        const before = await sql(`select * from tasks where id = '${task.id}'`)
        const answer = await store.tasks.settle({ ...settlements[how]!(task), fence: task.fence - 1 })
        expect(answer.kind).toBe('stale')
        expect(await sql(`select * from tasks where id = '${task.id}'`)).toEqual(before)
      } else {
        const outcome = how === 3 && task.tries >= task.maxTries ? failed(task) : settlements[how]!(task)
        held.splice(held.indexOf(task), 1)
        await store.tasks.settle(outcome)
      }
    },
    cancel: async ({ which }) => made.length > 0 && store.tasks.cancel({ id: pick(made, which)!, clientId: null }),
    redo: async ({ which }) => made.length > 0 && store.tasks.redo({ id: pick(made, which)!, clientId: null }),
    async erase({ which }) {
      const id = pick(made, which)
      if (id && (await store.tasks.erase({ id, clientId: null })).kind === 'changed') erased.add(id)
    },
    async send({ limit }) {
      const free = Math.min(limit, SLOTS - sending.length)
      if (free === 0) return
      const { items } = await store.deliveries.claim(claim({ limit: free, leaseMs: LEASE_MS, allot }))
      expect(items.length).toBeLessThanOrEqual(free)
      sending.push(...items)
      for (const item of items) slots.acquire(item)
    },
    async answer({ which, how }) {
      const owed = pick(sending, which)
      if (!owed) return
      sending.splice(sending.indexOf(owed), 1)
      slots.release(owed)
      const last = (how === 2 || how === 3) && owed.tries >= owed.maxTries
      await store.deliveries.settle(last ? undeliverable(owed) : answers[how]!(owed))
    },
    async hold({ endpoint, on }) {
      const { id } = endpoints[endpoint]!
      await store.endpoints.change({ id, clientId: null, patch: { paused: on }, revision: null })
    },
    async redeliver({ which }) {
      const delivery = pick(await deliveries(), which)
      if (delivery) await store.deliveries.redeliver({ id: delivery.id, newId: idOf('delivery'), clientId: null })
    },
    pass: ({ ms }) => pass(ms),
    sweep,
  }

  const fences = new Map<string, number>()
  const count = async (text: string): Promise<number> => (await sql<{ n: number }>(text))[0]!.n
  const check = async (): Promise<void> => {
    expect(
      await count(
        `select coalesce(max(c), 0) as n from (select count(*) as c from tasks where state = 'running' and concurrency_key is not null group by lane_id) k`,
      ),
    ).toBeLessThanOrEqual(1)
    expect(await count(`select count(*) as n from tasks where state = 'running' and type = 'scarce.task'`)).toBeLessThanOrEqual(2)
    expect(
      await count(`select coalesce(max(c), 0) as n from (select count(*) as c from deliveries where state = 'running' group by lane_id) k`),
    ).toBeLessThanOrEqual(CAP)
    expect(
      await count(`select count(*) as n from tasks where state in ('pending', 'running') and (tries < 0 or tries > max_tries)`),
      'tries within their budget',
    ).toBe(0)
    for (const { id, fence } of await sql<{ id: string; fence: number }>(
      'select id, fence from tasks union all select id, fence from deliveries',
    )) {
      expect(fence, 'a fence never falls').toBeGreaterThanOrEqual(fences.get(id) ?? 0)
      fences.set(id, fence)
    }
  }

  /** All that waits, to its end; without a sweep of lanes, so that a lost turn is found out. */
  const drain = async (): Promise<void> => {
    for (const { id } of endpoints) await store.endpoints.change({ id, clientId: null, patch: { paused: false }, revision: null })
    await Promise.all(held.splice(0).map((task) => store.tasks.settle(completed(task))))
    await Promise.all(sending.splice(0).map((owed) => store.deliveries.settle(delivered(owed))))
    const open = () =>
      count(
        `select (select count(*) from tasks where state in ('pending', 'running')) + (select count(*) from deliveries where state in ('pending', 'running')) as n`,
      )
    for (let left = await open(), idle = 0; left > 0; idle++) {
      expect(idle, 'work that no claim ever brings').toBeLessThan(40)
      await sweep()
      const { items } = await store.tasks.claim({ limit: 50, leaseMs: LEASE_MS, leasedBy: 'boot_b', types: TYPES })
      await Promise.all(items.map((task) => store.tasks.settle(completed(task))))
      const owed = await store.deliveries.claim(claim({ limit: 50 }))
      await Promise.all(owed.items.map((delivery) => store.deliveries.settle(delivered(delivery))))
      await pass(500)
      const now = await open()
      if (now < left) idle = 0
      left = now
    }
  }

  const judge = async (): Promise<void> => {
    await check()
    const tasks = await sql<{ id: string; generation: number; state: string }>('select id, generation, state from tasks')
    expect(tasks.map(({ id }) => id).sort(), 'nothing is lost').toEqual(made.filter((id) => !erased.has(id)).sort())
    const ends = await sql<{ task_id: string; generation: number; type: string }>(
      'select task_id, generation, type from events where terminal = 1',
    )
    for (const { id, generation, state } of tasks) {
      const own = ends.filter((end) => end.task_id === id)
      expect(own.map((end) => end.generation).sort(), 'one end for each generation').toEqual(
        Array.from({ length: generation }, (_, i) => i + 1),
      )
      expect(own.find((end) => end.generation === generation)!.type).toBe(`task.${state}`)
    }
    for (const clientId of clients) {
      const seqs = (await sql<{ seq: number }>(`select seq from events where client_id = '${clientId}' order by created_at, seq`)).map(
        ({ seq }) => seq,
      )
      expect(seqs, 'a feed is gapless and in order').toEqual(Array.from({ length: seqs.length }, (_, i) => i + 1))
    }
    for (let more = true; more; )
      more = (await store.deliveries.claim(claim())).more || (await store.tasks.claim({ ...claim(), types: TYPES })).more
    expect(await count('select count(*) as n from turns where alarm_at is null'), 'no turns are left of lanes with nothing to do').toBe(0)
    expect(await store.maintenance.repairLanes({ kind: 'task' })).toBe(0)
    expect(await store.maintenance.repairLanes({ kind: 'delivery' })).toBe(0)
  }

  return { carryOut: (action: Action) => carryOut[action.kind](action as never), check, drain, judge }
}

test('whatever happens in whatever order: nothing is lost, limits hold, fences grow, every generation ends once, feeds are gapless', {
  timeout: 120_000,
}, async () => {
  const ground = await openGround('sqlite')
  try {
    await fc.assert(
      fc
        .asyncProperty(fc.array(action, { minLength: 20, maxLength: 120, size: 'max' }), async (actions) => {
          const { carryOut, check, drain, judge } = await world(ground)
          for (const each of actions) {
            await carryOut(each)
            await check()
          }
          await drain()
          await judge()
        })
        .afterEach(() => ground.clear()),
      { numRuns: 10, endOnFailure: false, interruptAfterTimeLimit: 30_000 },
    )
  } finally {
    await ground.close()
  }
})

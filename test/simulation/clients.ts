/** Clients that submit with an Idempotency-Key until they get a response, cancel, retry, erase, pause their endpoints, and read announced tasks. */
import { newId } from '../../src/core/id.ts'
import type { Millis } from '../../src/core/model.ts'
import type { Store, TaskChange } from '../../src/store/interfaces.ts'
import { MANY, newEndpoint, newTask } from '../support/work.ts'
import type { Auditor } from './auditor.ts'
import type { Life } from './machine.ts'
import type { Boot, Setup } from './node.ts'
import type { Arrival, Receivers } from './receivers.ts'
import type { Ending, Plan } from './tasktypes.ts'
import type { World } from './world.ts'

export interface Clients {
  /** Registers clients and their endpoints; rejects where that fails. */
  open(): Promise<void>
  /** Work of about so many tasks, spread over so long. */
  load(tasks: number, withinMs: Millis): void
  /** Resumes every endpoint: a pause that was sent twice may have been carried out the second time after its end. */
  resume(): void
  arrived(arrival: Arrival): void
  /** Requests that have not been answered for good. */
  readonly busy: number
  readonly acknowledged: ReadonlySet<string>
}

/** Each as often as it stands here. */
const TYPES = ['work.plain', 'work.plain', 'work.plain', 'work.plain', 'work.scarce', 'pulled.plain', 'pulled.plain', 'pulled.scarce']
const ANSWER_WITHIN_MS: Millis = 10_000
const AGAIN_MS: Millis = 700

export interface ClientOptions {
  readonly world: World
  readonly setup: () => Setup
  readonly auditor: Auditor
  readonly life: Life
  readonly receivers: Receivers
  /** Some process that is up; it may stand still. Null: there is none. */
  readonly someBoot: () => Boot | null
  /** Endpoints pause, are shut, and go. */
  readonly moody: boolean
  /** Whether ended tasks stay for longer than the run takes. */
  readonly keeps: boolean
}

export function createClients({ world, setup, auditor, life, receivers, someBoot, moody, keeps }: ClientOptions): Clients {
  const { clock } = life
  const clients: { readonly id: string; readonly endpoints: string[] }[] = []
  const acknowledged = new Set<string>()
  let busy = 0
  let nth = 0

  /** Null: refused, failed, or not answered in time. */
  const once = <T>(ask: (store: Store) => Promise<T>): Promise<T | null> =>
    new Promise((resolve) => {
      const boot = someBoot()
      if (!boot) return resolve(null)
      ask(boot.store).then(resolve, () => resolve(null))
      world.after(ANSWER_WITHIN_MS, null, () => resolve(null))
    })
  const surely = async <T>(ask: (store: Store) => Promise<T>): Promise<T> => {
    for (;;) {
      const answer = await once(ask)
      if (answer !== null) return answer
      await world.sleep(AGAIN_MS)
    }
  }
  const begin = (actor: () => Promise<void>): void => {
    busy++
    actor()
      .catch((error) => world.violated(`a client met ${(error as Error).stack}`))
      .finally(() => {
        busy--
      })
  }
  const isThere = (id: string, change: TaskChange): boolean => {
    const fine = change.kind !== 'missing' && (change.kind !== 'gone' || !keeps || erased.has(id))
    if (!fine) world.violated(`${auditor.name(id)} was acknowledged and is ${change.kind}`)
    return fine
  }
  const erased = new Set<string>()

  const plan = (): Plan => {
    const endings: Ending[] = []
    for (let i = world.whole(1, 3); i > 0; i--)
      endings.push(world.pick(['returns', 'returns', 'returns', 'throws', 'throws', 'postpones', 'refuses']))
    return {
      ms: world.pick([0, 50, 50, 400, 3_000, 8_000, 15_000]),
      reports: world.pick([0, 0, 0, 3]),
      endings: world.chance(0.6) ? ['returns'] : endings,
      signal: world.pick(['heeds', 'heeds', 'returns', 'ignores']),
    }
  }
  const submit = async (): Promise<void> => {
    const client = world.pick(clients)
    const now = clock.now()
    const tasks = Array.from({ length: world.chance(0.15) ? world.whole(2, 6) : 1 }, () =>
      newTask({
        id: newId(clock, 'task'),
        clientId: client.id,
        type: world.pick(TYPES),
        input: JSON.stringify(plan()),
        callback: world.chance(0.9) ? {} : null,
        concurrencyKey: world.chance(0.25) ? world.pick(['one', 'two']) : null,
        dueAt: world.chance(0.15) ? now + world.whole(0, 20_000) : null,
        startBy: world.chance(0.08) ? now + world.whole(100, 20_000) : null,
        deadlineAt: world.chance(0.1) ? now + world.whole(500, 40_000) : null,
        timeoutSeconds: world.chance(0.1) ? 2 : 60,
        maxTries: world.whole(1, 4),
        priority: world.chance(0.2) ? world.whole(0, 60) : 0,
      }),
    )
    const key = `key-${nth++}`
    const idempotency = { clientId: client.id, scope: 'POST /v1/tasks', key, fingerprint: key }
    const again = (): Promise<readonly string[]> =>
      surely(async (store) => {
        // Each request makes ids of its own, as a server does.
        const fresh = tasks.map((task) => ({ ...task, id: newId(clock, 'task') }))
        const submitted = await store.tasks.add({ tasks: fresh, idempotency })
        if (submitted.kind === 'gone' && !keeps) return []
        if (submitted.kind !== 'added' && submitted.kind !== 'replayed') throw new Error(`a request was answered ${submitted.kind}`)
        return submitted.tasks.map(({ id }) => id)
      })
    const ids = await again()
    for (const id of ids) acknowledged.add(id)
    if (world.chance(0.1)) {
      await world.sleep(world.between(0, 2_000))
      const same = await again()
      if (keeps && same.join() !== ids.join()) world.violated(`key ${key} made ${ids.length} tasks, and then others`)
    }
    for (const id of ids) {
      if (world.chance(0.2)) begin(() => meddle(client.id, id))
      if (world.chance(0.2)) begin(() => read(id, 1))
    }
  }
  const meddle = async (clientId: string, id: string): Promise<void> => {
    await world.sleep(world.between(0, 12_000))
    isThere(id, await surely((store) => store.tasks.cancel({ id, clientId })))
    if (world.chance(0.4)) {
      await world.sleep(world.between(0, 20_000))
      isThere(id, await surely((store) => store.tasks.redo({ id, clientId })))
    }
    if (world.chance(0.15)) {
      await world.sleep(world.between(0, 20_000))
      const change = await surely((store) => store.tasks.erase({ id, clientId }))
      // A repeat of a request that was carried out, and whose answer was lost, finds it gone.
      if (change.kind === 'changed' || change.kind === 'gone') erased.add(id)
      isThere(id, change)
    }
  }
  /** What was told is never newer than what is read. */
  const read = async (id: string, revision: number): Promise<void> => {
    const found = await once((store) => store.tasks.find(id, null))
    if (found === null || found.kind === 'gone') return
    if (found.kind === 'missing') return world.violated(`${auditor.name(id)} was acknowledged and is missing`)
    if (found.value.revision < revision)
      world.violated(`a webhook told revision ${revision} of ${auditor.name(id)}, and a later read gave ${found.value.revision}`)
  }
  /** Reads its feed as it grows, and skips nothing. */
  const follow = (clientId: string, after: number): void =>
    void world.after(world.between(3_000, 9_000), null, () => {
      void once((store) => store.events.list({ clientId, after, limit: 40 })).then((events) => {
        let last = after
        for (const { seq } of events ?? []) {
          for (let missed = last + 1; missed < seq; missed++)
            if (!auditor.isRemoved(clientId, missed)) world.violated(`a reader of the feed went from ${last} to ${seq}`)
          last = seq
        }
        follow(clientId, last)
      })
    })
  const pause = async (clientId: string, id: string): Promise<void> => {
    await surely((store) => store.endpoints.change({ id, clientId, patch: { paused: true }, revision: null }))
    await world.sleep(world.between(500, 15_000))
    await surely((store) => store.endpoints.change({ id, clientId, patch: { paused: false }, revision: null }))
  }

  return {
    get busy() {
      return busy
    },
    acknowledged,
    async open() {
      for (let c = world.whole(1, 3); c > 0; c--) {
        const client = { id: newId(clock, 'client'), endpoints: [] as string[] }
        clients.push(client)
        await surely((store) => store.access.addClient({ client: { id: client.id, name: 'simulated' } }).catch(() => null))
        for (let e = world.whole(0, 2); e > 0; e--) {
          const id = newId(clock, 'endpoint')
          client.endpoints.push(id)
          const secret = setup().encryptor.encrypt(`whsec_${Buffer.alloc(32, e).toString('base64')}`, {
            table: 'endpoints',
            id,
            column: 'secret',
          })
          const events = world.chance(0.7)
            ? '["task.completed","task.failed","task.canceled"]'
            : '["task.started","task.progress","task.failed"]'
          const made = {
            ...newEndpoint({ clientId: client.id }),
            id,
            url: receivers.add(id),
            secret,
            events,
            maxInFlight: world.whole(1, 5),
          }
          await surely((store) => store.endpoints.add({ endpoint: made, max: MANY }))
        }
        follow(client.id, 0)
      }
    },
    load(tasks, withinMs) {
      for (let i = 0; i < tasks; i++) world.after(world.between(0, withinMs), null, () => begin(submit))
      if (!moody) return
      for (const { id: clientId, endpoints } of clients)
        for (const id of endpoints) {
          if (world.chance(0.3)) world.after(world.between(0, withinMs), null, () => begin(() => pause(clientId, id)))
          if (world.chance(0.3)) world.after(world.between(0, withinMs), null, () => receivers.shut(id, world.between(1_000, 40_000)))
          if (world.chance(0.05))
            world.after(world.between(0, withinMs), null, () =>
              begin(async () => void (await surely((store) => store.endpoints.remove({ id, clientId })))),
            )
        }
    },
    resume() {
      for (const { id: clientId, endpoints } of clients)
        for (const id of endpoints)
          begin(
            async () => void (await surely((store) => store.endpoints.change({ id, clientId, patch: { paused: false }, revision: null }))),
          )
    },
    arrived({ body }) {
      const { type, data } = JSON.parse(body) as { type: string; data: { id: string; revision: number } }
      if (type.startsWith('task.')) begin(() => read(data.id, data.revision))
    },
  }
}

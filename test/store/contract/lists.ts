/** Lists by keyset and the feed: complete, stable, in order. */
import { expect, test } from 'vitest'
import type { Delivery, Task } from '../../../src/core/model.ts'
import type { DeliveryQuery, Page, Position, TaskListQuery } from '../../../src/store/interfaces.ts'
import { addClient, addEndpoint, addTask, addTasks, claimOne, claimTasks, completed, failed, newTask } from '../../support/work.ts'
import type { Current } from './suite.ts'

export function lists(current: Current): void {
  const walk = async <T>(ask: (after: Position | null) => Promise<Page<T>>, between?: () => Promise<unknown>): Promise<T[][]> => {
    const pages: T[][] = []
    for (let after: Position | null = null; ; ) {
      const { items, next }: Page<T> = await ask(after)
      pages.push([...items])
      if (next === null) return pages
      after = next
      await between?.()
    }
  }
  const tasksOf = (query: Partial<TaskListQuery> & { clientId: string | null }) => (after: Position | null) =>
    current().store.tasks.list({ order: 'desc', limit: 10, ...query, after })

  test('pages of tasks are complete, ordered and without repetition in both directions, while tasks are added', async () => {
    const { store, pass } = current()
    const clientId = await addClient(store)
    await addTask(store, { clientId: await addClient(store) })
    const made: string[] = []
    for (let i = 0; i < 5; i++) {
      made.push(...(await addTasks(store, 5, { clientId })).map(({ id }) => id))
      await pass(1)
    }
    const late = () => addTask(store, { clientId })
    for (const order of ['desc', 'asc'] as const) {
      const pages = await walk<Task>(tasksOf({ clientId, order, limit: 7 }), order === 'desc' ? late : undefined)
      const listed = pages.flat().filter(({ id }) => made.includes(id))
      expect(listed.map(({ id }) => id).sort()).toEqual([...made].sort())
      const keys = listed.map(({ createdAt, id }) => `${createdAt} ${id}`)
      expect(keys).toEqual([...keys].sort((a, b) => (order === 'asc' ? 1 : -1) * (a < b ? -1 : 1)))
      expect(pages.slice(0, -1).every((page) => page.length === 7)).toBe(true)
      expect(new Set(pages.flat().map(({ id }) => id)).size).toBe(pages.flat().length)
    }
    expect((await walk<Task>(tasksOf({ clientId: null, limit: 100 }))).flat().length, 'the operator sees all').toBeGreaterThan(26)
  })

  test('a full last page has no next page', async () => {
    const { store } = current()
    const clientId = await addClient(store)
    await addTasks(store, 4, { clientId })
    const pages = await walk<Task>(tasksOf({ clientId, limit: 2 }))
    expect(pages.map((page) => page.length)).toEqual([2, 2])
    expect(await walk<Task>(tasksOf({ clientId: await addClient(store) }))).toEqual([[]])
  })

  test('tasks are filtered by state, type, batch, time and metadata, each alone and combined', async () => {
    const { store, pass } = current()
    const clientId = await addClient(store)
    const add = async (given: Partial<Parameters<typeof addTask>[1]>) => (await addTask(store, { clientId, ...given })).id
    const plain = await add({})
    const mail = await add({ type: 'mail.send', metadata: '{"order":"7","city":"Köln"}' })
    const failing = await add({ type: 'mail.send', batchId: 'batch_1', metadata: '{"order":"7"}' })
    const { id: settled } = await claimOne(store, {}, ['mail.send'])
    await store.tasks.settle(failed({ id: settled, fence: 1 }))
    await pass(1_000)
    const now = await store.now()
    const later = await add({ metadata: '{"order":"8"}' })
    // Labels of another client do not match.
    await addTask(store, { clientId: await addClient(store), metadata: '{"order":"7"}' })

    const ids = async (filter: Partial<TaskListQuery>): Promise<string[]> =>
      (await walk<Task>(tasksOf({ clientId, ...filter }))).flat().map(({ id }) => id)
    expect([mail, failing]).toContain(settled)
    expect(await ids({ states: ['failed'] })).toEqual([settled])
    expect((await ids({ type: 'mail.send' })).sort()).toEqual([mail, failing].sort())
    expect(await ids({ batchId: 'batch_1' })).toEqual([failing])
    expect((await ids({ metadata: { key: 'order', value: '7' } })).sort()).toEqual([mail, failing].sort())
    expect(await ids({ metadata: { key: 'city', value: 'Köln' } })).toEqual([mail])
    expect(await ids({ metadata: { key: 'order', value: '9' } })).toEqual([])
    expect(await ids({ metadata: { key: 'order', value: '7' }, states: ['failed'] })).toEqual([settled])
    expect(await ids({ metadata: { key: 'order', value: '7' }, batchId: 'batch_1' })).toEqual([failing])
    expect(await ids({ createdAfter: now - 1 })).toEqual([later])
    expect((await ids({ createdBefore: now - 500 })).sort()).toEqual([plain, mail, failing].sort())
    expect((await ids({ states: ['pending', 'running'] })).sort()).toEqual(
      [plain, mail, failing, later].filter((id) => id !== settled).sort(),
    )
  })

  test('a filtered page ends early after 10,000 scanned rows, and the next page continues', async () => {
    const { store, sql, engine } = current()
    const clientId = await addClient(store)
    const needle = (await addTask(store, { clientId, type: 'mail.send' })).id
    const { id } = await addTask(store, { clientId })
    const columns = [
      ...'client_id lane_id state line rank due_at tries max_tries fence type generation revision input progress metadata priority'.split(
        ' ',
      ),
      ...'updated_at timeout_seconds'.split(' '),
    ].join(', ')
    const series =
      engine === 'postgres'
        ? `generate_series(1, 10500) s(n)`
        : `(with recursive s(n) as (select 1 union all select n + 1 from s where n < 10500) select n from s) s`
    await sql(
      `insert into tasks (id, created_at, ${columns}) select 'task_hay_' || (100000 + s.n), created_at + s.n, ${columns} from tasks, ${series} where id = '${id}'`,
    )
    const pages = await walk<Task>(tasksOf({ clientId, type: 'mail.send' }))
    expect(pages.length).toBeGreaterThan(1)
    expect(pages[0]).toEqual([])
    expect(pages.flat().map((task) => task.id)).toEqual([needle])
    expect((await walk<Task>(tasksOf({ clientId, order: 'asc', type: 'mail.send' })))[0]).toHaveLength(1)
  })

  test('a page of deliveries filtered without an index ends early after 10,000 scanned rows, and the next page continues', async () => {
    const { store, sql, engine } = current()
    const clientId = await addClient(store)
    const endpoint = await addEndpoint(store, { clientId })
    await addTask(store, { clientId })
    await store.tasks.settle(completed((await claimTasks(store, { limit: 1 }))[0]!))
    const deliveriesOf = (query: Partial<DeliveryQuery>) =>
      walk<Delivery>((after) => store.deliveries.list({ clientId, limit: 10, ...query, after }))
    const [[needle]] = (await deliveriesOf({})) as [[Delivery]]
    const columns =
      'client_id, lane_id, line, rank, due_at, tries, max_tries, fence, event_id, event_type, task_id, endpoint_id, trigger, updated_at'
    const series =
      engine === 'postgres'
        ? `generate_series(1, 10500) s(n)`
        : `(with recursive s(n) as (select 1 union all select n + 1 from s where n < 10500) select n from s) s`
    await sql(
      `insert into deliveries (id, state, created_at, ${columns}) select 'delivery_hay_' || (100000 + s.n), 'completed', created_at + s.n, ${columns} from deliveries, ${series} where id = '${needle.id}'`,
    )
    for (const place of [{}, { endpointId: endpoint }, { taskId: needle.taskId! }]) {
      const pages = await deliveriesOf({ ...place, states: ['pending'] })
      expect(pages.map((page) => page.map(({ id }) => id))).toEqual([[], [needle.id]])
      expect((await deliveriesOf({ ...place, limit: 200 })).flat()).toHaveLength(10_501)
    }
    expect(await deliveriesOf({ clientId: await addClient(store), endpointId: endpoint, states: ['pending'] })).toEqual([[]])
  })

  test('a page of large tasks ends early, and the next page continues', async () => {
    const { store } = current()
    const clientId = await addClient(store)
    const input = JSON.stringify('x'.repeat(65_534))
    for (let i = 0; i < 8; i++) await addTasks(store, 10, { clientId, input })
    const pages = await walk<Task>(tasksOf({ clientId, limit: 100 }))
    expect(pages.map((page) => page.length)).toEqual([64, 16])
    expect(new Set(pages.flat().map(({ id }) => id)).size).toBe(80)
  })

  test('one read of a feed scans at most 10,000 events and returns its end position', async () => {
    const { store, sql, engine } = current()
    const clientId = await addClient(store)
    const { id } = await addTask(store, { clientId })
    await store.tasks.settle(completed((await claimTasks(store, { limit: 1 }))[0]!))
    expect(await store.events.findFeedReach(clientId, 0)).toBeNull()
    const series =
      engine === 'postgres'
        ? `generate_series(1, 10500) s(n)`
        : `(with recursive s(n) as (select 1 union all select n + 1 from s where n < 10500) select n from s) s`
    await sql(
      `insert into events (id, client_id, endpoint_id, task_id, type, terminal, generation, revision, seq, body, created_at)
        select 'event_hay_' || (100000 + s.n), client_id, endpoint_id, 'task_hay', 'task.created', 0, 1, 1, 1000 + s.n, body, created_at from events, ${series} where task_id = '${id}'`,
    )
    const reach = await store.events.findFeedReach(clientId, 0)
    expect(reach).toBe(1_000 + 9_999)
    const ending = { clientId, types: ['task.completed'] as const, limit: 10 }
    expect(await store.events.list({ ...ending, after: 0, upTo: reach! })).toHaveLength(1)
    expect(await store.events.findFeedReach(clientId, reach!)).toBeNull()
    expect(await store.events.list({ clientId, taskId: id, after: 0, limit: 10 })).toHaveLength(1)
  })

  test('the feed of each client has no gaps and is in commit order, with many writing nodes', async () => {
    const ground = current()
    const nodes = [ground.store, await ground.anotherNode()] as const
    const clients = [await addClient(ground.store), await addClient(ground.store)]
    for (const clientId of clients) {
      await addEndpoint(ground.store, { clientId, events: '["task.created","task.completed"]' })
    }
    const run = async (n: number): Promise<void> => {
      const node = nodes[n % 2]!
      await node.tasks.add({ tasks: clients.map((clientId) => newTask({ clientId })), idempotency: null })
      const tasks = await claimTasks(node, { limit: 3 })
      await Promise.all(tasks.map((task) => node.tasks.settle(completed(task))))
    }
    const seen: number[] = []
    let done = false
    const reader = (async () => {
      for (;;) {
        // Read before the page: an empty page that was read during the last commits is not the end.
        const last = done
        const events = await ground.store.events.list({ clientId: clients[0]!, after: seen.at(-1) ?? 0, limit: 5 })
        seen.push(...events.map(({ seq }) => seq))
        if (last && events.length === 0) break
        await new Promise((resolve) => setImmediate(resolve))
      }
    })()
    await Promise.all(Array.from({ length: 40 }, (_, n) => run(n)))
    // A claim may skip work that another claim has locked for a moment.
    const open = async () => (await ground.sql<{ n: number | string }>(`select count(*) as n from tasks where state <> 'completed'`))[0]!.n
    while (Number(await open()) > 0) {
      const rest = await claimTasks(ground.store)
      await Promise.all(rest.map((task) => ground.store.tasks.settle(completed(task))))
      if (rest.length === 0) await ground.pass(100)
    }
    done = true
    await reader
    expect(seen).toEqual(Array.from({ length: 80 }, (_, i) => i + 1))
    for (const clientId of clients) {
      const events = await ground.store.events.list({ clientId, after: 0, limit: 1_000 })
      expect(events.map(({ seq }) => seq)).toEqual(Array.from({ length: 80 }, (_, i) => i + 1))
      expect(await ground.store.events.findSeq(events[41]!.id, clientId)).toBe(42)
    }
    const [mine] = await ground.store.events.list({ clientId: clients[0]!, after: 0, limit: 1 })
    expect(await ground.store.events.findSeq(mine!.id, clients[1]!), 'of another client').toBeNull()
  })

  test('a feed is filtered by task and by type, and continues after any position', async () => {
    const { store } = current()
    const clientId = await addClient(store)
    await addTasks(store, 4, { clientId })
    const tasks = await claimTasks(store)
    for (const [i, task] of tasks.entries()) await store.tasks.settle(i % 2 === 0 ? completed(task) : failed(task))
    const seqs = async (query: object) => (await store.events.list({ clientId, after: 0, limit: 10, ...query })).map(({ seq }) => seq)
    expect(await seqs({ types: ['task.failed'] })).toEqual([2, 4])
    expect(await seqs({ taskId: tasks[2]!.id })).toEqual([3])
    expect(await seqs({ after: 1, limit: 2 })).toEqual([2, 3])
  })

  test('subscribers read many revisions, feed positions and terminal events of a generation at once', async () => {
    const { store } = current()
    const [clientId, other] = [await addClient(store), await addClient(store)]
    const [waiting, ended, again, erased] = await addTasks(store, 4, { clientId })
    const claimed = new Map((await claimTasks(store)).map((task) => [task.id, task]))
    await store.tasks.settle(completed(claimed.get(ended!.id)!))
    await store.tasks.settle(failed(claimed.get(again!.id)!))
    await store.tasks.settle(completed(claimed.get(erased!.id)!))
    await store.tasks.redo({ id: again!.id, clientId: null })
    await store.tasks.erase({ id: erased!.id, clientId: null })
    const ids = [waiting!.id, ended!.id, again!.id, erased!.id]
    expect(await store.events.findRevisions([...ids, 'task_unknown'])).toEqual(
      new Map<string, number>([
        [ids[0]!, 2],
        [ids[1]!, 3],
        [ids[2]!, 4],
      ]),
    )
    expect(await store.events.findSeqs([clientId, other, 'client_unknown'])).toEqual(
      new Map<string, number>([
        [clientId, 3],
        [other, 0],
      ]),
    )
    const events = await store.events.list({ clientId, after: 0, limit: 10 })
    const bodyOf = (id: string) => events.find(({ taskId }) => taskId === id)!.body
    const endings = await store.events.findTerminal(ids.map((id) => ({ id, generation: 1 })))
    expect(endings).toEqual(
      new Map<string, string>([
        [ids[1]!, bodyOf(ids[1]!)],
        [ids[2]!, bodyOf(ids[2]!)],
      ]),
    )
    expect(await store.events.findTerminal([{ id: ids[2]!, generation: 2 }])).toEqual(new Map())
    expect([await store.events.findRevisions([]), await store.events.findSeqs([]), await store.events.findTerminal([])]).toEqual([
      new Map(),
      new Map(),
      new Map(),
    ])
  })

  test('a start notifies the listeners on the node that claims', async () => {
    const { store } = current()
    const task = await addTask(store, { clientId: await addClient(store) })
    const started: string[] = []
    const unsubscribe = store.notifications.onTask((id) => started.push(id))
    await claimOne(store)
    expect(started).toEqual([task.id])
    unsubscribe()
  })

  test('deliveries are listed newest first, by endpoint, task, state, type and time', async () => {
    const { store, pass } = current()
    const clientId = await addClient(store)
    const one = await addEndpoint(store, { clientId })
    await addEndpoint(store, { clientId })
    const settle = async (fate: typeof completed | typeof failed): Promise<string> => {
      const { id } = await addTask(store, { clientId })
      await store.tasks.settle(fate(await claimOne(store)))
      await pass(10_000)
      return id
    }
    const first = await settle(completed)
    const second = await settle(failed)
    const now = await store.now()
    const list = async (query: object) => (await store.deliveries.list({ clientId, limit: 10, after: null, ...query })).items
    expect((await list({})).map(({ taskId }) => taskId)).toEqual([second, second, first, first])
    expect((await list({ endpointId: one })).map(({ taskId }) => taskId)).toEqual([second, first])
    expect(await list({ taskId: first })).toHaveLength(2)
    expect(await list({ eventType: 'task.failed', endpointId: one })).toMatchObject([{ taskId: second }])
    expect(await list({ states: ['completed'] })).toEqual([])
    expect(await list({ since: now - 15_000 })).toHaveLength(2)
    expect(await list({ until: now - 15_000 })).toHaveLength(2)
    expect(await list({ clientId: await addClient(store) })).toEqual([])
    const pages = await walk((after) => store.deliveries.list({ clientId, limit: 3, after }))
    expect(pages.map((page) => page.length)).toEqual([3, 1])
  })

  test('endpoints and clients are listed oldest first, page by page', async () => {
    const { store, pass } = current()
    const clientId = await addClient(store)
    const made: string[] = []
    for (let i = 0; i < 5; i++) {
      made.push(await addEndpoint(store, { clientId }))
      await pass(1)
    }
    await store.endpoints.remove({ id: made.splice(2, 1)[0]!, clientId })
    const pages = await walk((after) => store.endpoints.list(clientId, 2, after))
    expect(pages.map((page) => page.length)).toEqual([2, 2])
    expect(pages.flat().map(({ id }) => id)).toEqual(made)
    await addClient(store)
    await addClient(store)
    const clients = await walk((after) => store.access.listClients(2, after))
    expect(clients.map((page) => page.length)).toEqual([2, 1])
    expect(clients.flat()[0]!.id).toBe(clientId)
  })
}

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, existsSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { LogLevel } from '../../src/config/settings.ts'
import { systemClock } from '../../src/core/clock.ts'
import type { RunRecord } from '../../src/core/lifecycle.ts'
import type { Task } from '../../src/core/model.ts'
import { createEventSink, type EventFacts } from '../../src/observe/events.ts'
import { type LogHandle, logEvents, openLog } from '../../src/observe/log.ts'

const run = {
  taskId: 'task_1',
  type: 'demo.echo',
  clientId: 'client_1',
  try: 1,
  outcome: 'completed',
  durationMs: 12,
  waitMs: 3,
  errorCode: null,
} as const
const { taskId, type, clientId, ...rest } = run
const record: RunRecord = { ...rest, task: { id: taskId, type, clientId, tries: run.try } as Task }
const attempt = {
  deliveryId: 'delivery_1',
  eventId: 'event_1',
  eventType: 'task.completed',
  endpointId: 'endpoint_1',
  try: 2,
  outcome: 'http_error',
  httpStatus: 500,
  durationMs: 40,
  nextDelayMs: 30_000,
} as const

let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'ringback-log-'))
})
afterEach(() => {
  rmSync(folder, { recursive: true, force: true })
})

/** The lines that `write` leaves in the log, once it is closed. */
async function logged(level: LogLevel, write: (open: LogHandle) => void): Promise<Record<string, unknown>[]> {
  const path = join(folder, 'log')
  const fd = openSync(path, 'w')
  const open = openLog({ level, clock: { ...systemClock(), wall: () => 1_795_341_605_120 }, fd })
  write(open)
  await open.close()
  closeSync(fd)
  const text = readFileSync(path, 'utf8')
  return text === ''
    ? []
    : text
        .trimEnd()
        .split('\n')
        .map((line) => JSON.parse(line) as Record<string, unknown>)
}

test('A run, an attempt and a chore that changed rows are one flat line each, with every fact.', async () => {
  const lines = await logged('info', ({ log }) => {
    const events = createEventSink()
    logEvents(log, events)
    events.emit('task.run', record)
    events.emit('delivery.attempted', attempt)
    events.emit('chore.ran', { chore: 'prune tasks', count: 3, durationMs: 1 })
    events.emit('chore.ran', { chore: 'repair lanes', count: 0, durationMs: 1 })
  })
  const stamp = { level: 'info', time: '2026-11-22T10:00:05.120Z' }
  expect(lines).toEqual([
    { ...stamp, ...run, msg: 'task.run' },
    { ...stamp, ...attempt, msg: 'delivery.attempted' },
    { ...stamp, chore: 'prune tasks', count: 3, durationMs: 1, msg: 'chore.ran' },
  ])
})

test('above their level they are not even read', async () => {
  const untouchable = new Proxy({}, { get: () => expect.unreachable(), ownKeys: () => expect.unreachable() })
  const lines = await logged('warn', ({ log }) => {
    const events = createEventSink()
    logEvents(log, events)
    events.emit('task.run', { task: untouchable } as RunRecord)
    events.emit('delivery.attempted', untouchable as EventFacts['delivery.attempted'])
    log.warn('only this')
  })
  expect(lines.map(({ msg }) => msg)).toEqual(['only this'])
})

test('a secret does not reach the log, at any depth', async () => {
  const secret = 'hunter2'
  const cycle: Record<string, unknown> = { secret }
  cycle.again = cycle
  const lines = await logged('info', ({ log }) => {
    log.info({ authorization: secret }, 'flat')
    log.info({ request: { headers: { 'x-any': secret }, url: '/v1' } }, 'nested')
    log.info({ endpoints: [{ id: 'endpoint_1', previousSecret: secret }] }, 'in a list')
    log.info({ config: { masterKey: secret, adminToken: secret }, key: secret }, 'settings')
    log.info({ cycle }, 'endless')
  })
  expect(JSON.stringify(lines)).not.toContain(secret)
  expect(lines[1]).toMatchObject({ request: { headers: '***', url: '/v1' } })
  expect(lines[2]).toMatchObject({ endpoints: [{ id: 'endpoint_1', previousSecret: '***' }] })
})

test('the log shows the message and the stack of an error, but not the row that a database quotes', async () => {
  const row = 'hunter2'
  const refused = Object.assign(new Error('violates a constraint'), {
    code: '23514',
    detail: `Failing row contains (${row}).`,
    params: [row],
  })
  const misread = Object.assign(new Error(`invalid input syntax for type bigint: "${row}"`), { code: '22P02' })
  const lines = await logged('info', ({ log }) => {
    log.warn({ err: new Error('not stored', { cause: refused }) }, 'one')
    log.warn({ trouble: [{ misread }] }, 'two')
    log.warn(refused)
  })
  expect(JSON.stringify(lines)).not.toContain(row)
  expect(lines[0]).toMatchObject({
    err: { type: 'Error', message: 'not stored', stack: expect.stringContaining('    at '), cause: { code: '23514' } },
  })
  expect(lines[1]).toMatchObject({ trouble: [{ misread: { message: 'invalid input syntax for type bigint', code: '22P02' } }] })
  expect(lines[2]).toMatchObject({ err: { message: 'violates a constraint' } })
})

test('lines keep their order and none is lost, also beyond the size of one write', async () => {
  const lines = await logged('info', ({ log }) => {
    for (let i = 0; i < 5000; i++) log.info({ i, text: 'é'.repeat(50) }, 'many')
  })
  expect(lines.map(({ i }) => i)).toEqual(Array.from({ length: 5000 }, (_, i) => i))
})

describe('in a separate process', () => {
  const script = (last: string): string => `
    import { openLog } from ${JSON.stringify(new URL('../../src/observe/log.ts', import.meta.url).href)}
    import { systemClock } from ${JSON.stringify(new URL('../../src/core/clock.ts', import.meta.url).href)}
    const { log, close } = openLog({ level: 'info', clock: systemClock() })
    for (let i = 0; i < 1000; i++) log.info({ i }, 'line')
    ${last}`
  const start = (last: string, stdout: 'pipe' | number) =>
    spawn(process.execPath, ['--input-type=module', '-e', script(last)], { stdio: ['ignore', stdout, 'inherit'] })

  test('lines before process.exit are written', async () => {
    const child = start('process.exit(0)', 'pipe')
    const ended = once(child, 'close')
    let said = ''
    child.stdout!.on('data', (chunk) => {
      said += chunk
    })
    expect(await ended).toEqual([0, null])
    expect(said.trimEnd().split('\n')).toHaveLength(1000)
  })

  test.skipIf(!existsSync('/dev/full'))('a full disk costs the lines and nothing else', async () => {
    const fd = openSync('/dev/full', 'w')
    expect(await once(start('await close()', fd), 'close')).toEqual([0, null])
    expect(await once(start('process.exit(0)', fd), 'close')).toEqual([0, null])
    closeSync(fd)
  })

  test('a closed reader loses the lines and nothing else', async () => {
    const child = start('setTimeout(async () => { log.info("late"); await close() }, 200)', 'pipe')
    child.stdout!.destroy()
    expect(await once(child, 'close')).toEqual([0, null])
  })
})

/** A copy made while a server is under load, and what becomes of it elsewhere. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { runCheck } from '../../src/cli/operations.ts'
import { parseConfig } from '../../src/config/config.ts'
import { seededRandom, startLoad } from '../support/load.ts'
import { openReceiver } from '../support/receiver.ts'
import { calling, eventually, newClient, ok, openHome } from '../support/server.ts'

test('a copy made under load is a whole store elsewhere: audited without a fault, and its tasks go on', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'ringback-copies-'))
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }))
  const home = await openHome('SQLite')
  const receiver = await openReceiver()
  onTestFinished(() => Promise.all([home.close(), receiver.close()]).then(() => {}))
  const server = await home.start({ RINGBACK_PUBLIC_URL: 'https://tasks.example.com' })
  let base: string | null = await server.listening
  const { key, call } = await newClient(base)
  await ok(call('POST', '/v1/endpoints', { url: `${receiver.url}/steady` }))
  const { random } = seededRandom()
  const load = startLoad({ bases: () => (base === null ? [] : [base]), key, random, submitters: 8, pauseMs: 5 })
  await eventually('some load', () => load.acknowledged.size > 60)
  const before = new Set(load.acknowledged)
  const copy = join(folder, 'copy.db')
  const copied = await home.command('backup', '--to', copy)
  expect(copied).toMatchObject({ code: 0, stderr: '', stdout: expect.stringContaining('is a checked copy') })
  expect(await home.command('backup', '--to', copy)).toMatchObject({ code: 1, stderr: expect.stringContaining('exists already') })
  await eventually('more load', () => load.acknowledged.size > before.size + 30)
  await load.stop()
  server.kill('SIGKILL')
  await server.ended
  base = null

  const elsewhere = `file:${join(folder, 'elsewhere', 'ringback.db')}`
  expect(await home.command('restore', '--from', copy, '--database-url', elsewhere)).toMatchObject({ code: 0, stderr: '' })
  const ran = home.runs().length
  const next = await home.start({ RINGBACK_DATABASE_URL: elsewhere, RINGBACK_PUBLIC_URL: 'https://tasks.example.com' })
  expect(await home.command('restore', '--from', copy, '--overwrite', '--database-url', elsewhere)).toMatchObject({
    code: 1,
    stderr: expect.stringContaining('another process serves'),
  })
  const again = calling(await next.listening, key)
  for (const id of before) expect((await again('GET', `/v1/tasks/${id}`)).status).toBe(200)
  const more = (await ok(again('POST', '/v1/tasks', { type: 'work.instant', input: null }, { prefer: 'wait=20' }))).json
  expect(more.status).toBe('completed')
  const config = parseConfig({ env: {}, options: { databaseUrl: elsewhere } })
  await eventually('everything ended', async () => {
    const { violations, counts, owed } = await runCheck(config, 10)
    expect(violations.first).toEqual([])
    return counts.liveTasks === 0 && owed.length === 0
  })
  expect(await home.command('audit', '--database-url', elsewhere)).toMatchObject({
    code: 0,
    stdout: expect.stringContaining('No delivery is open.'),
  })
  expect(home.runs().length).toBeGreaterThan(ran)
})

/** Backups of a SQLite store: made while it is written to, restored elsewhere, and refused when data would be lost. */
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import Database from 'better-sqlite3'
import { beforeEach, describe, expect, onTestFinished, test } from 'vitest'
import { backupDatabase, restoreDatabase, runCheck } from '../../src/cli/operations.ts'
import { parseConfig } from '../../src/config/config.ts'
import { systemClock } from '../../src/core/clock.ts'
import { createEncryptor } from '../../src/core/encryption.ts'
import { openStore } from '../../src/store/open.ts'
import { addClient, addTask, addTasks } from '../support/work.ts'

const clock = systemClock()
const masterKey = Buffer.alloc(32, 7).toString('base64')
let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'ringback-copies-'))
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }))
})
const configOf = (name: string, options: object = { masterKey }) =>
  parseConfig({ env: {}, options: { databaseUrl: `file:${join(folder, name)}`, ...options } })
const open = async (name: string, owner = false) => {
  const store = await openStore({ url: `file:${join(folder, name)}`, clock, publicUrl: () => '', retrySchedule: [], exclusive: owner })
  onTestFinished(() => store.close().catch(() => {}))
  return store
}
/** A store with one task, encrypted with `masterKey`. */
async function createStore(name: string): Promise<{ clientId: string; taskId: string }> {
  const store = await open(name)
  await store.signing.putSettingIfAbsent({ name: 'canary', value: createEncryptor({ masterKey, clock }).keyCheck() })
  const clientId = await addClient(store)
  const { id } = await addTask(store, { clientId, input: '"a secret of mine"' })
  await store.close()
  return { clientId, taskId: id }
}

describe('a backup', () => {
  test('has the data of the store, is readable by its owner only, and leaves no other file', async () => {
    const { taskId, clientId } = await createStore('a.db')
    const to = join(folder, 'copies', 'b.db')
    await expect(backupDatabase(configOf('a.db'), to, false)).rejects.toMatchObject({
      message: expect.stringContaining('cannot be written'),
    })
    const there = join(folder, 'b.db')
    await backupDatabase(configOf('a.db'), there, false)
    expect(statSync(there).mode & 0o777).toBe(0o600)
    expect(readdirSync(folder).filter((name) => name.startsWith('b.db'))).toEqual(['b.db'])
    const store = await open('b.db')
    expect(await store.tasks.find(taskId, clientId)).toMatchObject({ kind: 'found' })
  })

  test('replaces a file only with --overwrite, and contains no erased data', async () => {
    const { taskId, clientId } = await createStore('a.db')
    const to = join(folder, 'b.db')
    writeFileSync(to, 'mine')
    await expect(backupDatabase(configOf('a.db'), to, false)).rejects.toMatchObject({
      name: 'StartupError',
      message: expect.stringMatching(/b\.db" exists already: .*--overwrite/),
    })
    expect(readFileSync(to, 'utf8')).toBe('mine')
    const store = await open('a.db')
    await store.tasks.cancel({ id: taskId, clientId })
    await store.tasks.erase({ id: taskId, clientId })
    await backupDatabase(configOf('a.db'), to, true)
    expect(readFileSync(to).includes('a secret of mine')).toBe(false)
  })

  test('cannot be written to the database itself', async () => {
    const { taskId } = await createStore('a.db')
    symlinkSync(join(folder, 'a.db'), join(folder, 'alias.db'))
    for (const name of ['a.db', 'alias.db']) {
      await expect(backupDatabase(configOf('a.db'), join(folder, name), true)).rejects.toMatchObject({
        message: expect.stringContaining('the database itself'),
      })
      await expect(restoreDatabase(configOf('a.db'), join(folder, name), true)).rejects.toMatchObject({
        message: expect.stringContaining('the database itself'),
      })
    }
    expect(await (await open('a.db')).tasks.find(taskId, null)).toMatchObject({ kind: 'found' })
  })

  test('of a store whose server was killed includes the changes in its log, and so does the check', async () => {
    await createStore('a.db')
    const store = await open('a.db')
    await addTasks(store, 5, { clientId: await addClient(store) })
    mkdirSync(join(folder, 'dead'))
    for (const name of ['a.db', 'a.db-wal']) copyFileSync(join(folder, name), join(folder, 'dead', name))
    expect(statSync(join(folder, 'dead', 'a.db-wal')).size).toBeGreaterThan(0)
    await backupDatabase(configOf('dead/a.db'), join(folder, 'b.db'), false)
    for (const name of ['dead/a.db', 'b.db']) expect((await runCheck(configOf(name), 10)).counts.tasks, name).toBe(6)
  })

  test('of a missing or PostgreSQL database is refused with a sentence', async () => {
    await expect(backupDatabase(configOf('none.db'), join(folder, 'b.db'), false)).rejects.toMatchObject({
      message: expect.stringContaining('there is no database'),
    })
    expect(existsSync(join(folder, 'none.db'))).toBe(false)
    expect(() => backupDatabase(configOf('', { masterKey, databaseUrl: 'postgres://localhost/x' }), 'b.db', false)).toThrow(/pg_dump/)
    await expect(restoreDatabase(configOf('', { masterKey, databaseUrl: 'postgres://localhost/x' }), 'b.db', false)).rejects.toThrow(
      /pg_restore/,
    )
  })
})

describe('a restore', () => {
  test('is refused while a server owns the store, and over an existing store, which does not change', async () => {
    await createStore('a.db')
    const copy = join(folder, 'copy.db')
    await backupDatabase(configOf('a.db'), copy, false)
    const owner = await open('a.db', true)
    const { id: later } = await addTask(owner, { clientId: await addClient(owner) })
    await expect(restoreDatabase(configOf('a.db'), copy, true)).rejects.toMatchObject({
      name: 'StartupError',
      message: expect.stringContaining('another process serves'),
    })
    await owner.close()
    await expect(restoreDatabase(configOf('a.db'), copy, false)).rejects.toMatchObject({ message: expect.stringContaining('--overwrite') })
    expect(await (await open('a.db')).tasks.find(later, null)).toMatchObject({ kind: 'found' })
  })

  test('over another store replaces it completely, including its unmerged log', async () => {
    const { taskId } = await createStore('a.db')
    const copy = join(folder, 'copy.db')
    await backupDatabase(configOf('a.db'), copy, false)
    const { taskId: other } = await createStore('b.db')
    // As after a killed server, the log stays.
    const db = new Database(join(folder, 'b.db'))
    const held = new Database(join(folder, 'b.db'), { readonly: true })
    held.exec('begin; select * from tasks')
    db.exec(`update tasks set priority = 7`)
    expect(statSync(join(folder, 'b.db-wal')).size).toBeGreaterThan(0)
    await restoreDatabase(configOf('b.db'), copy, true)
    held.close()
    db.close()
    const store = await open('b.db')
    expect(await store.tasks.find(taskId, null)).toMatchObject({ kind: 'found', value: { priority: 0 } })
    expect(await store.tasks.find(other, null)).toMatchObject({ kind: 'missing' })
  })

  test('of a damaged copy, one of a newer version, one encrypted with another key, or a database in use is refused', async () => {
    await createStore('a.db')
    const copy = join(folder, 'copy.db')
    await backupDatabase(configOf('a.db'), copy, false)
    const refused = (message: RegExp, options?: object) =>
      expect(restoreDatabase(configOf('new.db', options), copy, false)).rejects.toMatchObject({
        name: 'StartupError',
        message: expect.stringMatching(message),
      })
    await refused(/master key does not fit/, { masterKey: Buffer.alloc(32, 8).toString('base64') })
    await refused(/there is none here: put the key into .*master-key/, {})
    expect(existsSync(join(folder, 'master-key')), 'none is made').toBe(false)
    writeFileSync(`${copy}-wal`, 'x')
    await refused(/database in use/)
    rmSync(`${copy}-wal`)
    const db = new Database(copy)
    db.exec(`insert into migrations (hash, made_at) values ('newer', 1)`)
    db.close()
    await refused(/newer version/)
    const bytes = readFileSync(copy)
    bytes.fill(0x5a, 8_192, 40_000)
    writeFileSync(copy, bytes)
    await refused(/copy\.db" is damaged; nothing was changed/)
    writeFileSync(copy, 'not a database')
    await refused(/copy\.db" is damaged; nothing was changed: file is not a database/)
    expect(readFileSync(copy, 'utf8'), 'the copy itself').toBe('not a database')
    expect(existsSync(join(folder, 'new.db'))).toBe(false)
    expect(readdirSync(folder).filter((name) => /^new\.db\.[0-9a-f]/.test(name))).toEqual([])
  })
})

test('the log is cut to 64 MiB after a long read has ended', async () => {
  await createStore('a.db')
  const store = await open('a.db')
  const clientId = await addClient(store)
  const log = () => statSync(join(folder, 'a.db-wal')).size
  const reader = new Database(join(folder, 'a.db'), { readonly: true })
  reader.exec('begin; select count(*) from tasks')
  const input = JSON.stringify('x'.repeat(500_000))
  while (log() < 90 * 1024 * 1024) await addTasks(store, 10, { clientId, input })
  reader.exec('commit')
  reader.close()
  for (let i = 0; i < 3; i++) await addTask(store, { clientId })
  expect(log()).toBeLessThanOrEqual(64 * 1024 * 1024)
}, 120_000)

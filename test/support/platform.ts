/** The whole platform on SQLite with a manual clock and real sockets. */
import { onTestFinished } from 'vitest'
import { loadDevelopmentSecrets, parseConfig, withPort } from '../../src/config/config.ts'
import type { Options } from '../../src/config/settings.ts'
import type { Millis } from '../../src/core/model.ts'
import { openRingback } from '../../src/platform.ts'
import { defineTask } from '../../src/tasks/define.ts'
import { freshSqlite } from './databases.ts'
import { turn } from './engine.ts'
import { type ManualClock, manualClock } from './manual-clock.ts'

export interface Platform {
  readonly clock: ManualClock
  /** Calls the API as a client of its own; answers the JSON. */
  // biome-ignore lint/suspicious/noExplicitAny: documents have many shapes
  call(method: string, path: string, body?: object): Promise<any>
  /** Calls it as another client. */
  newClient(): Promise<Platform['call']>
  /** As the operator. */
  // biome-ignore lint/suspicious/noExplicitAny: documents have many shapes
  operate(method: string, path: string, body?: object): Promise<any>
  /** Goes round until it holds, while no time passes. */
  until(holds: () => boolean | Promise<boolean>): Promise<void>
  /** Lets time pass in steps. */
  pass(ms: Millis, stepMs?: Millis): Promise<void>
}

/** Bounds a wait that goes round without a pause. */
const UNTIL_MS = 30_000

/** Its one task type is `echo`. Stopped and removed when the test is over. */
export async function openPlatform(options: Options = {}): Promise<Platform> {
  const { url, remove } = freshSqlite()
  const clock = manualClock(Date.now())
  const given = parseConfig({ env: {}, options: { databaseUrl: url, publicUrl: 'https://tasks.example', ...options } })
  const config = withPort(loadDevelopmentSecrets(given, clock), 0)
  const echo = defineTask({ type: 'echo', run: async (input: unknown) => input })
  const quiet = { info() {}, warn() {}, debug() {}, error() {} }
  const ringback = await openRingback({ config, tasks: [echo], log: quiet as never, clock })
  await ringback.start()
  onTestFinished(async () => {
    const stopped = ringback.stop()
    let done = false
    void stopped.then(() => {
      done = true
    })
    while (!done) {
      clock.advance(1_000)
      await turn()
    }
    remove()
  })
  const ask = (token: string) => async (method: string, path: string, body?: object) => {
    const response = await ringback.app.fetch(
      new Request(`http://ringback${path}`, {
        method,
        headers: { authorization: `Bearer ${token}`, ...(body && { 'content-type': 'application/json' }) },
        ...(body && { body: JSON.stringify(body) }),
      }),
    )
    const text = await response.text()
    if (response.status >= 400) throw new Error(`${method} ${path} answered ${response.status}: ${text}`)
    return text === '' ? null : JSON.parse(text)
  }
  const operate = ask(config.adminToken)
  const newClient = async () => {
    const client = await operate('POST', '/v1/clients', { name: 'tests' })
    return ask((await operate('POST', `/v1/clients/${client.id}/keys`)).key)
  }
  const until = async (holds: () => boolean | Promise<boolean>): Promise<void> => {
    const end = performance.now() + UNTIL_MS
    while (!(await holds())) {
      if (performance.now() > end) throw new Error(`not within ${UNTIL_MS} ms: ${holds}`)
      await turn()
    }
  }
  return {
    clock,
    operate,
    call: await newClient(),
    newClient,
    until,
    async pass(ms, stepMs = ms) {
      for (let left = ms; left > 0; left -= stepMs) {
        clock.advance(Math.min(stepMs, left))
        for (let i = 0; i < 4; i++) {
          await turn()
          // Answered once everything that was asked of the store before is committed.
          await operate('GET', '/v1/clients')
        }
      }
    },
  }
}

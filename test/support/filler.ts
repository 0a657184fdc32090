/**
 * A process with a file size limit (`node filler.ts <url> <bytes>`): it adds tasks until the disk is full, removes the limit and continues.
 * It prints the acknowledged and the refused tasks.
 */
import { execFileSync } from 'node:child_process'
import { systemClock } from '../../src/core/clock.ts'
import type { RingbackError } from '../../src/core/errors.ts'
import { openStore } from '../../src/store/open.ts'
import { addClient, addEndpoint, claimTasks, completed, newTask } from './work.ts'

const [url, bytes] = process.argv.slice(2) as [string, string]
const limitFiles = (most: string): unknown => execFileSync('prlimit', ['--pid', String(process.pid), `--fsize=${most}:unlimited`])
// The system sends this signal when a file may not grow; by default it ends the process.
process.on('SIGXFSZ', () => {})

const store = await openStore({ url, clock: systemClock(), publicUrl: () => '', retrySchedule: [] })
const clientId = await addClient(store)
await addEndpoint(store, { clientId })
const input = JSON.stringify('x'.repeat(20_000))
const stored: string[] = []
const refused: string[] = []
const reasons = new Set<string>()
const add = async (): Promise<void> => {
  const tasks = [newTask({ clientId, input }), newTask({ clientId, input })]
  try {
    await store.tasks.add({ tasks, idempotency: null })
    stored.push(...tasks.map(({ id }) => id))
  } catch (error) {
    refused.push(...tasks.map(({ id }) => id))
    reasons.add(`${(error as RingbackError).status} ${(error as RingbackError).code}`)
  }
}
limitFiles(bytes)
while (refused.length < 40) await Promise.all([add(), add(), add(), add(), add()])
limitFiles('unlimited')
const before = stored.length
await Promise.all([add(), add()])
const [task] = await claimTasks(store, { limit: 1 })
const settled = await store.tasks.settle(completed(task!))
process.stdout.write(
  `${JSON.stringify({ stored, refused, reasons: [...reasons], storedAgain: stored.length - before, settled: settled.kind })}\n`,
)
await store.close()

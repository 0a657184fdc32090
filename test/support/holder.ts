/** A process that opens a store (`node holder.ts <url> owner|guest`), prints the result, and holds the store until its input ends. */
import { systemClock } from '../../src/core/clock.ts'
import { openStore } from '../../src/store/open.ts'

const [url, role] = process.argv.slice(2) as [string, string]
try {
  const store = await openStore({ url, clock: systemClock(), publicUrl: () => '', retrySchedule: [], exclusive: role === 'owner' })
  process.stdout.write(`${JSON.stringify({ opened: true, keys: (await store.signing.listKeys()).length })}\n`)
  for await (const _ of process.stdin);
  await store.close()
} catch (error) {
  process.stdout.write(`${JSON.stringify({ opened: false, name: (error as Error).name, message: (error as Error).message })}\n`)
}

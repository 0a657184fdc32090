/** Milliseconds on the machine's monotonic clock: comparable between processes of one boot. */
export function monotonicMs(): number {
  const [seconds, nanoseconds] = process.hrtime()
  return seconds * 1e3 + nanoseconds / 1e6
}

export const sleepMs = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

/** Asks `done` every `everyMs` until it says true; throws when `timeoutMs` have passed. */
export async function waitUntil(what: string, done: () => Promise<boolean>, everyMs: number, timeoutMs: number): Promise<void> {
  const giveUpAt = monotonicMs() + timeoutMs
  while (!(await done())) {
    if (monotonicMs() > giveUpAt) throw new Error(`${what}: not so after ${timeoutMs / 1e3} s`)
    await sleepMs(everyMs)
  }
}

/** Shared by all runs of the simulation: an empty database and a key. */
import type { ActiveKey } from '../../src/webhook/keys.ts'
import { emptyDatabase } from './database.ts'
import { type Ground, type Outcome, simulate } from './simulate.ts'

/**
 * ECDSA runs on other threads and ends at unpredictable times, which would break a run that must follow from its seed. Webhooks are therefore
 * signed with zeros until `restore` is called. Other tests check signatures.
 */
export async function openSimulations(): Promise<{ readonly ground: Ground; restore(): void }> {
  const { privateKey } = (await crypto.subtle.generateKey({ name: 'ECDSA', namedCurve: 'P-256' }, false, ['sign', 'verify'])) as {
    privateKey: ActiveKey['privateKey']
  }
  const { sign } = crypto.subtle
  crypto.subtle.sign = async () => new ArrayBuffer(64)
  return {
    ground: { empty: await emptyDatabase(), key: { kid: 'simulated', privateKey } },
    restore() {
      crypto.subtle.sign = sign
    },
  }
}

/** Lines of the trace a failure shows: those that name what the violation names, and the last ones. */
const SHOWN = 25
/** A failure as whoever mends it wants to read it. */
function report({ seed, violation, trace }: Outcome): string {
  const named = [...(violation ?? '').matchAll(/(?:task|delivery)-\d+/g)].map(([name]) => name)
  const about = trace.filter((line) => named.some((name) => line.split(' ').includes(name)))
  const shown = [...new Set([...about.slice(-SHOWN), ...trace.slice(-SHOWN)])].sort((a, b) => Number.parseFloat(a) - Number.parseFloat(b))
  return [`seed ${seed}: ${violation}`, `SEED=${seed} npx vitest run test/simulation`, ...shown].join('\n  ')
}

/** Runs under each seed, or under SEED alone; the first violation is thrown with its seed and what led there. */
export async function holdUnder(
  ground: Ground,
  count: number,
): Promise<{
  readonly tasks: number
  readonly webhooks: number
  readonly deaths: number
  readonly answered: ReadonlyMap<string, number>
}> {
  const given = process.env.SEED
  const seeds = given === undefined ? Array.from({ length: count }, (_, i) => i + 1) : [Number(given)]
  const all = { tasks: 0, webhooks: 0, deaths: 0, answered: new Map<string, number>() }
  for (const seed of seeds) {
    const outcome = await simulate(seed, ground)
    if (given !== undefined) console.log(outcome.trace.join('\n'))
    if (outcome.violation !== null) throw new Error(report(outcome))
    for (const [what, times] of outcome.answered) all.answered.set(what, (all.answered.get(what) ?? 0) + times)
    for (const name of ['tasks', 'webhooks', 'deaths'] as const) all[name] += outcome[name]
  }
  return all
}

/** Task types of simulated nodes and workers. The input controls the handler, on the clock of its process. */
import type { Clock } from '../../src/core/clock.ts'
import type { Millis } from '../../src/core/model.ts'
import { defineTask, Permanent, Postpone, type RunContext, type TaskType } from '../../src/tasks/define.ts'

/** How a try ends when nothing ends it earlier. */
export type Ending = 'returns' | 'throws' | 'refuses' | 'postpones'
export interface Plan {
  readonly ms: Millis
  readonly reports: number
  /** By try; the last one repeats. */
  readonly endings: readonly Ending[]
  /** What it does when its signal fires: heeds it, returns its result nevertheless, or goes on as if nothing had happened. */
  readonly signal: 'heeds' | 'returns' | 'ignores'
}

/** Type → how many of it may run at once. */
export const LIMITS: ReadonlyMap<string, number> = new Map([
  ['work.scarce', 2],
  ['pulled.scarce', 2],
])
const TYPES = ['work.plain', 'work.scarce'] as const
/** Those that workers over HTTP run. */
export const PULLED: readonly string[] = ['pulled.plain', 'pulled.scarce']
const retry = { tries: 3, delayMs: (tries: number, random: number) => Math.round(500 * 4 ** tries * (0.5 + random / 2)) }

export function taskTypes(clock: Clock, started: (run: RunContext['task']) => void): readonly TaskType[] {
  const common = (type: string) => ({ type, retry, ...(LIMITS.has(type) && { concurrency: LIMITS.get(type)! }) })
  const run = TYPES.map((type) =>
    defineTask({
      ...common(type),
      async run(input: unknown, { task, signal, progress }) {
        started(task)
        const plan = input as Plan
        for (let step = 1; step <= plan.reports + 1; step++) {
          const cut = await nap(clock, plan.ms / (plan.reports + 1), plan.signal === 'ignores' ? null : signal)
          if (cut && plan.signal === 'returns') break
          if (cut) throw new Error(`cut off under fence ${task.fence}`)
          if (step <= plan.reports) progress((100 * step) / (plan.reports + 1))
        }
        const ending = plan.endings[Math.min(task.try, plan.endings.length) - 1]
        if (ending === 'throws') throw new Error(`failed under fence ${task.fence}`)
        if (ending === 'refuses') throw new Permanent(`refused under fence ${task.fence}`)
        if (ending === 'postpones' && clock.random() < 0.7) throw new Postpone(3)
        return { fence: task.fence, try: task.try }
      },
    }),
  )
  return [...run, ...PULLED.map((type) => defineTask({ ...common(type), where: 'worker' }))]
}

/** Whether it was cut short. */
export function nap(clock: Clock, ms: Millis, signal: AbortSignal | null): Promise<boolean> {
  return new Promise((resolve) => {
    if (signal?.aborted) return resolve(true)
    const cancel = clock.after(ms, () => resolve(false))
    signal?.addEventListener('abort', () => {
      cancel()
      resolve(true)
    })
  })
}

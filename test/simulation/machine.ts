/** The clock of a simulated machine, and the clock that its processes use. */
import { type Clock, createStampCounter, slewedNow } from '../../src/core/clock.ts'
import type { Millis } from '../../src/core/model.ts'
import type { Owner, World } from './world.ts'

/** Start of virtual time, in epoch milliseconds. */
export const EPOCH: Millis = 1_800_000_000_000

/** A wall clock that is wrong, and wrong in another way after it was set. */
export interface Machine {
  wall(): Millis
  /** Somebody, or a daemon, sets the wall clock. */
  step(ms: Millis): void
}
export function createMachine(world: World, skewMs: Millis): Machine {
  let skew = skewMs
  return {
    wall: () => EPOCH + world.now() + skew,
    step(ms) {
      skew += ms
    },
  }
}

/** A process: it lives, stands still, dies. */
export interface Life extends Owner {
  readonly clock: Clock
  /** Everything of it stands still for so long; suspended, its monotonic clock does as well. */
  stall(ms: Millis, suspended: boolean): void
}
/** Below this, two moments are one: sums of fractions are not exact. */
const GRAIN_MS: Millis = 0.001

export function createLife(world: World, machine: Machine): Life {
  let slept = 0
  const monotonic = (): Millis => world.now() - slept
  const now = slewedNow(machine.wall, monotonic)
  const life: Life = {
    alive: true,
    stalledUntil: 0,
    stall(ms, suspended) {
      life.stalledUntil = Math.max(life.stalledUntil, world.now() + ms)
      if (suspended) slept += ms
    },
    clock: {
      now,
      wall: () => machine.wall(),
      stamp: createStampCounter(now),
      random: world.random,
      bytes: world.bytes,
      after(ms, wake) {
        const end = monotonic() + Math.max(0, ms)
        let cancel = (): void => {}
        const arm = (): void => {
          cancel = world.after(end - monotonic(), life, () => (monotonic() < end - GRAIN_MS ? arm() : wake()))
        }
        arm()
        return () => cancel()
      },
    },
  }
  return life
}

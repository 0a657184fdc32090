/**
 * Who may hold how many of a node's slots: dynamic thresholds, as switches share a buffer among queues.
 *
 * A client is given another slot only while it then holds at most {@link SHARE} times what is free: three quarters of all when it is alone,
 * three sevenths each where two do it. So something stays free for those who come, however long the others hold theirs, and nothing is set
 * aside for anybody in particular. What a client may still get is shared out among its lanes by the same rule. Whoever holds none gets one
 * while any is free.
 */
import type { Allotment, SlotRefusal } from '../store/interfaces.ts'

const SHARE = 3

/** How many more of `free` somebody may get who holds `held`: as long as what is then held is at most {@link SHARE} times what is then free. */
export function fairAllowance(held: number, free: number): number {
  if (free <= 0) return 0
  return Math.max(held === 0 ? 1 : 0, Math.floor((SHARE * free - held) / (SHARE + 1)))
}

/** Where slots are not apportioned: whoever comes. */
export const unlimitedAllotment: Allotment = { refused: [], take: (_clientId, _laneId, n) => n }

interface Share {
  held: number
  readonly lanes: Map<string, number>
}
/** Work that holds a slot. */
export interface SlotHolder {
  readonly clientId: string
  readonly laneId: string
}

/** Counts who holds what; how many are free says whoever has them. */
export class SlotShares {
  #held = 0
  readonly #shares = new Map<string, Share>()

  acquire({ clientId, laneId }: SlotHolder): void {
    this.#held++
    add(this.#shares, clientId, laneId, 1)
  }

  release({ clientId, laneId }: SlotHolder): void {
    this.#held--
    const share = add(this.#shares, clientId, laneId, -1)
    if (share.lanes.get(laneId) === 0) share.lanes.delete(laneId)
    if (share.held === 0) this.#shares.delete(clientId)
  }

  /** What is free, to be shared out by one run of a script. */
  allot(free: number): Allotment {
    const drawn = new Map<string, Share>()
    let left = free
    return {
      refused: this.#refused(free),
      take: (clientId, laneId, n) => {
        const held = this.#shares.get(clientId)
        const more = drawn.get(clientId)
        const own = fairAllowance((held?.held ?? 0) + (more?.held ?? 0), left)
        const got = Math.min(n, fairAllowance((held?.lanes.get(laneId) ?? 0) + (more?.lanes.get(laneId) ?? 0), own))
        if (got > 0) add(drawn, clientId, laneId, got)
        left -= got
        return got
      },
    }
  }

  /** Whether one of those who were refused may have a slot now. */
  canServeAny(refused: readonly SlotRefusal[], free: number): boolean {
    return refused.some(({ clientId, laneId }) => {
      const share = this.#shares.get(clientId)
      const own = fairAllowance(share?.held ?? 0, free)
      return (laneId === null ? own : fairAllowance(share?.lanes.get(laneId) ?? 0, own)) > 0
    })
  }

  #refused(free: number): readonly SlotRefusal[] {
    // The usual case: one lane could hold all that is held, and still get another.
    if (fairAllowance(this.#held, fairAllowance(this.#held, free)) > 0) return unlimitedAllotment.refused
    const refused: SlotRefusal[] = []
    for (const [clientId, { held, lanes }] of this.#shares) {
      const own = fairAllowance(held, free)
      if (own === 0) refused.push({ clientId, laneId: null })
      else for (const [laneId, n] of lanes) if (fairAllowance(n, own) === 0) refused.push({ clientId, laneId })
    }
    return refused
  }
}

function add(shares: Map<string, Share>, clientId: string, laneId: string, n: number): Share {
  const share = shares.get(clientId) ?? { held: 0, lanes: new Map() }
  shares.set(clientId, share)
  share.held += n
  share.lanes.set(laneId, (share.lanes.get(laneId) ?? 0) + n)
  return share
}

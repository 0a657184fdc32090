/**
 * How many slots of a node one client may hold: dynamic thresholds, as switches share a buffer among queues.
 *
 * A client gets another slot only while it then holds at most {@link SHARE} times the free slots: one busy client may use 75 % of all slots,
 * two may use 3/7 each. So some slots stay free for other clients, without a reserve for any of them. The same rule divides a client's slots
 * among its lanes. A client without a slot gets one while any is free.
 */

const SHARE = 3

/** Hands out a node's free slots during one run of a claim script. */
export interface Allotment {
  /** Clients and lanes that are over their share before the claim starts: the query skips them. */
  readonly refused: readonly SlotRefusal[]
  /** Takes up to `n` slots for a lane; returns how many. */
  take(clientId: string, laneId: string, n: number): number
}
/** A client that gets no slot, or none for the lane. */
export interface SlotRefusal {
  readonly clientId: string
  readonly laneId: string | null
}

/** How many of `free` slots a holder of `held` may add: afterwards it holds at most {@link SHARE} times what is then free. */
export function fairAllowance(held: number, free: number): number {
  if (free <= 0) return 0
  return Math.max(held === 0 ? 1 : 0, Math.floor((SHARE * free - held) / (SHARE + 1)))
}

/** First come, first served. */
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

/** Counts the slots that clients and lanes hold. The caller knows how many are free. */
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

  /** Free slots for one run of a claim script. */
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

  /** Whether one of the refused may get a slot now. */
  canServeAny(refused: readonly SlotRefusal[], free: number): boolean {
    return refused.some(({ clientId, laneId }) => {
      const share = this.#shares.get(clientId)
      const own = fairAllowance(share?.held ?? 0, free)
      return (laneId === null ? own : fairAllowance(share?.lanes.get(laneId) ?? 0, own)) > 0
    })
  }

  #refused(free: number): readonly SlotRefusal[] {
    // The usual case: even if one lane held every slot in use, it would get another. So nobody is over the share.
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

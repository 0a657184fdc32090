/** How many calls may stay open at once, of one client and on one node: streams, and calls that wait. */
import { RingbackError } from '../../core/errors.ts'
import type { Caller } from '../request/auth.ts'

/** Over `client` more of that client are refused with 429, over `node` more of anybody with 503. */
export interface OpenCallLimits {
  readonly node: number
  readonly client: number
}

export interface OpenCallLimiter {
  /** Why there is none for this caller now; null: there is one. */
  limitError(caller: Caller): RingbackError | null
  /**
   * Takes one. The answer gives it back, and is to be called once.
   * @throws RingbackError `quota_exceeded`, `temporary_reduced_capacity`
   */
  acquire(caller: Caller): () => void
  /** Holds one for as long as `work` takes. Throws as `take` does. */
  runWithSlot<T>(caller: Caller, work: () => Promise<T>): Promise<T>
}

const BUSY_SECONDS = '10'

/** `what` they are, in the plural, and what to do `instead`: for the sentences of refusals. */
export function createOpenCallLimiter(most: OpenCallLimits, what: string, instead: string): OpenCallLimiter {
  const open = new Map<string, number>()
  let taken = 0

  const refusal = ({ clientId }: Caller): RingbackError | null => {
    const headers = { 'Retry-After': BUSY_SECONDS }
    const own = open.get(clientId ?? '') ?? 0
    if (own >= most.client)
      return new RingbackError('quota_exceeded', `You have ${own} ${what} open here, as many as there may be: ${instead}.`, { headers })
    if (taken >= most.node)
      return new RingbackError('temporary_reduced_capacity', `${taken} ${what} are open here, as many as there may be: ${instead}.`, {
        headers,
      })
    return null
  }
  const take = (caller: Caller): (() => void) => {
    const why = refusal(caller)
    if (why) throw why
    const who = caller.clientId ?? ''
    open.set(who, (open.get(who) ?? 0) + 1)
    taken++
    return () => {
      taken--
      const left = (open.get(who) ?? 1) - 1
      if (left === 0) open.delete(who)
      else open.set(who, left)
    }
  }
  return {
    limitError: refusal,
    acquire: take,
    async runWithSlot(caller, work) {
      const giveBack = take(caller)
      try {
        return await work()
      } finally {
        giveBack()
      }
    },
  }
}

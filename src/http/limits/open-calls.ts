/** Limits of open calls, per client and per node: streams, and calls that wait. */
import { RingbackError } from '../../core/errors.ts'
import type { Caller } from '../request/auth.ts'

/** Above `client`, the client gets 429. Above `node`, everyone gets 503. */
export interface OpenCallLimits {
  readonly node: number
  readonly client: number
}

export interface OpenCallLimiter {
  /** The error that `acquire` would throw now. Null: a slot is free. */
  limitError(caller: Caller): RingbackError | null
  /**
   * Takes a slot. Call the returned function once to release it.
   * @throws RingbackError `quota_exceeded`, `temporary_reduced_capacity`
   */
  acquire(caller: Caller): () => void
  /** Holds a slot while `work` runs. Throws as `acquire` does. */
  runWithSlot<T>(caller: Caller, work: () => Promise<T>): Promise<T>
}

const headers = { 'Retry-After': '10' }

/** `what` (a plural) and `instead` (an advice) are for the error messages. */
export function createOpenCallLimiter(max: OpenCallLimits, what: string, instead: string): OpenCallLimiter {
  const open = new Map<string, number>()
  let total = 0

  const limitError = ({ clientId }: Caller): RingbackError | null => {
    const own = open.get(clientId ?? '') ?? 0
    if (own >= max.client)
      return new RingbackError('quota_exceeded', `You have ${own} ${what} open here, the maximum: ${instead}.`, { headers })
    if (total >= max.node)
      return new RingbackError('temporary_reduced_capacity', `${total} ${what} are open here, the maximum: ${instead}.`, { headers })
    return null
  }
  const acquire = (caller: Caller): (() => void) => {
    const error = limitError(caller)
    if (error) throw error
    const id = caller.clientId ?? ''
    open.set(id, (open.get(id) ?? 0) + 1)
    total++
    return () => {
      total--
      const left = (open.get(id) ?? 1) - 1
      if (left === 0) open.delete(id)
      else open.set(id, left)
    }
  }
  return {
    limitError,
    acquire,
    async runWithSlot(caller, work) {
      const release = acquire(caller)
      try {
        return await work()
      } finally {
        release()
      }
    },
  }
}

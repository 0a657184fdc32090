/** Lease tokens: a worker proves with one that it has the lease of a task, and under which fence. */
import { createHmac, timingSafeEqual } from 'node:crypto'
import { type StoredSecretOptions, storedSecret } from './stored-secret.ts'

export interface LeaseTokens {
  issue(taskId: string, fence: number): Promise<string>
  /** The fence. Null: the token does not belong to the task. */
  verify(taskId: string, token: string): Promise<number | null>
}

const FENCE_BYTES = 8
const TAG_BYTES = 16

/** A token is the fence and an HMAC-SHA-256 over task and fence, cut to 16 bytes. It expires with its lease, so the key needs no rotation. */
export function createLeaseTokens(options: StoredSecretOptions): LeaseTokens {
  const getKey = storedSecret(options, 'leaseKey')
  const sign = async (taskId: string, fence: number): Promise<Buffer> => {
    const token = Buffer.alloc(FENCE_BYTES)
    token.writeBigUInt64BE(BigInt(fence))
    const tag = createHmac('sha256', await getKey())
      .update(`${taskId} ${fence}`)
      .digest()
    return Buffer.concat([token, tag.subarray(0, TAG_BYTES)])
  }
  return {
    issue: async (taskId, fence) => (await sign(taskId, fence)).toString('base64url'),
    async verify(taskId, token) {
      const given = Buffer.from(token, 'base64url')
      if (given.length !== FENCE_BYTES + TAG_BYTES) return null
      const fence = Number(given.readBigUInt64BE())
      return Number.isSafeInteger(fence) && timingSafeEqual(given, await sign(taskId, fence)) ? fence : null
    },
  }
}

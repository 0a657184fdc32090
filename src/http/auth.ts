/** Who calls: a client's key, an operator's key or the admin token. */
import { timingSafeEqual } from 'node:crypto'
import { hashApiKey, looksLikeApiKey } from '../apikey.ts'
import type { Clock } from '../clock.ts'
import { RingbackError } from '../errors.ts'
import type { Millis, Scope } from '../model.ts'
import type { Store } from '../store/store.ts'

export interface Caller {
  /** Null: the operator, or a worker. */
  readonly clientId: string | null
  readonly keyId: string | null
  /** Reads and acts on every client's objects. */
  readonly operator: boolean
  readonly scopes: ReadonlySet<string>
  readonly suspended: boolean
}

/** Remembers keys for as long as a key revoked on another node may still work here. */
const REMEMBERED_MS = 5_000
/** Bounds the memory that callers with many keys take: about 400 bytes each. */
const MOST_REMEMBERED = 10_000

interface Remembered {
  readonly caller: Caller
  readonly until: Millis
}

export interface Gate {
  /**
   * Who the `Authorization` header names: at once when the key is remembered.
   * @throws RingbackError `unauthenticated`
   */
  recognize(authorization: string | undefined): Caller | Promise<Caller>
  /** @throws RingbackError `insufficient_scope`, also for a suspended client: its key is genuine and allows nothing for now. */
  allow(caller: Caller, scope: Scope, clientOnly: boolean): void
  /** A key was revoked, or a client suspended, resumed or removed: on this node it counts from now. */
  forget(of: { keyId?: string; clientId?: string }): void
}

export function createGate(options: { store: Pick<Store, 'findKey'>; clock: Clock; adminToken: string | null }): Gate {
  const { store, clock } = options
  const admin = options.adminToken === null ? null : Buffer.from(hashApiKey(options.adminToken), 'hex')
  const remembered = new Map<string, Remembered>()
  const asked = new Map<string, Promise<Caller>>()
  let forgotten = 0

  async function ask(hash: string): Promise<Caller> {
    const before = forgotten
    const now = clock.now()
    const key = await store.findKey(hash)
    if (key === null || key.clientStatus === 'deleted') throw unauthenticated('The key is unknown.')
    if (key.revokedAt !== null) throw unauthenticated('The key was revoked.')
    if (key.expiresAt !== null && key.expiresAt <= now) throw unauthenticated('The key has expired.')
    const scopes = new Set<string>(JSON.parse(key.scopes))
    const operator = key.clientId === null && scopes.has('admin')
    const caller: Caller = { clientId: key.clientId, keyId: key.id, operator, scopes, suspended: key.clientStatus === 'suspended' }
    if (before === forgotten) {
      if (remembered.size >= MOST_REMEMBERED) for (const oldest of remembered.keys()) if (remembered.delete(oldest)) break
      remembered.set(hash, { caller, until: Math.min(now + REMEMBERED_MS, key.expiresAt ?? Number.POSITIVE_INFINITY) })
    }
    return caller
  }

  return {
    recognize(authorization) {
      if (authorization === undefined || authorization.slice(0, 7).toLowerCase() !== 'bearer ')
        throw unauthenticated('Give a key: Authorization: Bearer <key>.', false)
      const token = authorization.slice(7).trim()
      const hash = hashApiKey(token)
      const known = remembered.get(hash)
      if (known !== undefined) {
        if (known.until > clock.now()) return known.caller
        remembered.delete(hash)
      }
      if (admin !== null && timingSafeEqual(admin, Buffer.from(hash, 'hex'))) return operatorByToken
      if (!looksLikeApiKey(token)) throw unauthenticated('The key is unknown, or was cut off when it was copied.')
      const pending = asked.get(hash)
      if (pending) return pending
      const answer = ask(hash).finally(() => asked.delete(hash))
      asked.set(hash, answer)
      return answer
    },
    allow(caller, scope, clientOnly) {
      if (caller.suspended) throw insufficient(scope, 'The client is suspended; its operator can resume it.')
      if (clientOnly && caller.clientId === null)
        throw insufficient(scope, 'This needs the key of a client: the operator owns no tasks and no endpoints.')
      if (!caller.operator && !caller.scopes.has(scope)) throw insufficient(scope, `The key lacks the scope "${scope}".`)
    },
    forget({ keyId, clientId }) {
      forgotten++
      for (const [hash, { caller }] of remembered)
        if ((keyId !== undefined && caller.keyId === keyId) || (clientId !== undefined && caller.clientId === clientId))
          remembered.delete(hash)
    },
  }
}

const operatorByToken: Caller = { clientId: null, keyId: null, operator: true, scopes: new Set(['admin']), suspended: false }

/** RFC 6750 §3: the error is named only when a key was given. */
function unauthenticated(detail: string, given = true): RingbackError {
  const challenge = `Bearer realm="ringback"${given ? ', error="invalid_token"' : ''}`
  return new RingbackError('unauthenticated', detail, { headers: { 'WWW-Authenticate': challenge } })
}

function insufficient(scope: Scope, detail: string): RingbackError {
  const challenge = `Bearer realm="ringback", error="insufficient_scope", scope="${scope}"`
  return new RingbackError('insufficient_scope', detail, { headers: { 'WWW-Authenticate': challenge } })
}

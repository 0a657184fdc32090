/** Who calls: a client's key, an operator's key or the admin token. */
import { timingSafeEqual } from 'node:crypto'
import { hashApiKey, looksLikeApiKey } from '../../core/api-key.ts'
import type { Clock } from '../../core/clock.ts'
import { RingbackError } from '../../core/errors.ts'
import { clientScopes, type Millis, type Scope } from '../../core/model.ts'
import type { StoreWith } from '../../store/interfaces.ts'
import { createUnknownKeyLimiter } from '../limits/rate-limit.ts'

export interface Caller {
  /** Null: the operator, or a worker. */
  readonly clientId: string | null
  readonly keyId: string | null
  /** Reads and acts on every client's objects. */
  readonly operator: boolean
  readonly scopes: ReadonlySet<string>
  /** Task types a worker may claim; null: every type that workers run. */
  readonly taskTypes: readonly string[] | null
  readonly suspended: boolean
}

/** Remembers keys for as long as a key revoked on another node may still work here. */
const REMEMBERED_MS = 5_000
/** Bounds the memory that callers with many keys take: about 400 bytes each. */
const MAX_REMEMBERED = 10_000
/** Headers recognized without hashing: a busy node hears few keys, again and again. */
const MAX_RECENT = 1_000

/** A key whose last use is younger is not noted again. */
const USED_EVERY_MS = 60_000
const OPERATOR_SCOPES = ['worker', 'admin'] as const satisfies readonly Scope[]

interface CachedCaller {
  readonly caller: Caller
  readonly until: Millis
}

export interface Authenticator {
  /**
   * Who the `Authorization` header names: at once when the key is remembered. `from` is where the caller is, as far as is known.
   * @throws RingbackError `unauthenticated`; `quota_exceeded` after too many unknown keys from there, of keys that this node has not met
   */
  authenticate(authorization: string | undefined, now: Millis, from?: { readonly address: string | null }): Caller | Promise<Caller>
  /** @throws RingbackError `insufficient_scope`, also for a suspended client: its key is genuine and allows nothing for now. */
  authorize(caller: Caller, scope: Scope, clientOnly: boolean): void
}

export interface AuthenticatorOptions {
  readonly store: StoreWith<{ access: 'findKey' | 'touchKey'; notifications: 'onAccess' }>
  readonly clock: Clock
  readonly adminToken: string | null
}
export function createAuthenticator(options: AuthenticatorOptions): Authenticator {
  const { store, clock } = options
  const admin = options.adminToken === null ? null : Buffer.from(hashApiKey(options.adminToken), 'hex')
  const remembered = new Map<string, CachedCaller>()
  const letIn = createUnknownKeyLimiter()
  const asked = new Map<string, Promise<Caller>>()
  /** By the header as it came. It holds keys themselves, so it is emptied when its entries have lapsed, at the next look-up. */
  const recent = new Map<string, CachedCaller>()
  let recentUntil = Number.NEGATIVE_INFINITY
  let forgotten = 0

  async function ask(hash: string): Promise<Caller> {
    const before = forgotten
    const now = clock.now()
    const key = await store.access.findKey(hash)
    if (key === null || key.clientStatus === 'deleted' || key.clientStatus === 'erased') throw unauthenticated('The key is unknown.')
    if (key.revokedAt !== null) throw unauthenticated('The key was revoked.')
    if (key.expiresAt !== null && key.expiresAt <= now) throw unauthenticated('The key has expired.')
    // Whatever a row says: no client's key holds a scope of the operator's, and none of the operator's one of a client.
    const may: readonly string[] = key.clientId === null ? OPERATOR_SCOPES : clientScopes
    const scopes = new Set((JSON.parse(key.scopes) as string[]).filter((scope) => may.includes(scope)))
    const caller: Caller = {
      clientId: key.clientId,
      keyId: key.id,
      operator: scopes.has('admin'),
      scopes,
      taskTypes: key.taskTypes === null ? null : (JSON.parse(key.taskTypes) as string[]),
      suspended: key.clientStatus === 'suspended',
    }
    // Nobody waits for it, and a note that is lost is made again at the next question.
    if (key.lastUsedAt === null || key.lastUsedAt + USED_EVERY_MS <= now) store.access.touchKey({ id: key.id }).catch(() => {})
    if (before === forgotten) {
      if (remembered.size >= MAX_REMEMBERED) for (const oldest of remembered.keys()) if (remembered.delete(oldest)) break
      remembered.set(hash, { caller, until: Math.min(now + REMEMBERED_MS, key.expiresAt ?? Number.POSITIVE_INFINITY) })
    }
    return caller
  }

  async function askAt(address: string, hash: string): Promise<Caller> {
    const giveBack = await letIn(address)
    try {
      const caller = await ask(hash)
      giveBack()
      return caller
    } catch (error) {
      if (!(error instanceof RingbackError) || error.code !== 'unauthenticated') giveBack()
      throw error
    }
  }

  function keep(authorization: string, known: CachedCaller, now: Millis): void {
    if (now >= recentUntil || recent.size >= MAX_RECENT) {
      recent.clear()
      recentUntil = now + REMEMBERED_MS
    }
    recent.set(authorization, known)
  }

  /** On this node it counts from now; words of other nodes may be lost, and then it does when what is remembered has lapsed. */
  store.notifications.onAccess((id) => {
    forgotten++
    // Whoever comes from now on must not be told what was read before.
    asked.clear()
    recent.clear()
    for (const [hash, { caller }] of remembered) if (id === null || caller.keyId === id || caller.clientId === id) remembered.delete(hash)
  })

  return {
    authenticate(authorization, now, from) {
      const seen = recent.get(authorization ?? '')
      if (seen !== undefined && seen.until > now) return seen.caller
      if (authorization === undefined || authorization.slice(0, 7).toLowerCase() !== 'bearer ')
        throw unauthenticated('Give a key: Authorization: Bearer <key>.', false)
      const token = authorization.slice(7).trim()
      const hash = hashApiKey(token)
      const known = remembered.get(hash)
      if (known !== undefined) {
        if (known.until > now) {
          keep(authorization, known, now)
          return known.caller
        }
        remembered.delete(hash)
      }
      if (admin !== null && timingSafeEqual(admin, Buffer.from(hash, 'hex'))) return operatorByToken
      if (!looksLikeApiKey(token)) throw unauthenticated('The key is unknown, or was cut off when it was copied.')
      const pending = asked.get(hash)
      if (pending) return pending
      const address = known === undefined ? (from?.address ?? null) : null
      const answer = (address === null ? ask(hash) : askAt(address, hash)).finally(() => {
        if (asked.get(hash) === answer) asked.delete(hash)
      })
      asked.set(hash, answer)
      return answer
    },
    authorize(caller, scope, clientOnly) {
      if (caller.suspended) throw insufficient(scope, 'The client is suspended; its operator can resume it.')
      if (clientOnly && caller.clientId === null)
        throw insufficient(scope, 'This needs the key of a client: the operator owns no tasks and no endpoints.')
      if (!caller.operator && !caller.scopes.has(scope)) throw insufficient(scope, `The key lacks the scope "${scope}".`)
    },
  }
}

const operatorByToken: Caller = {
  clientId: null,
  keyId: null,
  operator: true,
  scopes: new Set(['admin']),
  taskTypes: null,
  suspended: false,
}

/** RFC 6750 §3: the error is named only when a key was given. */
function unauthenticated(detail: string, given = true): RingbackError {
  const challenge = `Bearer realm="ringback"${given ? ', error="invalid_token"' : ''}`
  return new RingbackError('unauthenticated', detail, { headers: { 'WWW-Authenticate': challenge } })
}

function insufficient(scope: Scope, detail: string): RingbackError {
  const challenge = `Bearer realm="ringback", error="insufficient_scope", scope="${scope}"`
  return new RingbackError('insufficient_scope', detail, { headers: { 'WWW-Authenticate': challenge } })
}

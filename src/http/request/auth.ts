/** Who calls: proved by a client's key, an operator's key or the admin token. */
import { timingSafeEqual } from 'node:crypto'
import { LRUCache } from 'lru-cache'
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
  /** The operator reads and acts on the objects of every client. */
  readonly operator: boolean
  readonly scopes: ReadonlySet<string>
  /** Task types that a worker may claim. Null: every type that workers run. */
  readonly taskTypes: readonly string[] | null
  readonly suspended: boolean
}

/** What a proof reads of a request. */
export interface CallerRequest {
  /** A request header by its lower-case name. */
  header(name: string): string | undefined
  /** The IP address of the caller. Null: unknown, and then unknown keys are not counted. */
  readonly address: string | null
}

/**
 * One way to prove who calls. Null: the request does not use this way.
 * @throws RingbackError `unauthenticated` for an invalid proof
 */
type CallerProof = (request: CallerRequest, now: Millis) => Caller | Promise<Caller> | null

export interface Authenticator {
  /**
   * The caller of a request: at once when it is cached.
   * @throws RingbackError `unauthenticated`; `quota_exceeded` after too many unknown keys from one address, for keys that are not cached
   */
  authenticate(request: CallerRequest, now: Millis): Caller | Promise<Caller>
  /** @throws RingbackError `insufficient_scope`, also for a suspended client: its key is valid and allows nothing. */
  authorize(caller: Caller, scope: Scope, clientOnly: boolean): void
}

export interface AuthenticatorOptions {
  readonly store: StoreWith<{ access: 'findKey' | 'touchKey'; notifications: 'onAccess' }>
  readonly clock: Clock
  readonly adminToken: string | null
}

export function createAuthenticator(options: AuthenticatorOptions): Authenticator {
  const proofs: readonly CallerProof[] = [createBearerProof(options)]
  return {
    authenticate(request, now) {
      for (const proof of proofs) {
        const caller = proof(request, now)
        if (caller !== null) return caller
      }
      throw unauthenticated('Give a key: Authorization: Bearer <key>.', false)
    },
    authorize(caller, scope, clientOnly) {
      if (caller.suspended) throw insufficient(scope, 'The client is suspended; its operator can resume it.')
      if (clientOnly && caller.clientId === null)
        throw insufficient(scope, 'This needs the key of a client: the operator owns no tasks and no endpoints.')
      if (!caller.operator && !caller.scopes.has(scope)) throw insufficient(scope, `The key lacks the scope "${scope}".`)
    },
  }
}

/** How long a key is cached: a key that another node revokes works here for this long at most. */
const CACHED_MS: Millis = 5_000
/** Cached keys, about 400 bytes each. */
const MAX_CACHED = 10_000
/** Headers that are recognized without hashing. */
const MAX_RECENT = 1_000
/** The last use of a key is stored at most this often. */
const TOUCH_EVERY_MS: Millis = 60_000
const OPERATOR_SCOPES = ['worker', 'admin'] as const satisfies readonly Scope[]

interface CachedCaller {
  readonly caller: Caller
  readonly until: Millis
}

/** Proof by `Authorization: Bearer <key>`. */
function createBearerProof({ store, clock, adminToken }: AuthenticatorOptions): CallerProof {
  const admin = adminToken === null ? null : Buffer.from(hashApiKey(adminToken), 'hex')
  const byHash = new LRUCache<string, CachedCaller>({ max: MAX_CACHED })
  const countUnknownKey = createUnknownKeyLimiter()
  const lookups = new Map<string, Promise<Caller>>()
  /** By header. It holds plain keys, so it is cleared at the first look-up after {@link CACHED_MS}. */
  const recent = new Map<string, CachedCaller>()
  let recentUntil = Number.NEGATIVE_INFINITY
  /** Counts changes of access. A look-up that began before a change is not cached. */
  let changes = 0

  async function lookUp(hash: string): Promise<Caller> {
    const before = changes
    const now = clock.now()
    const key = await store.access.findKey(hash)
    if (key === null || key.clientStatus === 'deleted' || key.clientStatus === 'erased') throw unauthenticated('The key is unknown.')
    if (key.revokedAt !== null) throw unauthenticated('The key was revoked.')
    if (key.expiresAt !== null && key.expiresAt <= now) throw unauthenticated('The key has expired.')
    // Whatever the row says: a client's key never holds an operator's scope, and an operator's key never holds a client's scope.
    const allowed: readonly string[] = key.clientId === null ? OPERATOR_SCOPES : clientScopes
    const scopes = new Set((JSON.parse(key.scopes) as string[]).filter((scope) => allowed.includes(scope)))
    const caller: Caller = {
      clientId: key.clientId,
      keyId: key.id,
      operator: scopes.has('admin'),
      scopes,
      taskTypes: key.taskTypes === null ? null : (JSON.parse(key.taskTypes) as string[]),
      suspended: key.clientStatus === 'suspended',
    }
    // Nothing waits for this write. If it fails, the next look-up repeats it.
    if (key.lastUsedAt === null || key.lastUsedAt + TOUCH_EVERY_MS <= now) store.access.touchKey({ id: key.id }).catch(() => {})
    if (before === changes) byHash.set(hash, { caller, until: Math.min(now + CACHED_MS, key.expiresAt ?? Number.POSITIVE_INFINITY) })
    return caller
  }

  async function lookUpCounted(address: string, hash: string): Promise<Caller> {
    const refund = await countUnknownKey(address)
    try {
      const caller = await lookUp(hash)
      refund()
      return caller
    } catch (error) {
      if (!(error instanceof RingbackError) || error.code !== 'unauthenticated') refund()
      throw error
    }
  }

  function cacheHeader(authorization: string, cached: CachedCaller, now: Millis): void {
    if (now >= recentUntil || recent.size >= MAX_RECENT) {
      recent.clear()
      recentUntil = now + CACHED_MS
    }
    recent.set(authorization, cached)
  }

  // On this node a change applies at once. A notification from another node may be lost; then it applies when the cache entry ends.
  store.notifications.onAccess((id) => {
    changes++
    // Later requests must not share a look-up that read the state before the change.
    lookups.clear()
    recent.clear()
    for (const [hash, { caller }] of [...byHash]) if (id === null || caller.keyId === id || caller.clientId === id) byHash.delete(hash)
  })

  return (request, now) => {
    const authorization = request.header('authorization')
    if (authorization === undefined || authorization.slice(0, 7).toLowerCase() !== 'bearer ') return null
    const seen = recent.get(authorization)
    if (seen !== undefined && seen.until > now) return seen.caller
    const token = authorization.slice(7).trim()
    const hash = hashApiKey(token)
    const cached = byHash.get(hash)
    if (cached !== undefined) {
      if (cached.until > now) {
        cacheHeader(authorization, cached, now)
        return cached.caller
      }
      byHash.delete(hash)
    }
    if (admin !== null && timingSafeEqual(admin, Buffer.from(hash, 'hex'))) return operatorByToken
    if (!looksLikeApiKey(token)) throw unauthenticated('The key is unknown, or was cut off when it was copied.')
    const pending = lookups.get(hash)
    if (pending) return pending
    const address = cached === undefined ? request.address : null
    const found = (address === null ? lookUp(hash) : lookUpCounted(address, hash)).finally(() => {
      if (lookups.get(hash) === found) lookups.delete(hash)
    })
    lookups.set(hash, found)
    return found
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

/** RFC 6750 §3: the error is named only when the request had a key. */
function unauthenticated(detail: string, given = true): RingbackError {
  const challenge = `Bearer realm="ringback"${given ? ', error="invalid_token"' : ''}`
  return new RingbackError('unauthenticated', detail, { headers: { 'WWW-Authenticate': challenge } })
}

function insufficient(scope: Scope, detail: string): RingbackError {
  const challenge = `Bearer realm="ringback", error="insufficient_scope", scope="${scope}"`
  return new RingbackError('insufficient_scope', detail, { headers: { 'WWW-Authenticate': challenge } })
}

/** The life of the keys that sign webhooks: made on the first start, published as a JWKS, sealed at rest, rotated when due, read anew every 30 seconds. */
import { createHash } from 'node:crypto'
import { type CryptoKey, calculateJwkThumbprint, exportJWK, generateKeyPair, importJWK, type JWK } from 'jose'
import type { Clock } from '../core/clock.ts'
import type { Encryptor } from '../core/encryption.ts'
import type { Millis, SigningKey, SigningKeyState } from '../core/model.ts'
import type { SigningKeyRotation, StoreWith } from '../store/interfaces.ts'

/** What the ring asks of a store. */

export interface ActiveKey {
  /** RFC 7638 thumbprint. */
  readonly kid: string
  readonly privateKey: CryptoKey
}

/** A JSON Web Key Set (RFC 7517 §5) as it is served, and its strong ETag with the quotes. */
export interface Jwks {
  readonly body: string
  readonly etag: string
}

export interface KeyRing {
  /** Reads the keys now, does what is due in their lives, and makes the active and the next one where they are missing. Call it at the start and whenever the keys may have changed. */
  load(): Promise<void>
  /** The key to sign with, by a view of the store at most 60 s old. Rejects when no view that young can be had. */
  active(): Promise<ActiveKey>
  /** The published keys: active, next and retiring. Throws when nothing was loaded yet. A view older than 30 s is served and read anew behind it. */
  jwks(): Jwks
  /** When a wanted next key will sign, and when a retiring one will be gone. */
  keyTransitionTimes(key: SigningKey): { readonly signsFrom: Millis | null; readonly leavesAt: Millis | null }
  /** A new key, sealed, published from now. It is not stored. */
  generateSigningKey(state: 'active' | 'next'): Promise<SigningKey>
}

export interface KeyRingOptions {
  readonly store: StoreWith<{ signing: 'listKeys' | 'addKeys' | 'rotateKeys' }>
  readonly encryptor: Pick<Encryptor, 'encrypt' | 'decrypt'>
  readonly clock: Pick<Clock, 'now'>
}

const SECOND_MS = 1_000
const DAY_MS = 86_400 * SECOND_MS
/** From here on a view is read anew behind the callers' backs. */
const REFRESH_AFTER_MS = 30 * SECOND_MS
/** Past this a view signs nothing: a revoked key is out of use everywhere by then. */
const MAX_VIEW_AGE_MS = 60 * SECOND_MS
const ROTATION_MS = 90 * DAY_MS
/** A key is published this long before it signs, so that every sane cache has it. */
const PUBLISH_AHEAD_MS = DAY_MS
/** A key that no longer signs stays published this long, for receivers that verify late. */
const RETIRING_MS = 7 * DAY_MS

const PUBLISHED = ['active', 'next', 'retiring'] as const satisfies readonly SigningKeyState[]

interface KeySetView {
  /** When the read began: what it shows may be older than its arrival, never older than this. */
  readonly readAt: Millis
  readonly active: ActiveKey
  readonly jwks: Jwks
}

export function createKeyRing({ store, encryptor, clock }: KeyRingOptions): KeyRing {
  let view: KeySetView | null = null
  let reads = 0
  let newest = 0
  let rereading: Promise<void> | null = null
  let rereadAt = Number.NEGATIVE_INFINITY

  const age = (): Millis => (view === null ? Number.POSITIVE_INFINITY : clock.now() - view.readAt)
  const privateJwk = (key: SigningKey): JWK => JSON.parse(encryptor.decrypt(key.privateJwk, secretLocationOf(key.id))) as JWK

  const activeOf = async (keys: readonly SigningKey[]): Promise<ActiveKey> => {
    const key = keys.find((it) => it.state === 'active')
    if (key === undefined) throw new Error('The store has no active signing key, not even after one was offered.')
    if (view?.active.kid === key.id) return view.active
    return { kid: key.id, privateKey: (await importJWK(privateJwk(key), key.alg)) as CryptoKey }
  }

  const read = async (): Promise<void> => {
    const read = ++reads
    const readAt = clock.now()
    let keys = await store.signing.listKeys()
    const turn = planKeyRotation(keys, readAt)
    if (turn.activate !== null || turn.remove.length > 0) keys = await store.signing.rotateKeys(turn)
    const missing = (['active', 'next'] as const).filter((state) => keys.every((key) => key.state !== state))
    if (missing.length > 0) {
      // A wrong master key stops here, at a key it cannot open, instead of making keys nobody trusts.
      for (const key of keys) if (key.state !== 'revoked') privateJwk(key)
      keys = await store.signing.addKeys({ keys: await Promise.all(missing.map(generateSigningKey)) })
    }
    const seen = { readAt, active: await activeOf(keys), jwks: publish(keys) }
    // A read that began earlier may end later: it must not bring back a key that was revoked in between.
    if (read > newest) {
      newest = read
      view = seen
    }
  }

  const reread = (): Promise<void> => {
    rereadAt = clock.now()
    rereading ??= read().finally(() => {
      rereading = null
    })
    return rereading
  }

  const rereadBehind = (): void => {
    if (age() <= REFRESH_AFTER_MS || clock.now() - rereadAt < SECOND_MS) return
    // A failure is tried again a second later, and from 60 s on it reaches whoever wants to sign.
    reread().catch(() => {})
  }

  const generateSigningKey = async (state: 'active' | 'next'): Promise<SigningKey> => {
    const pair = await generateKeyPair('ES256', { extractable: true })
    const { kty, crv, x, y } = await exportJWK(pair.publicKey)
    const { d } = await exportJWK(pair.privateKey)
    const id = await calculateJwkThumbprint({ kty, crv, x, y } as JWK)
    const now = clock.now()
    return {
      id,
      state,
      alg: 'ES256',
      publicJwk: JSON.stringify({ kty, crv, x, y }),
      privateJwk: encryptor.encrypt(JSON.stringify({ kty, crv, x, y, d }), secretLocationOf(id)),
      createdAt: now,
      publishedAt: now,
      activatedAt: state === 'active' ? now : null,
      retiredAt: null,
      wantedAt: null,
    }
  }

  return {
    load: read,
    async active() {
      while (age() > MAX_VIEW_AGE_MS) await reread()
      rereadBehind()
      return view!.active
    },
    jwks() {
      if (view === null) throw new Error('The signing keys have not been loaded: await load() before jwks().')
      rereadBehind()
      return view.jwks
    },
    keyTransitionTimes: keyTransitionTimes,
    generateSigningKey,
  }
}

/** What stands before a key, by the same rules as {@link planKeyRotation}. */
export const keyTransitionTimes = (key: SigningKey): { readonly signsFrom: Millis | null; readonly leavesAt: Millis | null } => ({
  signsFrom: key.state === 'next' && key.wantedAt !== null ? Math.max(key.wantedAt, key.publishedAt + PUBLISH_AHEAD_MS) : null,
  leavesAt: key.state === 'retiring' && key.retiredAt !== null ? key.retiredAt + RETIRING_MS : null,
})

const secretLocationOf = (kid: string) => ({ table: 'signing_keys', id: kid, column: 'private_jwk' })

/** The public members alone, in an order every node agrees on, so that they all serve the same ETag. */
function publish(keys: readonly SigningKey[]): Jwks {
  const published = PUBLISHED.flatMap((state) =>
    keys.filter((key) => key.state === state).sort((a, b) => a.createdAt - b.createdAt || (a.id < b.id ? -1 : 1)),
  )
  const body = JSON.stringify({
    keys: published.map((key) => {
      const { kty, crv, x, y } = JSON.parse(key.publicJwk) as JWK
      return { kty, crv, x, y, kid: key.id, alg: key.alg, use: 'sig' }
    }),
  })
  return { body, etag: `"${createHash('sha256').update(body).digest('base64url').slice(0, 22)}"` }
}

/**
 * Rotation is due when the active key has signed for 90 days, or when the next one is wanted; it waits until that one has been published for
 * 24 hours. A retiring key is removed 7 days after it stopped signing. A free slot is filled by `load()`.
 */
export function planKeyRotation(keys: readonly SigningKey[], now: Millis): SigningKeyRotation {
  const active = keys.find((key) => key.state === 'active')
  const next = keys.find((key) => key.state === 'next')
  const wanted = active === undefined || (next?.wantedAt ?? null) !== null || now - (active.activatedAt ?? active.createdAt) >= ROTATION_MS
  const rotates = wanted && next !== undefined && (active === undefined || now - next.publishedAt >= PUBLISH_AHEAD_MS)
  return {
    activate: rotates ? next.id : null,
    retire: rotates ? (active?.id ?? null) : null,
    remove: keys
      .filter((key) => key.state === 'retiring' && key.retiredAt !== null && now - key.retiredAt >= RETIRING_MS)
      .map((key) => key.id),
  }
}

/** The keys that sign webhooks: created at the first start, encrypted in the store, published as a JWKS, rotated when due, reloaded every 30 seconds. */
import { createHash } from 'node:crypto'
import { type CryptoKey, calculateJwkThumbprint, exportJWK, generateKeyPair, importJWK, type JWK } from 'jose'
import type { Clock } from '../core/clock.ts'
import type { Encryptor } from '../core/encryption.ts'
import type { Millis, SigningKey, SigningKeyState } from '../core/model.ts'
import type { SigningKeyRotation, StoreWith } from '../store/interfaces.ts'

export interface ActiveKey {
  /** RFC 7638 thumbprint. */
  readonly kid: string
  readonly privateKey: CryptoKey
}

/** A JSON Web Key Set (RFC 7517 §5) and its strong ETag, quoted. */
export interface Jwks {
  readonly body: string
  readonly etag: string
}

export interface KeyRing {
  /** Reads the keys from the store, rotates and removes those that are due, and creates missing ones. */
  load(): Promise<void>
  /** The key to sign with, from a read at most 60 s ago. Rejects when the store cannot be read. */
  active(): Promise<ActiveKey>
  /** The active, next and retiring keys. Reloads in the background after 30 s. @throws Error before the first `load()`. */
  jwks(): Jwks
  keyTransitionTimes(key: SigningKey): KeyTransitionTimes
  /** A new key, encrypted and published from now on. Not stored. */
  generateSigningKey(state: 'active' | 'next'): Promise<SigningKey>
}
export interface KeyTransitionTimes {
  /** When a `next` key whose rotation was requested will sign. */
  readonly signsFrom: Millis | null
  /** When a `retiring` key will be removed. */
  readonly leavesAt: Millis | null
}

export interface KeyRingOptions {
  readonly store: StoreWith<{ signing: 'listKeys' | 'addKeys' | 'rotateKeys' }>
  readonly encryptor: Pick<Encryptor, 'encrypt' | 'decrypt'>
  readonly clock: Pick<Clock, 'now'>
}

const SECOND_MS = 1_000
const DAY_MS = 86_400 * SECOND_MS
/** An older view is reloaded in the background. */
const REFRESH_AFTER_MS = 30 * SECOND_MS
/** An older view must not sign: every node stops using a revoked key within this time. */
const MAX_VIEW_AGE_MS = 60 * SECOND_MS
const ROTATION_MS = 90 * DAY_MS
/** A key is published this long before it signs, so that caches of the JWKS have it. */
const PUBLISH_AHEAD_MS = DAY_MS
/** How long a key stays published after its last signature, for receivers that verify late. */
const RETIRING_MS = 7 * DAY_MS

const PUBLISHED = ['active', 'next', 'retiring'] as const satisfies readonly SigningKeyState[]

interface KeySetView {
  /** When the read began. */
  readonly readAt: Millis
  readonly active: ActiveKey
  readonly jwks: Jwks
}

export function createKeyRing({ store, encryptor, clock }: KeyRingOptions): KeyRing {
  let view: KeySetView | null = null
  let lastRead = 0
  let viewRead = 0
  let reloading: Promise<void> | null = null
  let reloadedAt = Number.NEGATIVE_INFINITY

  const age = (): Millis => (view === null ? Number.POSITIVE_INFINITY : clock.now() - view.readAt)
  const privateJwk = (key: SigningKey): JWK => JSON.parse(encryptor.decrypt(key.privateJwk, secretLocationOf(key.id))) as JWK

  const activeOf = async (keys: readonly SigningKey[]): Promise<ActiveKey> => {
    const key = keys.find((it) => it.state === 'active')
    if (key === undefined) throw new Error('The store has no active signing key, not even after one was offered.')
    if (view?.active.kid === key.id) return view.active
    return { kid: key.id, privateKey: (await importJWK(privateJwk(key), key.alg)) as CryptoKey }
  }

  const load = async (): Promise<void> => {
    const read = ++lastRead
    const readAt = clock.now()
    let keys = await store.signing.listKeys()
    const rotation = planKeyRotation(keys, readAt)
    if (rotation.activate !== null || rotation.remove.length > 0) keys = await store.signing.rotateKeys(rotation)
    const missing = (['active', 'next'] as const).filter((state) => keys.every((key) => key.state !== state))
    if (missing.length > 0) {
      // Fails with the wrong master key, before it creates keys that no other node can decrypt.
      for (const key of keys) if (key.state !== 'revoked') privateJwk(key)
      keys = await store.signing.addKeys({ keys: await Promise.all(missing.map(generateSigningKey)) })
    }
    const loaded = { readAt, active: await activeOf(keys), jwks: publish(keys) }
    // An earlier read may end later: it must not bring back a key that was revoked in between.
    if (read < viewRead) return
    viewRead = read
    view = loaded
  }

  const reload = (): Promise<void> => {
    reloadedAt = clock.now()
    reloading ??= load().finally(() => {
      reloading = null
    })
    return reloading
  }

  /** Retries a failure after a second. Once the view is 60 s old, `active()` reports the failure. */
  const reloadInBackground = (): void => {
    if (age() > REFRESH_AFTER_MS && clock.now() - reloadedAt >= SECOND_MS) reload().catch(() => {})
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
    load,
    async active() {
      while (age() > MAX_VIEW_AGE_MS) await reload()
      reloadInBackground()
      return view!.active
    },
    jwks() {
      if (view === null) throw new Error('The signing keys have not been loaded: await load() before jwks().')
      reloadInBackground()
      return view.jwks
    },
    keyTransitionTimes,
    generateSigningKey,
  }
}

/** By the same rules as {@link planKeyRotation}. */
export const keyTransitionTimes = (key: SigningKey): KeyTransitionTimes => ({
  signsFrom: key.state === 'next' && key.wantedAt !== null ? Math.max(key.wantedAt, key.publishedAt + PUBLISH_AHEAD_MS) : null,
  leavesAt: key.state === 'retiring' && key.retiredAt !== null ? key.retiredAt + RETIRING_MS : null,
})

const secretLocationOf = (kid: string) => ({ table: 'signing_keys', id: kid, column: 'private_jwk' })

/** Only the public members, in the same order on every node, so that all serve the same ETag. */
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
 * The next key replaces the active one after 90 days or on request, once it has been published for 24 hours. A retiring key is removed after
 * 7 days. `load()` then creates the missing next key.
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

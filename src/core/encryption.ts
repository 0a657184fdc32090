/** Secrets at rest: AES-256-GCM under the master key, each value bound to the row and column it lives in. */
import { createCipheriv, createDecipheriv, createHmac, createSecretKey, type KeyObject } from 'node:crypto'
import type { Clock } from './clock.ts'
import { StartupError } from './errors.ts'

/** Where a sealed value lives. It opens nowhere else. */
export interface SecretLocation {
  readonly table: string
  readonly id: string
  readonly column: string
}

export interface Encryptor {
  /** A short digest of the present master key. Rows that do not begin with `v1.<keyId>.` are older. */
  readonly keyId: string
  /** `plain` as `v1.<key id>.<nonce>.<data>`, the last three in base64url; data ends with the 16-byte tag. */
  encrypt(plain: string, place: SecretLocation): string
  /** Whether `sealed` was sealed with the present or the previous key, by the key id it carries. It may be damaged nevertheless. */
  hasKeyFor(sealed: string): boolean
  /** The text that was sealed at `place`, under the present or the previous key. Throws an Error that names the place, never the value. */
  decrypt(sealed: string, place: SecretLocation): string
  /** A sealed value to keep beside the data: it tells a wrong master key from the right one. */
  keyCheck(): string
  /** Throws a StartupError unless the present or the previous key made `sealed` by `canary()`. */
  verifyKeyCheck(sealed: string): void
}

export interface EncryptorOptions {
  /** 32 bytes in base64. */
  readonly masterKey: string
  /** The key that rows not sealed anew yet were sealed with. */
  readonly previousMasterKey?: string
  readonly clock: Pick<Clock, 'bytes'>
}

const KEY_CHECK = { plain: 'ringback', place: { table: 'meta', id: 'canary', column: 'value' } } as const
const KEY_BYTES = 32
/** 96 bits, as NIST SP 800-38D §8.2.2 asks of random nonces: good for 2³² values under one key. */
const NONCE_BYTES = 12
const TAG_BYTES = 16

/** The master key in `text`: 32 bytes in base64 (RFC 4648 §4). Throws a StartupError that names `variable` and never quotes the key. */
export function parseMasterKey(text: string, variable = 'RINGBACK_MASTER_KEY'): KeyObject {
  const mend = `Make one with: openssl rand -base64 ${KEY_BYTES}`
  const trimmed = text.trim()
  if (trimmed === '') throw new StartupError(`${variable} is empty, but it must be ${KEY_BYTES} bytes in base64. ${mend}`)
  if (!/^[A-Za-z0-9+/]+={0,2}$/.test(trimmed))
    throw new StartupError(`${variable} must be ${KEY_BYTES} bytes in base64, but it is not base64. ${mend}`)
  const bytes = Buffer.from(trimmed, 'base64')
  if (bytes.length !== KEY_BYTES)
    throw new StartupError(`${variable} must be ${KEY_BYTES} bytes in base64, but it has ${bytes.length}. ${mend}`)
  return createSecretKey(bytes)
}

/** Throws a StartupError when a key is not 32 bytes in base64. */
export function createEncryptor({ masterKey, previousMasterKey, clock }: EncryptorOptions): Encryptor {
  const key = parseMasterKey(masterKey)
  const keyId = idOf(key)
  const keys = new Map([[keyId, key]])
  if (previousMasterKey !== undefined) {
    const previous = parseMasterKey(previousMasterKey, 'RINGBACK_MASTER_KEY_PREVIOUS')
    keys.set(idOf(previous), previous)
  }

  const encrypt = (plain: string, place: SecretLocation): string => {
    const nonce = clock.bytes(NONCE_BYTES)
    const cipher = createCipheriv('aes-256-gcm', key, nonce, { authTagLength: TAG_BYTES }).setAAD(bindingOf(place))
    const data = Buffer.concat([cipher.update(plain, 'utf8'), cipher.final(), cipher.getAuthTag()])
    return `v1.${keyId}.${Buffer.from(nonce).toString('base64url')}.${data.toString('base64url')}`
  }

  const decrypt = (sealed: string, place: SecretLocation): string => {
    const where = `${place.table}.${place.column} of "${place.id}"`
    const [version, id, nonceText, dataText, ...rest] = sealed.split('.')
    if (version !== 'v1' || id === undefined || nonceText === undefined || dataText === undefined || rest.length > 0) {
      throw new Error(`${where} is not a sealed value: it must have the form v1.<key id>.<nonce>.<data>.`)
    }
    const opener = keys.get(id)
    if (opener === undefined) {
      throw new Error(
        `${where} was sealed with master key "${id}", but this server has ${named(keys)}: give that key as RINGBACK_MASTER_KEY or RINGBACK_MASTER_KEY_PREVIOUS.`,
      )
    }
    const nonce = Buffer.from(nonceText, 'base64url')
    const data = Buffer.from(dataText, 'base64url')
    try {
      const decipher = createDecipheriv('aes-256-gcm', opener, nonce, { authTagLength: TAG_BYTES }).setAAD(bindingOf(place))
      decipher.setAuthTag(data.subarray(-TAG_BYTES))
      return Buffer.concat([decipher.update(data.subarray(0, -TAG_BYTES)), decipher.final()]).toString('utf8')
    } catch (cause) {
      throw new Error(`${where} does not open with master key "${id}": the value is damaged, or was sealed for another row or column.`, {
        cause,
      })
    }
  }

  return {
    keyId,
    encrypt: encrypt,
    decrypt: decrypt,
    hasKeyFor: (sealed) => keys.has(sealed.split('.')[1] ?? ''),
    keyCheck: () => encrypt(KEY_CHECK.plain, KEY_CHECK.place),
    verifyKeyCheck(sealed) {
      try {
        if (decrypt(sealed, KEY_CHECK.place) === KEY_CHECK.plain) return
      } catch (cause) {
        throw new StartupError(`The master key does not fit this store. ${cause instanceof Error ? cause.message : cause}`, { cause })
      }
      throw new StartupError('The canary of this store opens but is not ours: restore the store from a backup.')
    },
  }
}

/** Says which key it is and nothing about the key: 48 bits of an HMAC under it. */
function idOf(key: KeyObject): string {
  return createHmac('sha256', key).update('ringback master key id').digest().subarray(0, 6).toString('base64url')
}

/** The associated data. JSON, so that no two places can run together into the same bytes. */
function bindingOf({ table, id, column }: SecretLocation): Buffer {
  return Buffer.from(JSON.stringify([table, id, column]))
}

function named(keys: ReadonlyMap<string, KeyObject>): string {
  return [...keys.keys()].map((id) => `"${id}"`).join(' and ')
}

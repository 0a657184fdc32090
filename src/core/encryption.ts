/** Encryption of stored secrets: AES-256-GCM under the master key, each value bound to its row and column. */
import { createCipheriv, createDecipheriv, createHmac, createSecretKey, type KeyObject } from 'node:crypto'
import type { Clock } from './clock.ts'
import { StartupError } from './errors.ts'

/** Row and column of an encrypted value. It decrypts nowhere else. */
export interface SecretLocation {
  readonly table: string
  readonly id: string
  readonly column: string
}

export interface Encryptor {
  /** A short digest of the current master key. Values that do not begin with `v1.<keyId>.` are older. */
  readonly keyId: string
  /** Returns `v1.<key id>.<nonce>.<data>`, the last three in base64url; data ends with the 16-byte tag. */
  encrypt(plain: string, place: SecretLocation): string
  /** Whether the key id in the value is that of the current or the previous key. The value may be damaged nevertheless. */
  hasKeyFor(encrypted: string): boolean
  /** Decrypts with the current or the previous key. Throws an Error that names the place, never the value. */
  decrypt(encrypted: string, place: SecretLocation): string
  /** An encrypted constant to store beside the data: it detects a wrong master key. */
  keyCheck(): string
  /** Throws a StartupError unless the current or the previous key made this key check. */
  verifyKeyCheck(encrypted: string): void
}

export interface EncryptorOptions {
  /** 32 bytes in base64. */
  readonly masterKey: string
  /** The former key, while rows encrypted with it remain. */
  readonly previousMasterKey?: string
  readonly clock: Pick<Clock, 'bytes'>
}

const KEY_CHECK = { plain: 'ringback', place: { table: 'meta', id: 'canary', column: 'value' } } as const
const KEY_BYTES = 32
/** 96 bits, as NIST SP 800-38D §8.2.2 requires of random nonces: enough for 2³² values under one key. */
const NONCE_BYTES = 12
const TAG_BYTES = 16

/** The master key in `text`: 32 bytes in base64 (RFC 4648 §4). Throws a StartupError that names `variable` and never quotes the key. */
export function parseMasterKey(text: string, variable = 'RINGBACK_MASTER_KEY'): KeyObject {
  const fix = `Make one with: openssl rand -base64 ${KEY_BYTES}`
  const trimmed = text.trim()
  if (trimmed === '') throw new StartupError(`${variable} is empty, but it must be ${KEY_BYTES} bytes in base64. ${fix}`)
  if (!/^[A-Za-z0-9+/]+={0,2}$/.test(trimmed))
    throw new StartupError(`${variable} must be ${KEY_BYTES} bytes in base64, but it is not base64. ${fix}`)
  const bytes = Buffer.from(trimmed, 'base64')
  if (bytes.length !== KEY_BYTES)
    throw new StartupError(`${variable} must be ${KEY_BYTES} bytes in base64, but it has ${bytes.length}. ${fix}`)
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
    const cipher = createCipheriv('aes-256-gcm', key, nonce, { authTagLength: TAG_BYTES }).setAAD(associatedData(place))
    const data = Buffer.concat([cipher.update(plain, 'utf8'), cipher.final(), cipher.getAuthTag()])
    return `v1.${keyId}.${Buffer.from(nonce).toString('base64url')}.${data.toString('base64url')}`
  }

  const decrypt = (encrypted: string, place: SecretLocation): string => {
    const where = `${place.table}.${place.column} of "${place.id}"`
    const [version, id, nonceText, dataText, ...rest] = encrypted.split('.')
    if (version !== 'v1' || id === undefined || nonceText === undefined || dataText === undefined || rest.length > 0) {
      throw new Error(`${where} is not an encrypted value: it must have the form v1.<key id>.<nonce>.<data>.`)
    }
    const decryptionKey = keys.get(id)
    if (decryptionKey === undefined) {
      throw new Error(
        `${where} was encrypted with master key "${id}", but this server has ${quoteIds(keys)}: give that key as RINGBACK_MASTER_KEY or RINGBACK_MASTER_KEY_PREVIOUS.`,
      )
    }
    const nonce = Buffer.from(nonceText, 'base64url')
    const data = Buffer.from(dataText, 'base64url')
    try {
      const decipher = createDecipheriv('aes-256-gcm', decryptionKey, nonce, { authTagLength: TAG_BYTES }).setAAD(associatedData(place))
      decipher.setAuthTag(data.subarray(-TAG_BYTES))
      return Buffer.concat([decipher.update(data.subarray(0, -TAG_BYTES)), decipher.final()]).toString('utf8')
    } catch (cause) {
      throw new Error(
        `${where} cannot be decrypted with master key "${id}": the value is damaged, or was encrypted for another row or column.`,
        {
          cause,
        },
      )
    }
  }

  return {
    keyId,
    encrypt,
    decrypt,
    hasKeyFor: (encrypted) => keys.has(encrypted.split('.')[1] ?? ''),
    keyCheck: () => encrypt(KEY_CHECK.plain, KEY_CHECK.place),
    verifyKeyCheck(encrypted) {
      try {
        if (decrypt(encrypted, KEY_CHECK.place) === KEY_CHECK.plain) return
      } catch (cause) {
        throw new StartupError(`The master key does not fit this store. ${cause instanceof Error ? cause.message : cause}`, { cause })
      }
      throw new StartupError('The key check of this store decrypts to a wrong text: restore the store from a backup.')
    },
  }
}

/** Identifies the key without revealing it: 48 bits of an HMAC under it. */
function idOf(key: KeyObject): string {
  return createHmac('sha256', key).update('ringback master key id').digest().subarray(0, 6).toString('base64url')
}

/** JSON, so that no two places give the same bytes. */
function associatedData({ table, id, column }: SecretLocation): Buffer {
  return Buffer.from(JSON.stringify([table, id, column]))
}

function quoteIds(keys: ReadonlyMap<string, KeyObject>): string {
  return [...keys.keys()].map((id) => `"${id}"`).join(' and ')
}

import { randomBytes } from 'node:crypto'
import { inspect } from 'node:util'
import { describe, expect, test } from 'vitest'
import { systemClock } from '../../src/core/clock.ts'
import { createEncryptor, parseMasterKey } from '../../src/core/encryption.ts'
import { StartupError } from '../../src/core/errors.ts'
import { fc } from '../support/chance.ts'

const clock = systemClock()
const newKey = (): string => randomBytes(32).toString('base64')
const place = { table: 'endpoints', id: 'endpoint_1', column: 'secret' }

/** The error `act` throws. */
function refusal(act: () => unknown): Error {
  try {
    act()
  } catch (error) {
    return error as Error
  }
  throw new Error('nothing was refused')
}

describe('an encrypted value', () => {
  test('decrypts at its place, and two encryptions differ', () => {
    const encryptor = createEncryptor({ masterKey: newKey(), clock })
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), (plain) => {
        const [a, b] = [encryptor.encrypt(plain, place), encryptor.encrypt(plain, place)]
        expect(a).toMatch(/^v1\.[\w-]{8}\.[\w-]{16}\.[\w-]{22,}$/)
        expect(a.startsWith(`v1.${encryptor.keyId}.`)).toBe(true)
        expect(encryptor.decrypt(a, place)).toBe(plain)
        expect(a).not.toBe(b)
      }),
    )
  })

  test('decrypts in no other table, row or column', () => {
    const encryptor = createEncryptor({ masterKey: newKey(), clock })
    const sealed = encryptor.encrypt('whsec_x', { table: 'a', id: 'bc', column: 'd' })
    for (const other of [
      { table: 'x', id: 'bc', column: 'd' },
      { table: 'a', id: 'x', column: 'd' },
      { table: 'a', id: 'bc', column: 'x' },
      { table: 'ab', id: 'c', column: 'd' },
      { table: 'a', id: 'b', column: 'cd' },
    ]) {
      expect(() => encryptor.decrypt(sealed, other)).toThrow(/encrypted for another row or column/)
    }
  })

  test('does not decrypt after a bit of nonce, data or tag changed', () => {
    const encryptor = createEncryptor({ masterKey: newKey(), clock })
    const [version, id, nonce, data] = encryptor.encrypt('whsec_x', place).split('.') as [string, string, string, string]
    for (const part of [nonce, data]) {
      const bytes = Buffer.from(part, 'base64url')
      for (let at = 0; at < bytes.length; at++) {
        const changed = Buffer.from(bytes)
        changed[at]! ^= 1
        const text = changed.toString('base64url')
        const sealed = [version, id, part === nonce ? text : nonce, part === data ? text : data].join('.')
        expect(() => encryptor.decrypt(sealed, place)).toThrow(/cannot be decrypted/)
      }
    }
    expect(() => encryptor.decrypt([version, id, nonce, data.slice(0, 8)].join('.'), place)).toThrow(/cannot be decrypted/)
  })

  test('of another form is refused, and the error names the place and not the value', () => {
    const encryptor = createEncryptor({ masterKey: newKey(), clock })
    for (const text of ['', 'whsec_plain', 'v2.a.b.c', 'v1.a.b', 'v1.a.b.c.d']) {
      const { message } = refusal(() => encryptor.decrypt(text, place))
      expect(message).toBe('endpoints.secret of "endpoint_1" is not an encrypted value: it must have the form v1.<key id>.<nonce>.<data>.')
    }
  })
})

describe('the master key', () => {
  test('that is previous decrypts old rows while the current one encrypts new ones', () => {
    const [old, present] = [newKey(), newKey()]
    const before = createEncryptor({ masterKey: old, clock })
    const after = createEncryptor({ masterKey: present, previousMasterKey: old, clock })
    const sealed = before.encrypt('secret', place)
    expect(after.decrypt(sealed, place)).toBe('secret')
    expect(after.keyId).not.toBe(before.keyId)
    const anew = after.encrypt('secret', place)
    expect(createEncryptor({ masterKey: present, clock }).decrypt(anew, place)).toBe('secret')
    expect(() => before.decrypt(anew, place)).toThrow(
      `was encrypted with master key "${after.keyId}", but this server has "${before.keyId}"`,
    )
  })

  test('that is wrong refuses to start, with a sentence', () => {
    const [right, wrong] = [createEncryptor({ masterKey: newKey(), clock }), createEncryptor({ masterKey: newKey(), clock })]
    right.verifyKeyCheck(right.keyCheck())
    const error = refusal(() => wrong.verifyKeyCheck(right.keyCheck()))
    expect(error).toBeInstanceOf(StartupError)
    expect(error.message).toContain(`was encrypted with master key "${right.keyId}", but this server has "${wrong.keyId}"`)
    expect(error.message).toContain('RINGBACK_MASTER_KEY_PREVIOUS')
  })

  test('that changed starts while the previous one is given', () => {
    const [old, present] = [newKey(), newKey()]
    const canary = createEncryptor({ masterKey: old, clock }).keyCheck()
    createEncryptor({ masterKey: present, previousMasterKey: old, clock }).verifyKeyCheck(canary)
    expect(() => createEncryptor({ masterKey: present, clock }).verifyKeyCheck(canary)).toThrow(StartupError)
  })

  test('is distinguished from a damaged, moved or invalid key check', () => {
    const encryptor = createEncryptor({ masterKey: newKey(), clock })
    const canary = encryptor.keyCheck()
    for (const bad of ['', 'ringback', `${canary.slice(0, -4)}AAAA`, encryptor.encrypt('ringback', place)]) {
      expect(() => encryptor.verifyKeyCheck(bad)).toThrow(StartupError)
    }
  })

  test.each([
    ['', 'RINGBACK_MASTER_KEY is empty, but it must be 32 bytes in base64.'],
    ['correct horse battery staple!', 'RINGBACK_MASTER_KEY must be 32 bytes in base64, but it is not base64.'],
    ['c2hvcnQ=', 'RINGBACK_MASTER_KEY must be 32 bytes in base64, but it has 5.'],
    ['A'.repeat(86), 'RINGBACK_MASTER_KEY must be 32 bytes in base64, but it has 64.'],
    ['ab'.repeat(32), 'RINGBACK_MASTER_KEY must be 32 bytes in base64, but it has 48.'],
  ])('%j is refused and not repeated', (text, sentence) => {
    const error = refusal(() => parseMasterKey(text))
    expect(error).toBeInstanceOf(StartupError)
    expect(error.message).toBe(`${sentence} Make one with: openssl rand -base64 32`)
  })

  test('names the variable that holds it', () => {
    expect(() => createEncryptor({ masterKey: newKey(), previousMasterKey: 'c2hvcnQ=', clock })).toThrow(
      /^RINGBACK_MASTER_KEY_PREVIOUS must/,
    )
  })

  test('may end with a line break, and prints nothing of itself', () => {
    const text = newKey()
    const [key, encryptor] = [parseMasterKey(`${text}\n`), createEncryptor({ masterKey: `${text}\n`, clock })]
    expect(key.export().toString('base64')).toBe(text)
    const shown = inspect([key, encryptor], { depth: null, showHidden: true })
    for (const form of ['base64', 'base64url', 'hex'] as const) expect(shown).not.toContain(key.export().toString(form).slice(0, 12))
  })
})

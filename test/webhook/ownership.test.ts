import { describe, expect, test } from 'vitest'
import { evaluateVerification } from '../../src/core/lifecycle.ts'
import type { AttemptOutcome } from '../../src/core/model.ts'
import { cloudEventJson, envelopeJson } from '../../src/core/wire.ts'
import type { SendResult } from '../../src/webhook/attempt.ts'
import { evaluateChallengeResponse, evaluateConsentResponse } from '../../src/webhook/ownership.ts'
import { fc } from '../support/chance.ts'

const CHALLENGE = 'q7Tn0mYw3cV9xKJ2bR5sLhD8fGzA1eUoP4iWtE6yXvM'
const ORIGIN = 'tasks.example.com'

const answered = (status: number, body: string | null, headers: Record<string, string> = {}): SendResult => ({
  outcome: status < 300 ? 'success' : status < 400 ? 'redirect' : 'http_error',
  httpStatus: status,
  error: status < 300 ? null : `The endpoint answered ${status}.`,
  durationMs: 1,
  timings: { dnsMs: null, connectMs: null, tlsMs: null, firstByteMs: null },
  responseHeaders: headers,
  responseExcerpt: body,
  remoteAddress: null,
})
const JSON_TYPE = { 'content-type': 'application/json' }
const TEXT = { 'content-type': 'text/plain; charset=utf-8' }
const proves = (sent: SendResult): boolean => evaluateChallengeResponse(sent, CHALLENGE).kind === 'proved'
const consents = (headers: Record<string, string>, status = 200): boolean =>
  evaluateConsentResponse(answered(status, '', headers), ORIGIN).kind === 'proved'

describe('a challenge', () => {
  test('is proved by a JSON object that has it as a top-level member, whatever the other members and the content type', () => {
    fc.assert(
      fc.property(fc.dictionary(fc.string(), fc.jsonValue()), fc.constantFrom(JSON_TYPE, TEXT, {}), (others, headers) => {
        expect(proves(answered(200, JSON.stringify({ ...others, challenge: CHALLENGE }), headers))).toBe(true)
      }),
    )
  })

  test('is proved alone as text/plain, with surrounding white space, and as no other type', () => {
    fc.assert(
      fc.property(fc.stringMatching(/^[ \t\r\n]{0,5}$/), fc.stringMatching(/^[ \t\r\n]{0,5}$/), (before, after) => {
        expect(proves(answered(200, before + CHALLENGE + after, TEXT))).toBe(true)
      }),
    )
    for (const type of ['text/html', 'text/plainer', 'application/json', undefined])
      expect(proves(answered(200, CHALLENGE, type === undefined ? {} : { 'content-type': type }))).toBe(false)
  })

  test('is not proved by an echo of the request, in either format', () => {
    const event = { id: 'event_1', type: 'endpoint.verification', at: 1_795_000_000_000 } as const
    const data = JSON.stringify({ endpointId: 'endpoint_1', challenge: CHALLENGE, expiresAt: '2026-11-23T10:00:00.000Z' })
    for (const copy of [
      envelopeJson(event, data),
      cloudEventJson({ ...event, source: 'https://tasks.example', subject: null, sequence: null }, data),
    ])
      for (const headers of [JSON_TYPE, TEXT, {}]) expect(proves(answered(200, copy, headers))).toBe(false)
  })

  test('is not proved by a body that contains it elsewhere or not at all', () => {
    fc.assert(
      fc.property(fc.jsonValue(), fc.constantFrom(JSON_TYPE, TEXT, {}), (value, headers) => {
        for (const body of [
          value,
          [value, CHALLENGE],
          { data: { challenge: CHALLENGE }, value },
          { challenge: [CHALLENGE] },
          { Challenge: CHALLENGE },
        ])
          expect(proves(answered(200, JSON.stringify(body), headers))).toBe(false)
      }),
    )
  })

  test('is not proved by a compressed response, and the error says so', () => {
    const sent = { ...answered(200, '', { ...JSON_TYPE, 'content-encoding': 'gzip' }), responseExcerpt: null }
    expect(evaluateChallengeResponse(sent, CHALLENGE)).toEqual({
      kind: 'unproved',
      error: expect.stringContaining('without Content-Encoding'),
    })
    expect(proves(answered(200, JSON.stringify({ challenge: CHALLENGE }), { ...JSON_TYPE, 'content-encoding': 'Identity' }))).toBe(true)
  })

  test('is not proved by a similar value', () => {
    fc.assert(
      fc.property(fc.nat(CHALLENGE.length - 1), fc.constantFrom('', '-', 'qq'), (place, instead) => {
        const wrong = CHALLENGE.slice(0, place) + instead + CHALLENGE.slice(place + 1)
        if (wrong === CHALLENGE) return
        expect(proves(answered(200, JSON.stringify({ challenge: wrong }), JSON_TYPE))).toBe(false)
        expect(proves(answered(200, wrong, TEXT))).toBe(false)
      }),
    )
  })

  test('is proved only with status 200, and the error names the actual status', () => {
    const body = JSON.stringify({ challenge: CHALLENGE })
    fc.assert(
      fc.property(fc.integer({ min: 201, max: 599 }), (status) => {
        const proof = evaluateChallengeResponse(answered(status, body, JSON_TYPE), CHALLENGE)
        expect(proof).toMatchObject({ kind: 'unproved', error: expect.stringContaining(String(status)) })
      }),
    )
    expect(evaluateChallengeResponse(answered(200, null), CHALLENGE)).toMatchObject({
      error: expect.stringContaining('without the challenge'),
    })
  })

  test('never appears in the error', () => {
    fc.assert(
      fc.property(fc.integer({ min: 200, max: 599 }), fc.constantFrom(CHALLENGE, `{"data":"${CHALLENGE}"}`), (status, body) => {
        expect(JSON.stringify(evaluateChallengeResponse(answered(status, body, JSON_TYPE), CHALLENGE))).not.toContain(CHALLENGE)
      }),
    )
  })
})

describe('a handshake', () => {
  test('consents with a 2xx that names the origin in any case, or every origin', () => {
    fc.assert(
      fc.property(fc.integer({ min: 200, max: 299 }), fc.mixedCase(fc.constant(ORIGIN)), (status, origin) => {
        expect(consents({ 'webhook-allowed-origin': origin }, status)).toBe(true)
        expect(consents({ 'webhook-allowed-origin': '*' }, status)).toBe(true)
      }),
    )
  })

  test('does not consent without the header, with another origin, or with another status', () => {
    for (const origin of ['', ' ', 'example.com', `x${ORIGIN}`, `${ORIGIN}.evil`, `https://${ORIGIN}`, `${ORIGIN}, other.example`, '**'])
      expect(consents({ 'webhook-allowed-origin': origin })).toBe(false)
    expect(consents({})).toBe(false)
    fc.assert(
      fc.property(fc.integer({ min: 300, max: 599 }), (status) => {
        expect(consents({ 'webhook-allowed-origin': '*' }, status)).toBe(false)
      }),
    )
  })

  test('sets a rate with a positive whole number, none with * or no header, and fails with any other value', () => {
    const rate = (value?: string) =>
      evaluateConsentResponse(
        answered(200, '', { 'webhook-allowed-origin': '*', ...(value !== undefined && { 'webhook-allowed-rate': value }) }),
        ORIGIN,
      )
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 1_000_000 }), (n) => {
        expect(rate(` ${n} `)).toEqual({ kind: 'proved', allowedRate: n })
      }),
    )
    expect(rate('9'.repeat(300))).toEqual({ kind: 'proved', allowedRate: 1_000_000 })
    for (const none of [undefined, '*']) expect(rate(none)).toEqual({ kind: 'proved', allowedRate: null })
    for (const odd of ['', '0', '000', '-1', '1.5', '1e3', 'many', '5, 6']) expect(rate(odd).kind).toBe('unproved')
  })
})

test('a verification does not affect the endpoint’s health, and even 410 is retried', () => {
  const outcomes: AttemptOutcome[] = ['success', 'http_error', 'redirect', 'timeout', 'dns', 'tls', 'connect', 'blocked', 'aborted']
  fc.assert(
    fc.property(
      fc.constantFrom(...outcomes),
      fc.constantFrom(null, 200, 302, 410, 429, 503),
      fc.option(fc.nat(1e6)),
      (outcome, httpStatus, wait) => {
        const verdict = evaluateVerification({ outcome, httpStatus, error: 'x' }, wait)
        expect(verdict).toMatchObject({ signal: null, succeeded: null, disable: null, holdMs: null })
        if (verdict.tryResult.kind === 'threw') expect(verdict.tryResult.permanent).toBe(false)
      },
    ),
  )
})

/** Examples of what the node says about itself, and of errors. */
import { type ErrorCode, errorStatuses } from '../../../core/errors.ts'
import { titleOf } from '../../request/problem.ts'
import type { NamedExample } from '../../request/route.ts'
import { named, REQUEST, SIGNING_KEY } from './story.ts'

const publicKey = {
  kty: 'EC',
  crv: 'P-256',
  alg: 'ES256',
  use: 'sig',
  kid: SIGNING_KEY,
  x: 'f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU',
  y: 'x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0',
}

export const systemExamples = named({
  health: ['The process is up', { status: 'ok' }],
  readiness: ['The node is ready', { status: 'ok', checks: { store: 'ok', scheduler: 'ok', dispatcher: 'ok' } }],
  jwks: ['Public keys', { keys: [publicKey] }],
})

/** The problem document of an error code. */
export function problemExample(code: ErrorCode): NamedExample {
  const title = titleOf(code)
  const invalid = code === 'validation_failed'
  const value = {
    type: `urn:ringback:problem:${code}`,
    title,
    status: errorStatuses[code],
    detail: invalid ? '#/input/width must be >= 1.' : `${title}.`,
    instance: '/v1/tasks',
    code,
    requestId: REQUEST,
    errors: invalid ? [{ pointer: '#/input/width', detail: 'must be >= 1' }] : [],
  }
  return { name: code, summary: title, value }
}

/** Proof of ownership through the API: sends the challenge again, or checks a challenge that the client returns. */
import { timingSafeEqual } from 'node:crypto'
import { RingbackError } from '../../core/errors.ts'
import type { Endpoint } from '../../core/model.ts'
import { challengeOf } from '../../core/wire.ts'
import type { AppContext } from '../context.ts'
import { endpointExamples as examples } from '../openapi/examples/endpoints.ts'
import { checkIfMatch } from '../request/headers.ts'
import type { ApiReply } from '../request/problem.ts'
import { type ApiCall, type Route, response, route } from '../request/route.ts'
import * as shapes from '../shapes/endpoints.ts'
import { endpointReply, findEndpointIfMatch, updateEndpoint } from './endpoint-document.ts'

export function verificationRoute(context: AppContext): Route {
  return route.post('/v1/endpoints/{id}/verify', 'verifyEndpoint', {
    tag: 'Endpoints',
    summary: 'Verify an endpoint: send the challenge again, or return the challenge it received',
    description:
      'Without a body, the challenge is sent again, at most once a minute. If the operator calls, the endpoint counts as verified. With the challenge that the endpoint received, it is verified at once. A verified endpoint does not change.',
    scope: 'endpoints:write',
    requestHeaders: ['If-Match'],
    body: shapes.verifyEndpoint,
    bodyExamples: [examples.verifyEndpoint],
    bodyOptional: true,
    responses: {
      200: response('The verified endpoint.', shapes.endpoint, [examples.endpoint], ['ETag']),
      202: response('The challenge will be sent.', shapes.endpoint, [examples.askedEndpoint], ['ETag']),
    },
    errorCodes: ['challenge_mismatch', 'precondition_failed'],
    checkHeaders: checkIfMatch,
    find: (call) => findEndpointIfMatch(context, call),
    handle: (call, { body, found }) => verify(context, call, found, body?.challenge ?? null),
  })
}

async function verify(context: AppContext, call: ApiCall, found: Endpoint, returned: string | null): Promise<ApiReply> {
  if (found.verifiedAt !== null) return endpointReply(context, found)
  if (returned !== null) await checkChallenge(context, found, returned)
  const verified = returned !== null || call.caller.operator
  const endpoint = await updateEndpoint(context, call, found, (now) => {
    if (now.verifiedAt !== null) return {}
    // A newer challenge was sent in the meantime, perhaps to another URL.
    if (returned !== null && now.verificationDeliveryId !== found.verificationDeliveryId) throw mismatch('has been replaced by a newer one')
    return { verified }
  })
  return endpointReply(context, endpoint, endpoint.verifiedAt === null ? 202 : 200)
}

/** @throws RingbackError `challenge_mismatch` */
async function checkChallenge(context: AppContext, endpoint: Endpoint, returned: string): Promise<void> {
  const { id, clientId, verificationDeliveryId, verificationExpiresAt } = endpoint
  const sent = verificationDeliveryId === null ? null : await context.store.deliveries.find(verificationDeliveryId, clientId)
  const challenge = sent?.body ? challengeOf(sent.body) : null
  if (challenge === null) throw mismatch('was not sent: none is open for this endpoint')
  if ((verificationExpiresAt ?? 0) <= context.clock.now()) throw mismatch(`has expired; POST /v1/endpoints/${id}/verify sends another`)
  const [given, wanted] = [Buffer.from(returned), Buffer.from(challenge)]
  if (given.length !== wanted.length || !timingSafeEqual(given, wanted)) throw mismatch('is not the one that was sent last')
}

const mismatch = (why: string): RingbackError =>
  new RingbackError('challenge_mismatch', `The challenge ${why}.`, { errors: [{ pointer: '#/challenge', detail: why }] })

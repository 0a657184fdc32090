/** The keys that sign webhooks, for the operator: list, rotate, revoke. */
import type { SigningKey } from '../../core/model.ts'
import { type AppContext, OPERATOR_SCOPE } from '../context.ts'
import { operatorExamples } from '../openapi/examples/access.ts'
import type { ApiReply } from '../request/problem.ts'
import { jsonReply, notFound, toTimestamp, toTimestampOrNull } from '../request/replies.ts'
import { type Route, response, route } from '../request/route.ts'
import * as shapes from '../shapes/access.ts'

export function signingKeyRoutes(context: AppContext): Route[] {
  const common = { tag: 'Operators', scope: OPERATOR_SCOPE } as const
  const responses = { 200: response('The keys.', shapes.signingKeyList, [operatorExamples.signingKeyList]) }
  /** A change takes effect on this node before the reply. */
  const changed = async (): Promise<ApiReply> => {
    await context.signingKeys.load()
    return listed(context, await context.store.signing.listKeys())
  }
  return [
    route.get('/v1/signing-keys', 'listSigningKeys', {
      ...common,
      summary: 'List the keys that sign webhooks',
      description:
        'One key is active, one is next. Retiring and revoked keys are listed until they are deleted. Private keys are never shown.',
      responses,
      handle: async () => listed(context, await context.store.signing.listKeys()),
    }),
    route.post('/v1/signing-keys/rotate', 'rotateSigningKeys', {
      ...common,
      summary: 'Rotate: the next key signs once it has been published for 24 hours',
      description: '`signsFrom` of the next key says when. The previous key stays published for 7 days.',
      responses,
      async handle(call) {
        await context.store.signing.requestRotation({ by: call.author })
        return changed()
      },
    }),
    route.post('/v1/signing-keys/{id}/revoke', 'revokeSigningKey', {
      ...common,
      summary: 'Revoke a key: remove it from the published set and erase its private key',
      description:
        'For a key that may have been stolen. If it is the active key, the next key signs at once. Receivers refuse its signatures once they have read the set again.',
      responses,
      async find(call) {
        const key = (await context.store.signing.listKeys()).find(({ id }) => id === call.param('id'))
        if (!key) throw notFound('signing key')
        return key
      },
      async handle(call, { found }) {
        await context.store.signing.revokeKey({ id: found.id, by: call.author })
        return changed()
      },
    }),
  ]
}

function listed(context: AppContext, keys: readonly SigningKey[]): ApiReply {
  const data = keys.map((key) => {
    const { signsFrom, leavesAt } = context.signingKeys.keyTransitionTimes(key)
    return {
      id: key.id,
      state: key.state,
      alg: key.alg,
      createdAt: toTimestamp(key.createdAt),
      publishedAt: toTimestamp(key.publishedAt),
      activatedAt: toTimestampOrNull(key.activatedAt),
      retiredAt: toTimestampOrNull(key.retiredAt),
      signsFrom: toTimestampOrNull(signsFrom),
      leavesAt: toTimestampOrNull(leavesAt),
    }
  })
  return jsonReply(200, { data, hasMore: false, nextCursor: null }, { 'Cache-Control': 'private, no-cache' })
}

/** The keys that sign webhooks, for the operator: seen, rotated, revoked. */
import type { SigningKey } from '../../core/model.ts'
import { type AppContext, jsonReply, notFound, OPERATOR_SCOPE, toTimestamp, toTimestampOrNull } from '../context.ts'
import type { ApiReply } from '../request/problem.ts'
import { type Route, route } from '../request/route.ts'
import * as shapes from '../shapes/access.ts'

export function signingKeyRoutes(context: AppContext): Route[] {
  const common = { tag: 'Operators', scope: OPERATOR_SCOPE } as const
  const answers = { 200: { description: 'The keys, as they are now.', schema: shapes.signingKeyList } }
  /** What was changed takes effect on this node before it is answered. */
  const changed = async (): Promise<ApiReply> => {
    await context.signingKeys.load()
    return listed(context, await context.store.signing.listKeys())
  }
  return [
    route(
      {
        ...common,
        method: 'get',
        path: '/v1/signing-keys',
        name: 'listSigningKeys',
        summary: 'List the keys that sign webhooks',
        description:
          'One is active, one is next; retiring and revoked ones are shown until they are forgotten. Private parts are never shown.',
        responses: answers,
      },
      { handle: async () => listed(context, await context.store.signing.listKeys()) },
    ),
    route(
      {
        ...common,
        method: 'post',
        path: '/v1/signing-keys/rotate',
        name: 'rotateSigningKeys',
        summary: 'Let the next key sign as soon as it has been published for 24 hours',
        description: '`signsFrom` of the next key says when. The key before it stays published for 7 days.',
        responses: answers,
      },
      {
        async handle(call) {
          await context.store.signing.requestRotation({ by: call.author })
          return changed()
        },
      },
    ),
    route(
      {
        ...common,
        method: 'post',
        path: '/v1/signing-keys/{id}/revoke',
        name: 'revokeSigningKey',
        summary: 'Revoke a key: gone from the published set, its private part erased; for the active one the next steps in at once',
        description: 'For a key that may have been stolen. Receivers that keep the set refuse its signatures once they have read it again.',
        responses: answers,
      },
      {
        async find(call) {
          const key = (await context.store.signing.listKeys()).find(({ id }) => id === call.param('id'))
          if (!key) throw notFound('signing key')
          return key
        },
        async handle(call, { found }) {
          await context.store.signing.revokeKey({ id: found.id, by: call.author })
          return changed()
        },
      },
    ),
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

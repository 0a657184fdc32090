/** The keys that sign webhooks, for the operator: seen, rotated, revoked. */
import type { SigningKey } from '../../core/model.ts'
import { type House, jsonReply, notFound, OPERATOR, shownTime, shownTimeOrNull } from '../context.ts'
import type { Reply } from '../request/problem.ts'
import { type Route, route } from '../request/route.ts'
import * as shapes from '../shapes/index.ts'

export function signingKeyRoutes(house: House): Route[] {
  const common = { tag: 'Operators', scope: OPERATOR } as const
  const answers = { 200: { description: 'The keys, as they are now.', schema: shapes.signingKeyList } }
  /** What was changed takes effect on this node before it is answered. */
  const changed = async (): Promise<Reply> => {
    await house.signingKeys.load()
    return listed(house, await house.store.listSigningKeys())
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
        answers,
      },
      { handle: async () => listed(house, await house.store.listSigningKeys()) },
    ),
    route(
      {
        ...common,
        method: 'post',
        path: '/v1/signing-keys/rotate',
        name: 'rotateSigningKeys',
        summary: 'Let the next key sign as soon as it has been published for 24 hours',
        description: '`signsFrom` of the next key says when. The key before it stays published for 7 days.',
        answers,
      },
      {
        async handle(call) {
          await house.store.wantNextKey(call.author)
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
        answers,
      },
      {
        async find(call) {
          const key = (await house.store.listSigningKeys()).find(({ id }) => id === call.param('id'))
          if (!key) throw notFound('signing key')
          return key
        },
        async handle(call, { found }) {
          await house.store.revokeSigningKey(found.id, call.author)
          return changed()
        },
      },
    ),
  ]
}

function listed(house: House, keys: readonly SigningKey[]): Reply {
  const data = keys.map((key) => {
    const { signsFrom, leavesAt } = house.signingKeys.outlook(key)
    return {
      id: key.id,
      state: key.state,
      alg: key.alg,
      createdAt: shownTime(key.createdAt),
      publishedAt: shownTime(key.publishedAt),
      activatedAt: shownTimeOrNull(key.activatedAt),
      retiredAt: shownTimeOrNull(key.retiredAt),
      signsFrom: shownTimeOrNull(signsFrom),
      leavesAt: shownTimeOrNull(leavesAt),
    }
  })
  return jsonReply(200, { data, hasMore: false, nextCursor: null }, { 'Cache-Control': 'private, no-cache' })
}

/** API keys, for the operator: those of clients, and those of operators and workers, which no client ever holds. */
import { generateApiKey } from '../../core/api-key.ts'
import { RingbackError } from '../../core/errors.ts'
import { newId } from '../../core/id.ts'
import { type ApiKey, type Client, clientScopes, type Millis } from '../../core/model.ts'
import type { AddKeyResult } from '../../store/interfaces.ts'
import { type AppContext, emptyReply, idParam, jsonReply, notFound, OPERATOR_SCOPE, toTimestamp, toTimestampOrNull } from '../context.ts'
import { type ApiReply, validationFailed } from '../request/problem.ts'
import { type ApiCall, type Route, route } from '../request/route.ts'
import * as shapes from '../shapes/access.ts'
import { findClient } from './clients.ts'

export function apiKeyRoutes(context: AppContext): Route[] {
  return [...clientKeyRoutes(context), ...operatorKeyRoutes(context)]
}

const toKeyDocument = (key: ApiKey) => ({
  id: key.id,
  clientId: key.clientId,
  name: key.name,
  scopes: JSON.parse(key.scopes) as string[],
  taskTypes: key.taskTypes === null ? null : (JSON.parse(key.taskTypes) as string[]),
  hint: key.hint,
  createdAt: toTimestamp(key.createdAt),
  expiresAt: toTimestampOrNull(key.expiresAt),
  revokedAt: toTimestampOrNull(key.revokedAt),
  lastUsedAt: toTimestampOrNull(key.lastUsedAt),
})

const made = { 201: { description: 'The key, shown this once.', schema: shapes.createdKey } }
const listed = { 200: { description: 'The keys.', schema: shapes.keyList } }
const gone = { 204: { description: 'Revoked.' } }
const ROTATE =
  'The new key has the name, the scopes and the length of life of the old one, which ends after the overlap. One that has ended cannot be rotated.'

function clientKeyRoutes(context: AppContext): Route[] {
  const find = (call: ApiCall): Promise<Client> => findClient(context, call)
  const findKey = async (call: ApiCall): Promise<ApiKey> => {
    const client = await find(call)
    return findKeyById(await context.store.access.listKeys(client.id), idParam(call, 'key', 'keyId'))
  }
  const common = { tag: 'Clients', scope: OPERATOR_SCOPE } as const
  return [
    route(
      {
        ...common,
        method: 'post',
        path: '/v1/clients/{id}/keys',
        name: 'createKey',
        summary: 'Make a key for a client',
        description: 'All scopes of a client when none are named.',
        body: shapes.createKey,
        bodyOptional: true,
        responses: made,
      },
      {
        find,
        handle: (call, { body, found }) =>
          addKey(context, call, found.id, {
            name: body?.name ?? '',
            scopes: body?.scopes ?? clientScopes,
            taskTypes: null,
            expiresAt: body?.expiresAt ?? null,
          }),
      },
    ),
    route(
      {
        ...common,
        method: 'get',
        path: '/v1/clients/{id}/keys',
        name: 'listKeys',
        summary: 'List the keys of a client, revoked ones too',
        description: 'What is shown of a key is its hint; the key itself is kept by nobody.',
        responses: listed,
      },
      { find, handle: async (_call, { found }) => listedKeys(await context.store.access.listKeys(found.id)) },
    ),
    route(
      {
        ...common,
        method: 'post',
        path: '/v1/clients/{id}/keys/{keyId}/rotate',
        name: 'rotateKey',
        summary: 'Give a client a new key in the place of one, which goes on for a while',
        description: ROTATE,
        body: shapes.rotateKey,
        bodyOptional: true,
        responses: made,
      },
      { find: findKey, handle: (call, { body, found }) => rotate(context, call, found, body?.overlapSeconds) },
    ),
    route(
      {
        ...common,
        method: 'delete',
        path: '/v1/clients/{id}/keys/{keyId}',
        name: 'revokeKey',
        summary: 'Revoke a key: at once on this node, within 5 s on others',
        description: 'There is no way back: make another.',
        responses: gone,
      },
      { find: findKey, handle: (call, { found }) => revoke(context, call, found) },
    ),
  ]
}

function operatorKeyRoutes(context: AppContext): Route[] {
  const common = { tag: 'Operators', scope: OPERATOR_SCOPE } as const
  const find = async (call: ApiCall): Promise<ApiKey> => findKeyById(await context.store.access.listKeys(null), idParam(call, 'key'))
  return [
    route(
      {
        ...common,
        method: 'post',
        path: '/v1/operator-keys',
        name: 'createOperatorKey',
        summary: 'Make a key for an operator or a worker',
        description: '`taskTypes` narrows a worker’s key to these types; left out, it may claim every type.',
        body: shapes.createOperatorKey,
        responses: made,
      },
      {
        handle(call, { body: { name, scopes, taskTypes = null, expiresAt = null } }) {
          // The scope admin holds every other one: such a key would not be narrowed.
          if (taskTypes !== null && scopes.some((scope) => scope !== 'worker'))
            throw validationFailed([{ pointer: '#/taskTypes', detail: 'narrows only a key whose one scope is worker' }])
          return addKey(context, call, null, { name, scopes, taskTypes, expiresAt })
        },
      },
    ),
    route(
      {
        ...common,
        method: 'get',
        path: '/v1/operator-keys',
        name: 'listOperatorKeys',
        summary: 'List the keys of operators and workers',
        description: 'What is shown of a key is its hint; the key itself is kept by nobody.',
        responses: listed,
      },
      { handle: async () => listedKeys(await context.store.access.listKeys(null)) },
    ),
    route(
      {
        ...common,
        method: 'post',
        path: '/v1/operator-keys/{id}/rotate',
        name: 'rotateOperatorKey',
        summary: 'Give an operator or a worker a new key in the place of one, which goes on for a while',
        description: ROTATE,
        body: shapes.rotateKey,
        bodyOptional: true,
        responses: made,
      },
      { find, handle: (call, { body, found }) => rotate(context, call, found, body?.overlapSeconds) },
    ),
    route(
      {
        ...common,
        method: 'delete',
        path: '/v1/operator-keys/{id}',
        name: 'revokeOperatorKey',
        summary: 'Revoke the key of an operator or a worker',
        description: 'At once on this node, within 5 s on others.',
        responses: gone,
      },
      { find, handle: (call, { found }) => revoke(context, call, found) },
    ),
  ]
}

interface NewKeyRequest {
  readonly name: string
  readonly scopes: readonly string[]
  readonly taskTypes: readonly string[] | null
  readonly expiresAt: Millis | null
}

const unique = (list: readonly string[]): string => JSON.stringify([...new Set(list)])

/** @throws RingbackError `quota_exceeded`; `not_found` when the client was deleted meanwhile */
function addedKey(result: AddKeyResult, missing: () => RingbackError): ApiKey {
  if (result.kind === 'added') return result.value
  if (result.kind === 'missing') throw missing()
  throw new RingbackError(
    'quota_exceeded',
    `The client has ${result.active} active keys, the most it may have here: revoke some that it no longer needs.`,
  )
}

async function addKey(context: AppContext, call: ApiCall, clientId: string | null, wish: NewKeyRequest): Promise<ApiReply> {
  const { name, scopes, taskTypes, expiresAt } = wish
  if (expiresAt !== null && expiresAt <= context.clock.now()) throw validationFailed([{ pointer: '#/expiresAt', detail: 'has passed' }])
  const { key, hash, hint } = generateApiKey(context.clock)
  const fresh = { id: newId(context.clock, 'key'), clientId, name, hash, hint, expiresAt }
  const wanted = { ...fresh, scopes: unique(scopes), taskTypes: taskTypes === null ? null : unique(taskTypes) }
  const result = await context.store.access.addKey({ key: wanted, max: context.maxPerClient.keys, by: call.author })
  const added = addedKey(result, () => notFound('client'))
  return jsonReply(201, { ...toKeyDocument(added), key })
}

async function rotate(context: AppContext, call: ApiCall, old: ApiKey, overlapSeconds = 86_400): Promise<ApiReply> {
  const { key, hash, hint } = generateApiKey(context.clock)
  const fresh = { id: newId(context.clock, 'key'), hash, hint }
  const result = await context.store.access.rotateKey({
    id: old.id,
    clientId: old.clientId,
    fresh,
    overlapMs: overlapSeconds * 1000,
    max: context.maxPerClient.keys,
    by: call.author,
  })
  const added = addedKey(result, () =>
    validationFailed([
      { pointer: old.clientId === null ? '#/id' : '#/keyId', detail: 'names a key that was revoked or has expired; make a new one' },
    ]),
  )
  return jsonReply(201, { ...toKeyDocument(added), key })
}

const listedKeys = (keys: readonly ApiKey[]): ApiReply =>
  jsonReply(200, { data: keys.map(toKeyDocument), hasMore: false, nextCursor: null }, { 'Cache-Control': 'private, no-cache' })

function findKeyById(keys: readonly ApiKey[], id: string): ApiKey {
  const key = keys.find((candidate) => candidate.id === id)
  if (!key) throw notFound('key')
  return key
}

async function revoke(context: AppContext, call: ApiCall, key: ApiKey): Promise<ApiReply> {
  await context.store.access.revokeKey({ id: key.id, clientId: key.clientId, by: call.author })
  return emptyReply()
}

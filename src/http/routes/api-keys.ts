/** API keys, for the operator: keys of clients, and keys of operators and workers. */
import { generateApiKey } from '../../core/api-key.ts'
import { RingbackError } from '../../core/errors.ts'
import { newId } from '../../core/id.ts'
import { type ApiKey, type Client, clientScopes, type Millis } from '../../core/model.ts'
import type { AddKeyResult } from '../../store/interfaces.ts'
import { type AppContext, idParam, OPERATOR_SCOPE } from '../context.ts'
import { keyExamples as examples } from '../openapi/examples/access.ts'
import { type ApiReply, validationFailed } from '../request/problem.ts'
import { emptyReply, jsonReply, notFound, toTimestamp, toTimestampOrNull } from '../request/replies.ts'
import { type ApiCall, type NamedExample, type Route, response, route } from '../request/route.ts'
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

const created = (example: NamedExample) => ({ 201: response('The key, shown once.', shapes.createdKey, [example]) })
const listed = (example: NamedExample) => ({ 200: response('The keys.', shapes.keyList, [example]) })
const revoked = { 204: { description: 'Revoked.' } }
const ROTATE =
  'The new key has the name, the scopes and the lifetime of the old one. The old key expires after the overlap. A key that has ended cannot be rotated.'

function clientKeyRoutes(context: AppContext): Route[] {
  const find = (call: ApiCall): Promise<Client> => findClient(context, call)
  const findKey = async (call: ApiCall): Promise<ApiKey> => {
    const client = await find(call)
    return findKeyById(await context.store.access.listKeys(client.id), idParam(call, 'key', 'keyId'))
  }
  const common = { tag: 'Clients', scope: OPERATOR_SCOPE } as const
  return [
    route.post('/v1/clients/{id}/keys', 'createKey', {
      ...common,
      summary: 'Create a key for a client',
      description: 'Without `scopes` the key has all scopes of a client.',
      body: shapes.createKey,
      bodyExamples: [examples.createKey],
      bodyOptional: true,
      responses: created(examples.createdKey),
      find,
      handle: (call, { body, found }) =>
        addKey(context, call, found.id, {
          name: body?.name ?? '',
          scopes: body?.scopes ?? clientScopes,
          taskTypes: null,
          expiresAt: body?.expiresAt ?? null,
        }),
    }),
    route.get('/v1/clients/{id}/keys', 'listKeys', {
      ...common,
      summary: 'List the keys of a client, including revoked keys',
      description: 'Shows the hint of each key. The key itself is not stored.',
      responses: listed(examples.keyList),
      find,
      handle: async (_call, { found }) => listedKeys(await context.store.access.listKeys(found.id)),
    }),
    route.post('/v1/clients/{id}/keys/{keyId}/rotate', 'rotateKey', {
      ...common,
      summary: 'Replace a key of a client. The old key works during the overlap',
      description: ROTATE,
      body: shapes.rotateKey,
      bodyExamples: [examples.rotateKey],
      bodyOptional: true,
      responses: created(examples.createdKey),
      find: findKey,
      handle: (call, { body, found }) => rotate(context, call, found, body?.overlapSeconds),
    }),
    route.delete('/v1/clients/{id}/keys/{keyId}', 'revokeKey', {
      ...common,
      summary: 'Revoke a key: at once on this node, within 5 s on others',
      description: 'This cannot be undone. Create another key instead.',
      responses: revoked,
      find: findKey,
      handle: (call, { found }) => revoke(context, call, found),
    }),
  ]
}

function operatorKeyRoutes(context: AppContext): Route[] {
  const common = { tag: 'Operators', scope: OPERATOR_SCOPE } as const
  const find = async (call: ApiCall): Promise<ApiKey> => findKeyById(await context.store.access.listKeys(null), idParam(call, 'key'))
  return [
    route.post('/v1/operator-keys', 'createOperatorKey', {
      ...common,
      summary: 'Create a key for an operator or a worker',
      description: '`taskTypes` limits a worker’s key to these types. Without it the key may claim every type.',
      body: shapes.createOperatorKey,
      bodyExamples: [examples.createOperatorKey],
      responses: created(examples.createdOperatorKey),
      handle(call, { body: { name, scopes, taskTypes = null, expiresAt = null } }) {
        // The scope admin includes every other scope, so `taskTypes` would not limit such a key.
        if (taskTypes !== null && scopes.some((scope) => scope !== 'worker'))
          throw validationFailed([{ pointer: '#/taskTypes', detail: 'needs a key whose only scope is worker' }])
        return addKey(context, call, null, { name, scopes, taskTypes, expiresAt })
      },
    }),
    route.get('/v1/operator-keys', 'listOperatorKeys', {
      ...common,
      summary: 'List the keys of operators and workers',
      description: 'Shows the hint of each key. The key itself is not stored.',
      responses: listed(examples.operatorKeyList),
      handle: async () => listedKeys(await context.store.access.listKeys(null)),
    }),
    route.post('/v1/operator-keys/{id}/rotate', 'rotateOperatorKey', {
      ...common,
      summary: 'Replace a key of an operator or a worker. The old key works during the overlap',
      description: ROTATE,
      body: shapes.rotateKey,
      bodyExamples: [examples.rotateKey],
      bodyOptional: true,
      responses: created(examples.createdOperatorKey),
      find,
      handle: (call, { body, found }) => rotate(context, call, found, body?.overlapSeconds),
    }),
    route.delete('/v1/operator-keys/{id}', 'revokeOperatorKey', {
      ...common,
      summary: 'Revoke the key of an operator or a worker',
      description: 'At once on this node, within 5 s on others.',
      responses: revoked,
      find,
      handle: (call, { found }) => revoke(context, call, found),
    }),
  ]
}

interface NewKeyRequest {
  readonly name: string
  readonly scopes: readonly string[]
  readonly taskTypes: readonly string[] | null
  readonly expiresAt: Millis | null
}

const unique = (list: readonly string[]): string => JSON.stringify([...new Set(list)])

/** @throws RingbackError `quota_exceeded`; `not_found` when the client was deleted in the meantime */
function addedKey(result: AddKeyResult, missing: () => RingbackError): ApiKey {
  if (result.kind === 'added') return result.value
  if (result.kind === 'missing') throw missing()
  throw new RingbackError(
    'quota_exceeded',
    `The client has ${result.active} active keys, the maximum: revoke some that it no longer needs.`,
  )
}

async function addKey(context: AppContext, call: ApiCall, clientId: string | null, request: NewKeyRequest): Promise<ApiReply> {
  const { name, scopes, taskTypes, expiresAt } = request
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

/** Schemas of clients, keys, signing keys and the audit log. */
import { z } from '@hono/zod-openapi'
import { auditActions, clientScopes } from '../../core/model.ts'
import { cursor, id, instant, limit, pageOf, text, time, timeOrNull } from './fields.ts'

export const createClient = z.strictObject({ name: text(200, 1) }).openapi('CreateClient')
export const client = z
  .strictObject({ id: id('client'), name: z.string(), status: z.enum(['active', 'suspended']), createdAt: time })
  .openapi('Client')
export const clientList = pageOf(client).openapi('ClientList')

export const createKey = z
  .strictObject({
    name: text(200).nullish(),
    scopes: z.array(z.enum(clientScopes)).min(1).nullish(),
    expiresAt: instant.nullish(),
  })
  .openapi('CreateKey')
export const createOperatorKey = z
  .strictObject({
    name: text(200, 1),
    scopes: z.array(z.enum(['worker', 'admin'])).min(1),
    taskTypes: z
      .array(
        z
          .string()
          .max(128)
          .regex(/^[a-z0-9_-]+(\.[a-z0-9_-]+)*$/, 'must be a task type'),
      )
      .min(1)
      .max(100)
      .nullish(),
    expiresAt: instant.nullish(),
  })
  .openapi('CreateOperatorKey')
export const rotateKey = z.strictObject({ overlapSeconds: z.int().min(0).max(2_592_000).default(86_400) }).openapi('RotateKey')
const keyMembers = {
  id: id('key'),
  clientId: z.string().nullable(),
  name: z.string(),
  scopes: z.array(z.string()),
  taskTypes: z.array(z.string()).nullable().openapi({ description: 'What a worker’s key may claim; null: every type that workers run.' }),
  hint: z.string(),
  createdAt: time,
  expiresAt: timeOrNull,
  revokedAt: timeOrNull,
  lastUsedAt: timeOrNull,
}
export const key = z.strictObject(keyMembers).openapi('Key')
export const createdKey = z
  .strictObject({ ...keyMembers, key: z.string().startsWith('rb_').openapi({ description: 'Shown once, here.' }) })
  .openapi('CreatedKey')
export const keyList = pageOf(key).openapi('KeyList')

export const signingKey = z
  .strictObject({
    id: z.string().openapi({ description: 'The `kid`: the RFC 7638 thumbprint of the key.' }),
    state: z.enum(['next', 'active', 'retiring', 'revoked']),
    alg: z.literal('ES256'),
    createdAt: time,
    publishedAt: time,
    activatedAt: timeOrNull,
    retiredAt: timeOrNull,
    signsFrom: timeOrNull.openapi({ description: 'When a requested next key begins to sign.' }),
    leavesAt: timeOrNull.openapi({ description: 'When a retiring key leaves the published set.' }),
  })
  .openapi('SigningKey')
export const signingKeyList = pageOf(signingKey).openapi('SigningKeyList')

export const auditLogQuery = z.strictObject({
  clientId: text(100).optional(),
  actor: text(100).optional().openapi({ description: 'The id of a key, `admin-token`, `cli` or `system`.' }),
  action: z.enum(auditActions).optional(),
  since: instant.optional(),
  until: instant.optional(),
  limit,
  cursor: cursor.optional(),
})
const auditEntry = z
  .strictObject({
    id: id('audit'),
    at: time,
    actor: z.string().openapi({ description: 'The id of a key, `admin-token`, `cli` or `system`.' }),
    action: z.enum(auditActions),
    target: z.string().nullable().openapi({ description: 'The id of the object.' }),
    clientId: z.string().nullable(),
    details: z.record(z.string(), z.unknown()),
    requestId: z.string().nullable(),
    remoteAddress: z.string().nullable(),
  })
  .openapi('AuditEntry')
export const auditLog = pageOf(auditEntry).openapi('AuditLog')

/** The JSON Schema of each event type, cut out of the OpenAPI document. */
import { endpointEventTypes, taskEventTypes } from '../../core/model.ts'
import type { AppContext } from '../context.ts'
import { jsonReply, notFound } from '../request/replies.ts'
import { type Route, route } from '../request/route.ts'
import * as shapes from '../shapes/system.ts'
import type { ApiInfo } from './document.ts'

/** Grows only when a valid receiver would break. New members and new event types do not break receivers. */
const VERSION = 'v1'
const EVENT_TYPES: readonly string[] = [...taskEventTypes, ...endpointEventTypes]

/** The part of the document that is read here. */
interface DocumentSource {
  readonly webhooks: Readonly<Record<string, { readonly post: { readonly requestBody: { readonly content: Content } } }>>
  readonly components: { readonly schemas: Readonly<Record<string, unknown>> }
}
type Content = Readonly<Record<string, { readonly schema: object }>>

export function eventSchemaRoutes(context: AppContext, describe: () => object): Route[] {
  const common = { tag: 'Events', scope: 'public' } as const
  return [
    route.get(`/schemas/${VERSION}/events/{type}`, 'getEventSchema', {
      ...common,
      summary: 'Get the JSON Schema of an event type',
      description:
        'The body of a webhook in the standard format, and of an event in the feed, as self-contained JSON Schema 2020-12. `v1` changes only when a valid receiver would break. New members do not count.',
      responses: {
        200: { description: 'The schema.', schema: shapes.jsonSchema, type: 'application/schema+json', headers: ['Cache-Control'] },
      },
      handle(call) {
        const type = call.param('type')
        if (!EVENT_TYPES.includes(type)) throw notFound('event type')
        const schema = eventSchema(describe() as DocumentSource, type, { publicUrl: context.publicUrl() })
        return jsonReply(200, schema, {
          'Content-Type': 'application/schema+json',
          'Cache-Control': 'public, max-age=3600',
          'Access-Control-Allow-Origin': '*',
        })
      },
    }),
  ]
}

/** The schema of a webhook of that type, with every schema it refers to. */
export function eventSchema(document: DocumentSource, type: string, { publicUrl }: Pick<ApiInfo, 'publicUrl'>): object {
  const { schema } = Object.values(document.webhooks[type]!.post.requestBody.content)[0]!
  const definitions: Record<string, unknown> = {}
  const addDefinition = (name: string): void => {
    if (name in definitions) return
    // Set before it is filled: a schema may refer to itself.
    definitions[name] = null
    definitions[name] = localize(document.components.schemas[name], addDefinition)
  }
  const own = localize(schema, addDefinition)
  return {
    $schema: 'https://json-schema.org/draft/2020-12/schema',
    $id: `${publicUrl}/schemas/${VERSION}/events/${type}`,
    title: type,
    allOf: [own],
    properties: { type: { const: type } },
    $defs: definitions,
  }
}

const COMPONENTS = '#/components/schemas/'

/** A copy whose references point to `$defs`. Calls `onReference` for each. */
function localize(node: unknown, onReference: (name: string) => void): unknown {
  if (Array.isArray(node)) return node.map((item) => localize(item, onReference))
  if (typeof node !== 'object' || node === null) return node
  return Object.fromEntries(
    Object.entries(node).map(([key, value]) => {
      if (key !== '$ref' || typeof value !== 'string') return [key, localize(value, onReference)]
      const name = value.slice(COMPONENTS.length)
      onReference(name)
      return [key, `#/$defs/${name}`]
    }),
  )
}

/** JSON Schemas of what webhooks carry, one for each event type, cut out of the OpenAPI document. */
import { endpointEventTypes, taskEventTypes } from '../../core/model.ts'
import { type AppContext, jsonReply, notFound } from '../context.ts'
import { type Route, route } from '../request/route.ts'
import * as shapes from '../shapes/system.ts'
import type { ApiInfo } from './document.ts'

/** Grows when a receiver that was valid before would not be. New members and new types do not count: receivers ignore what they do not know. */
const VERSION = 'v1'
const EVENT_TYPES: readonly string[] = [...taskEventTypes, ...endpointEventTypes]

/** As much of the document as schemas are cut out of. */
interface DocumentSource {
  readonly webhooks: Readonly<Record<string, { readonly post: { readonly requestBody: { readonly content: Content } } }>>
  readonly components: { readonly schemas: Readonly<Record<string, unknown>> }
}
type Content = Readonly<Record<string, { readonly schema: object }>>

export function eventSchemaRoutes(context: AppContext, describe: () => object): Route[] {
  const common = { tag: 'Events', scope: 'public', method: 'get' } as const
  return [
    route(
      {
        ...common,
        path: `/schemas/${VERSION}/events/{type}`,
        name: 'getEventSchema',
        summary: 'The JSON Schema of an event type',
        description:
          'What webhooks of that type carry in the standard format, and what the feed lists, as JSON Schema 2020-12 that stands by itself. `v1` grows when a receiver that was right before would not be; new members do not count.',
        responses: {
          200: { description: 'The schema.', schema: shapes.jsonSchema, type: 'application/schema+json', headers: ['Cache-Control'] },
        },
      },
      {
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
      },
    ),
  ]
}

/** What the document says of a webhook of that type, with every schema it names brought along. */
export function eventSchema(document: DocumentSource, type: string, { publicUrl }: Pick<ApiInfo, 'publicUrl'>): object {
  const { schema } = Object.values(document.webhooks[type]!.post.requestBody.content)[0]!
  const definitions: Record<string, unknown> = {}
  const bring = (name: string): void => {
    if (name in definitions) return
    // Before it is filled: a schema may name itself.
    definitions[name] = null
    definitions[name] = localize(document.components.schemas[name], bring)
  }
  const own = localize(schema, bring)
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

/** A copy whose references lead to `$defs`; `named` is told of each. */
function localize(node: unknown, named: (name: string) => void): unknown {
  if (Array.isArray(node)) return node.map((item) => localize(item, named))
  if (typeof node !== 'object' || node === null) return node
  return Object.fromEntries(
    Object.entries(node).map(([key, value]) => {
      if (key !== '$ref' || typeof value !== 'string') return [key, localize(value, named)]
      const name = value.slice(COMPONENTS.length)
      named(name)
      return [key, `#/$defs/${name}`]
    }),
  )
}

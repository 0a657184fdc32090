/** The document with examples and links: put where a schema or an operation asks for them by its name. */
import type { ErrorCode } from '../../core/errors.ts'
import { examplesByOperation, examplesBySchema } from './example-index.ts'
import { examples, problemExample } from './examples.ts'
import { linksByOperation, linksBySchema } from './links.ts'

interface Media {
  readonly schema?: { readonly $ref?: string }
  examples?: Record<string, Reference>
}
interface ResponseObject {
  readonly description: string
  readonly content?: Record<string, Media>
  links?: Record<string, Reference>
}
interface Operation {
  readonly operationId?: string
  readonly requestBody?: { readonly content: Record<string, Media> }
  readonly responses: Record<string, ResponseObject>
  readonly callbacks?: Record<string, Record<string, PathItem>>
}
type PathItem = Readonly<Record<string, Operation>>
interface Reference {
  readonly $ref: string
}
/** As much of an OpenAPI document as is looked at here. */
export interface OpenApiDocument {
  readonly paths: Record<string, PathItem>
  readonly webhooks: Record<string, PathItem>
  readonly components: { examples?: Record<string, unknown>; links?: Record<string, unknown> }
}

/** Adds them to `document` itself. `refusals` gives the codes of an operation by status. */
export function addExamplesAndLinks(
  document: OpenApiDocument,
  refusals: (operationId: string) => Readonly<Record<string, readonly ErrorCode[]>>,
): void {
  const shown: Record<string, unknown> = {}
  const led: Record<string, unknown> = {}
  const show = (media: Media, names: readonly string[]): void => {
    if (names.length === 0) return
    media.examples = Object.fromEntries(names.map((name) => [name, { $ref: `#/components/examples/${name}` }]))
    for (const name of names) shown[name] ??= examples[name] ?? problemExample(name as ErrorCode)
  }
  const lead = (answer: ResponseObject, operationId: string): void => {
    const schema = schemaName(answer.content?.['application/json'])
    const from = linksByOperation[operationId] ?? {}
    const every = [
      ...Object.entries(from).map(([name, link]) => [name, `${operationId}.${name}`, link] as const),
      ...Object.entries((schema && linksBySchema[schema]) ?? {}).map(([name, link]) => [name, `${schema}.${name}`, link] as const),
    ]
    if (every.length === 0) return
    answer.links = Object.fromEntries(every.map(([name, id]) => [name, { $ref: `#/components/links/${id}` }]))
    for (const [, id, link] of every) led[id] = link
  }

  for (const operation of operations(document.paths)) {
    const { operationId = '', requestBody, responses, callbacks } = operation
    for (const media of Object.values(requestBody?.content ?? {})) show(media, examplesBySchema[schemaName(media) ?? ''] ?? [])
    for (const [status, answer] of Object.entries(responses)) {
      for (const [type, media] of Object.entries(answer.content ?? {}))
        if (type === 'application/problem+json') show(media, refusals(operationId)[status] ?? [])
        else {
          const own = type === 'application/json' ? examplesByOperation[operationId]?.[Number(status)] : undefined
          show(media, own ?? examplesBySchema[schemaName(media) ?? ''] ?? [])
        }
      if (Number(status) < 300 && answer.content) lead(answer, operationId)
    }
    for (const callback of Object.values(callbacks ?? {}))
      for (const each of operations(callback))
        for (const media of Object.values(each.requestBody?.content ?? {})) show(media, ['task.completed', 'task.failed', 'task.canceled'])
  }
  for (const [type, item] of Object.entries(document.webhooks))
    for (const operation of Object.values(item))
      for (const media of Object.values(operation.requestBody?.content ?? {})) show(media, [type])
  document.components.examples = shown
  document.components.links = led
}

function* operations(paths: Readonly<Record<string, PathItem>>): Generator<Operation> {
  for (const item of Object.values(paths)) yield* Object.values(item)
}

const schemaName = (media: Media | undefined): string | undefined => media?.schema?.$ref?.split('/').at(-1)

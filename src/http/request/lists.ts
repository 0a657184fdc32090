/** Lists: filters, cursors and pages. */
import type { Page, Position } from '../../store/interfaces.ts'
import type { AppContext } from '../context.ts'
import type { Caller } from './auth.ts'
import { type ApiReply, validationFailed } from './problem.ts'
import { JSON_TYPE } from './replies.ts'
import type { ApiCall } from './route.ts'

/** The client whose objects a list shows. Null: every client's, for the operator. */
export function clientFilter(caller: Caller, clientId: string | undefined): string | null {
  if (caller.clientId === null) return clientId ?? null
  if (clientId !== undefined) throw validationFailed([{ pointer: '#/query/clientId', detail: 'may be given by the operator only' }])
  return caller.clientId
}

/** What a cursor is bound to: the caller, the list and its filters. */
export function cursorScope(call: ApiCall, list: string, filters: object): string {
  return JSON.stringify([call.caller.clientId, list, Object.entries(filters).sort(([a], [b]) => (a < b ? -1 : 1))])
}

/** @throws RingbackError `invalid_cursor` */
export async function startPosition(context: AppContext, scope: string, cursor: string | undefined): Promise<Position | null> {
  if (cursor === undefined) return null
  const [at, id] = await context.cursors.decode(scope, cursor)
  return { at: Number(at), id: String(id) }
}

type Defined<T> = { [K in keyof T as undefined extends T[K] ? never : K]: T[K] } & {
  [K in keyof T as undefined extends T[K] ? K : never]?: Exclude<T[K], undefined>
}

/** A copy without the undefined members. */
export const omitUndefined = <T extends object>(value: T): Defined<T> =>
  Object.fromEntries(Object.entries(value).filter(([, member]) => member !== undefined)) as Defined<T>

/** A page ends early at this many characters, to bound its memory. */
const MAX_PAGE_CHARS = 4 * 1024 * 1024

/** A page of the contract, with `Link: …; rel="next"`. `show` gives the JSON text of an item. */
export async function pageReply<T>(
  context: AppContext,
  call: ApiCall,
  scope: string,
  page: Page<T>,
  show: (item: T, index: number) => string,
  positionOf: (item: T) => Position,
  headers: Record<string, string> = {},
): Promise<ApiReply> {
  const documents: string[] = []
  let size = 0
  let next = page.next
  for (const [index, item] of page.items.entries()) {
    const text = show(item, index)
    size += text.length
    if (size > MAX_PAGE_CHARS && documents.length > 0) {
      next = positionOf(page.items[index - 1] as T)
      break
    }
    documents.push(text)
  }
  const cursor = next === null ? null : await context.cursors.encode(scope, [next.at, next.id])
  return listReply(context, call, documents, next !== null, cursor, headers)
}

export function listReply(
  context: AppContext,
  call: ApiCall,
  documents: readonly string[],
  hasMore: boolean,
  cursor: string | null,
  headers: Record<string, string> = {},
  parameter = 'cursor',
): ApiReply {
  const link: Record<string, string> = {}
  if (hasMore && cursor !== null) {
    const query = new URLSearchParams(call.request.url.split('?')[1] ?? '')
    query.set(parameter, cursor)
    // An app that is mounted under a path has that path in its public URL.
    link.Link = `<${context.publicUrl()}${call.path.slice(call.path.indexOf('/v1/'))}?${query}>; rel="next"`
  }
  return {
    status: 200,
    headers: { 'Content-Type': JSON_TYPE, 'Cache-Control': 'private, no-cache', ...headers, ...link },
    body: `{"data":[${documents.join(',')}],"hasMore":${hasMore},"nextCursor":${JSON.stringify(cursor)}}`,
  }
}

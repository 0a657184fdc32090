/** The schedule routes: recurring tasks. */
import { parseCron, type Recurrence } from '../../core/cron.ts'
import { newId } from '../../core/id.ts'
import type { Json, Millis, Schedule, TaskTemplate } from '../../core/model.ts'
import type { NewSchedule, SchedulePatch } from '../../store/interfaces.ts'
import { type AppContext, idParam, requireClientId } from '../context.ts'
import { scheduleExamples as examples } from '../openapi/examples/tasks.ts'
import { checkIfMatch, preconditionFailed, requireIfMatch } from '../request/headers.ts'
import { clientFilter, cursorScope, pageReply, startPosition } from '../request/lists.ts'
import { type ApiReply, validationFailed } from '../request/problem.ts'
import { emptyReply, JSON_TYPE, notFound, quotaExceeded, toTimestamp, toTimestampOrNull } from '../request/replies.ts'
import { type ApiCall, type Route, response, route, validateShape } from '../request/route.ts'
import * as fields from '../shapes/fields.ts'
import * as shapes from '../shapes/schedules.ts'
import * as taskShapes from '../shapes/tasks.ts'
import { type CallbackBody, rawInput, requireTaskType, toStoredCallback, validateInput } from './create-tasks.ts'

const DEFAULT_ZONE = 'UTC'
const DEFAULT_CATCH_UP = 'none'
/** Keeps lists of schedules short and ticks cheap. */
const MAX_INPUT_BYTES = 65_536
const MAX_LABELS = 16
/** Upcoming ticks that a response shows. */
const SHOWN_TICKS = 5

export function scheduleRoutes(context: AppContext): Route[] {
  const common = { tag: 'Schedules' } as const
  const one = response('The schedule.', shapes.schedule, [examples.schedule], ['ETag'])
  const refusals = ['task_type_not_found', 'invalid_callback_url', 'callback_url_forbidden', 'callback_url_not_verified'] as const
  return [
    route.post('/v1/schedules', 'createSchedule', {
      ...common,
      summary: 'Create a schedule: a recurring task',
      description: 'Each tick creates one task. Its `runAt` is the time of the tick, its `scheduleId` the schedule.',
      scope: 'tasks:write',
      clientOnly: true,
      body: shapes.createSchedule,
      bodyExamples: [examples.createSchedule],
      responses: { 201: { ...one, headers: ['Location', 'ETag'] } },
      errorCodes: refusals,
      handle: (call, { body }) => create(context, call, body),
    }),
    route.get('/v1/schedules', 'listSchedules', {
      ...common,
      summary: 'List schedules',
      description: 'Oldest first. The operator sees the schedules of every client.',
      scope: 'tasks:read',
      query: fields.clientPageQuery,
      responses: { 200: response('A page of schedules.', shapes.scheduleList, [examples.scheduleList], ['Link']) },
      errorCodes: ['invalid_cursor'],
      async handle(call, { query }) {
        const owner = clientFilter(call.caller, query.clientId)
        const scope = cursorScope(call, 'schedules', { owner })
        const page = await context.store.schedules.list(owner, query.limit, await startPosition(context, scope, query.cursor))
        return pageReply(context, call, scope, page, scheduleJson, ({ createdAt, id }) => ({ at: createdAt, id }))
      },
    }),
    route.get('/v1/schedules/{id}', 'getSchedule', {
      ...common,
      summary: 'Get a schedule with its next five ticks',
      description: '`nextAt` is the next tick. `upcoming` is computed at each read.',
      scope: 'tasks:read',
      responses: { 200: one },
      find: (call) => find(context, call),
      handle: (_, { found }) => scheduleReply(found),
    }),
    route.patch('/v1/schedules/{id}', 'changeSchedule', {
      ...common,
      summary: 'Change a schedule by a merge patch (RFC 7396)',
      description: 'After a new `cron` or `timezone`, or the end of a pause, ticks count from now. Missed ticks are not made up.',
      scope: 'tasks:write',
      body: shapes.patchSchedule,
      bodyExamples: [examples.patchSchedule],
      acceptedTypes: ['application/merge-patch+json', 'application/json'],
      requestHeaders: ['If-Match'],
      responses: { 200: one },
      errorCodes: [...refusals, 'precondition_failed', 'malformed_header'],
      checkHeaders: checkIfMatch,
      find: (call) => findUnchanged(context, call),
      handle: async (call, { body, found }) => scheduleReply(await change(context, call, found, body)),
    }),
    route.delete('/v1/schedules/{id}', 'deleteSchedule', {
      ...common,
      summary: 'Delete a schedule. Its tasks stay',
      description: 'No further tick creates a task.',
      scope: 'tasks:write',
      requestHeaders: ['If-Match'],
      responses: { 204: { description: 'Deleted.' } },
      errorCodes: ['precondition_failed', 'malformed_header'],
      checkHeaders: checkIfMatch,
      find: (call) => findUnchanged(context, call),
      async handle(call, { found }) {
        if (!(await context.store.schedules.remove({ id: found.id, clientId: call.caller.clientId, by: call.author })))
          throw notFound('schedule')
        return emptyReply()
      },
    }),
  ]
}

async function find(context: AppContext, call: ApiCall): Promise<Schedule> {
  const schedule = await context.store.schedules.find(idParam(call, 'schedule'), call.caller.clientId)
  if (!schedule) throw notFound('schedule')
  return schedule
}

/** The schedule, if `If-Match` admits its revision. */
async function findUnchanged(context: AppContext, call: ApiCall): Promise<Schedule> {
  const schedule = await find(context, call)
  requireIfMatch(call, 'schedule', schedule)
  return schedule
}

async function create(context: AppContext, call: ApiCall, body: shapes.CreateSchedule): Promise<ApiReply> {
  const timezone = body.timezone ?? DEFAULT_ZONE
  const recurrence = parseCron(body.cron, timezone)
  const { callback } = body
  const clientId = requireClientId(call)
  const input = rawInput(call, body.input)
  await checkInput(context, body.type, input)
  const template: TaskTemplate = {
    input,
    metadata: JSON.stringify(body.metadata ?? {}),
    callback: callback ? await toStoredCallback(context, clientId, callback, '#') : callback === null ? null : '{}',
    timeoutSeconds: body.timeoutSeconds ?? null,
    maxTries: body.maxTries ?? null,
    priority: body.priority ?? 0,
    concurrencyKey: body.concurrencyKey ?? null,
  }
  const paused = body.paused ?? false
  const max = context.maxPerClient.schedules
  const schedule: NewSchedule = {
    id: newId(context.clock, 'schedule'),
    clientId,
    type: body.type,
    cron: body.cron,
    timezone,
    catchUp: body.catchUp ?? DEFAULT_CATCH_UP,
    template: JSON.stringify(template),
    paused,
    nextAt: paused ? null : recurrence.after(await context.store.now()),
  }
  const added = await context.store.schedules.add({ schedule, max })
  if (added.kind !== 'added') throw quotaExceeded(max, 'schedules')
  const reply = scheduleReply(added.value, 201)
  reply.headers.Location = `${context.publicUrl()}/v1/schedules/${schedule.id}`
  return reply
}

/** @throws RingbackError `task_type_not_found`, `validation_failed` */
async function checkInput(context: AppContext, typeName: string, input: Json): Promise<void> {
  const type = requireTaskType(context, typeName, '#')
  if (Buffer.byteLength(input) > MAX_INPUT_BYTES)
    throw validationFailed([{ pointer: '#/input', detail: `is larger than ${MAX_INPUT_BYTES} bytes, the maximum of a schedule` }])
  await validateInput(type, JSON.parse(input), '#')
}

/** How often a change is repeated after a conflict with a tick or another change. */
const MAX_RETRIES = 5

/** Reads, plans and writes. Repeats after a conflict, unless the caller named a revision. */
async function change(context: AppContext, call: ApiCall, found: Schedule, body: shapes.PatchSchedule): Promise<Schedule> {
  let schedule = found
  for (let again = 0; ; again++) {
    const patch = await planPatch(context, call, schedule, body)
    if (Object.keys(patch).length === 0) return schedule
    const changed = await context.store.schedules.change({
      id: schedule.id,
      clientId: call.caller.clientId,
      patch,
      seen: schedule,
      by: call.author,
    })
    if (changed.kind === 'changed') return changed.value
    if (changed.kind === 'missing') throw notFound('schedule')
    schedule = await findUnchanged(context, call)
    if (again === MAX_RETRIES) throw preconditionFailed('schedule', schedule.revision)
  }
}

async function planPatch(context: AppContext, call: ApiCall, schedule: Schedule, body: shapes.PatchSchedule): Promise<SchedulePatch> {
  const cron = body.cron ?? schedule.cron
  const timezone = body.timezone === undefined ? schedule.timezone : (body.timezone ?? DEFAULT_ZONE)
  const moved = cron !== schedule.cron || timezone !== schedule.timezone
  const recurrence = moved ? parseCron(cron, timezone) : null
  const wasPaused = schedule.pausedAt !== null
  const paused = body.paused === undefined ? wasPaused : (body.paused ?? false)
  const template = JSON.stringify(await planTemplate(context, call, schedule, body))
  const catchUp = body.catchUp === undefined ? schedule.catchUp : (body.catchUp ?? DEFAULT_CATCH_UP)
  const counts = !paused && (moved || wasPaused)
  return {
    ...(moved && { cron, timezone }),
    ...(catchUp !== schedule.catchUp && { catchUp }),
    ...(template !== schedule.template && { template }),
    ...(paused !== wasPaused && { paused }),
    ...(paused && !wasPaused && { nextAt: null }),
    ...(counts && { nextAt: await nextOf(context, schedule, recurrence ?? parseCron(cron, timezone)) }),
  }
}

/** After now and after the last tick, so that a clock that was set back repeats no tick. */
async function nextOf(context: AppContext, schedule: Schedule, recurrence: Recurrence): Promise<Millis | null> {
  return recurrence.after(Math.max(await context.store.now(), schedule.lastAt ?? 0))
}

async function planTemplate(context: AppContext, call: ApiCall, schedule: Schedule, body: shapes.PatchSchedule): Promise<TaskTemplate> {
  const known = JSON.parse(schedule.template) as TaskTemplate
  const { callback } = body
  return {
    input: body.input === undefined ? known.input : await mergeInput(context, call, schedule.type, known.input, body.input),
    metadata: body.metadata === undefined ? known.metadata : mergeMetadata(known.metadata, body.metadata),
    callback: callback ? await mergeCallback(context, schedule, known.callback, callback) : callback === null ? null : known.callback,
    timeoutSeconds: body.timeoutSeconds === undefined ? known.timeoutSeconds : body.timeoutSeconds,
    maxTries: body.maxTries === undefined ? known.maxTries : body.maxTries,
    priority: body.priority === undefined ? known.priority : (body.priority ?? 0),
    concurrencyKey: body.concurrencyKey === undefined ? known.concurrencyKey : body.concurrencyKey,
  }
}

/** An input that is replaced completely is stored as written. */
async function mergeInput(context: AppContext, call: ApiCall, type: string, known: Json, patch: unknown): Promise<Json> {
  const written = rawInput(call, patch)
  const input = isObject(patch) ? JSON.stringify(mergePatch(JSON.parse(known), patch)) : written
  await checkInput(context, type, input)
  return input
}

function mergeMetadata(known: Json, patch: Record<string, string | null> | null): Json {
  const merged = mergePatch(JSON.parse(known), patch ?? {}) as object
  if (Object.keys(merged).length > MAX_LABELS)
    throw validationFailed([{ pointer: '#/metadata', detail: `must leave at most ${MAX_LABELS} members` }])
  return patch === null ? '{}' : JSON.stringify(merged)
}

async function mergeCallback(context: AppContext, schedule: Schedule, known: Json | null, patch: object): Promise<Json> {
  const merged = validateShape(taskShapes.createCallback, mergePatch(JSON.parse(known ?? '{}'), patch), '#/callback') as CallbackBody
  return toStoredCallback(context, schedule.clientId, merged, '#')
}

const isObject = (value: unknown): value is Record<string, unknown> => typeof value === 'object' && value !== null && !Array.isArray(value)

/** RFC 7396 §2. Recursion is safe: bodies have a maximum depth. */
function mergePatch(target: unknown, patch: unknown): unknown {
  if (!isObject(patch)) return patch
  const merged = new Map(isObject(target) ? Object.entries(target) : [])
  for (const [name, value] of Object.entries(patch))
    if (value === null) merged.delete(name)
    else merged.set(name, mergePatch(merged.get(name), value))
  return Object.fromEntries(merged)
}

function scheduleReply(schedule: Schedule, status = 200): ApiReply {
  return {
    status,
    headers: { 'Content-Type': JSON_TYPE, 'Cache-Control': 'private, no-cache', ETag: `"${schedule.revision}"` },
    body: scheduleJson(schedule),
  }
}

/** The schedule as JSON text. `input` is sent as written. */
function scheduleJson(schedule: Schedule): string {
  const { input, metadata, callback, ...template } = JSON.parse(schedule.template) as TaskTemplate
  const { id, type, cron, timezone, catchUp, nextAt, lastAt, revision } = schedule
  const head = JSON.stringify({ id, type, cron, timezone, catchUp, paused: schedule.pausedAt !== null })
  const { endpointId = null, url = null, events = null, retrySchedule = null } = JSON.parse(callback ?? '{}')
  const tail = JSON.stringify({
    callback: callback === null ? null : { endpointId, url, events, retrySchedule },
    ...template,
    nextAt: toTimestampOrNull(nextAt),
    lastAt: toTimestampOrNull(lastAt),
    upcoming: upcoming(schedule).map(toTimestamp),
    createdAt: toTimestamp(schedule.createdAt),
    updatedAt: toTimestamp(schedule.updatedAt),
    revision,
  })
  return `${head.slice(0, -1)},"input":${input},"metadata":${metadata},${tail.slice(1)}`
}

function upcoming({ cron, timezone, nextAt }: Schedule): readonly Millis[] {
  if (nextAt === null) return []
  const times = [nextAt]
  try {
    const recurrence = parseCron(cron, timezone)
    for (let at = recurrence.after(nextAt); at !== null && times.length < SHOWN_TICKS; at = recurrence.after(at)) times.push(at)
  } catch {
    // This node lacks the time zone, which another node had. Only the stored tick is shown.
  }
  return times
}

/** The task type `system.replay`: sends again what a filter matches. */
import type { EventType, State } from '../../core/model.ts'
import type { ReplayCheckpoint, ReplayFilter, StoreWith } from '../../store/interfaces.ts'
import type { TaskType } from '../define.ts'
import { walkType } from './paged-job.ts'

export const REPLAY = 'system.replay'

/** What the task's input holds: the filter as it was asked, with its time fixed, so that a replay never meets its own deliveries. */
export interface ReplayInput {
  readonly endpointId: string | null
  /** RFC 3339. */
  readonly since: string | null
  readonly until: string
  readonly asOf: string
  readonly states: readonly State[]
  readonly eventTypes: readonly EventType[] | null
}
export const filterOf = (clientId: string, { endpointId, since, until, asOf, states, eventTypes }: ReplayInput): ReplayFilter => ({
  clientId,
  endpointId,
  since: since === null ? null : Date.parse(since),
  until: Date.parse(until),
  asOf: Date.parse(asOf),
  states,
  eventTypes,
})

export const replayType = (store: StoreWith<{ deliveries: 'runReplayPage' }>): TaskType =>
  walkType<ReplayInput, ReplayCheckpoint>({
    type: REPLAY,
    description: 'Sends deliveries again.',
    page: (lease, clientId, input) => store.deliveries.runReplayPage({ lease, filter: filterOf(clientId, input) }),
    span: ({ since, until }) => ({ since: since === null ? 0 : Date.parse(since), until: Date.parse(until) }),
    told: ({ replayed }) => `${replayed} sent again`,
    result: ({ replayed, skipped }) => ({ matched: replayed + skipped, replayed, skipped }),
  })

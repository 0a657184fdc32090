/** The task type `system.replay`: sends again what a filter matches. */
import type { EventType, State } from '../../core/model.ts'
import type { ReplayCheckpoint, ReplayFilter, StoreWith } from '../../store/interfaces.ts'
import type { TaskType } from '../define.ts'
import { pagedJobType } from './paged-job.ts'

export const REPLAY_TYPE = 'system.replay'

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
export const toReplayFilter = (clientId: string, { endpointId, since, until, asOf, states, eventTypes }: ReplayInput): ReplayFilter => ({
  clientId,
  endpointId,
  since: since === null ? null : Date.parse(since),
  until: Date.parse(until),
  asOf: Date.parse(asOf),
  states,
  eventTypes,
})

export const createReplayType = (store: StoreWith<{ deliveries: 'runReplayPage' }>): TaskType =>
  pagedJobType<ReplayInput, ReplayCheckpoint>({
    type: REPLAY_TYPE,
    description: 'Sends deliveries again.',
    runPage: (lease, clientId, input) => store.deliveries.runReplayPage({ lease, filter: toReplayFilter(clientId, input) }),
    timeRange: ({ since, until }) => ({ since: since === null ? 0 : Date.parse(since), until: Date.parse(until) }),
    progressMessage: ({ replayed }) => `${replayed} sent again`,
    resultOf: ({ replayed, skipped }) => ({ matched: replayed + skipped, replayed, skipped }),
  })

/** What a webhook says, once it is believed. */
import type { EventType } from '../core/model.ts'

/** A task as webhooks carry it: the same document as `GET /v1/tasks/{id}` answers. With `payload: "thin"`, input, result and metadata are null. */
export interface TaskData {
  readonly id: string
  readonly type: string
  readonly status: 'pending' | 'running' | 'completed' | 'failed' | 'canceled'
  /** 0 to 100. */
  readonly progress: number
  readonly progressMessage: string | null
  readonly input: unknown
  /** Where the input is, when it is too large to be here. */
  readonly inputUrl: string | null
  readonly result: unknown
  /** Where the result is, when it is too large to be here. */
  readonly resultUrl: string | null
  readonly error: { readonly code: string; readonly message: string; readonly details: unknown } | null
  readonly lastError: { readonly code: string; readonly message: string; readonly try: number; readonly at: string } | null
  readonly metadata: Readonly<Record<string, string>> | null
  readonly priority: number
  readonly concurrencyKey: string | null
  readonly tries: number
  readonly maxTries: number
  /** Which life of the task: one more for every retry of a task that had ended. */
  readonly generation: number
  /** Grows with every change. Order is not promised: keep the highest. */
  readonly revision: number
  readonly batchId: string | null
  readonly scheduleId: string | null
  readonly createdAt: string
  readonly runAt: string
  readonly startedAt: string | null
  readonly updatedAt: string
  readonly finishedAt: string | null
  readonly startBy: string | null
  readonly deadlineAt: string | null
  readonly timeoutSeconds: number
  readonly cancelRequestedAt: string | null
  readonly expiresAt: string | null
  readonly links: Readonly<Record<string, string>>
}

/** Answer 200 with `{"challenge": data.challenge}` to prove that the endpoint is yours. */
export interface ChallengeData {
  readonly endpointId: string
  readonly challenge: string
  readonly expiresAt: string
}

type DataOf<T extends EventType> = T extends 'task.completed'
  ? TaskData & { readonly status: 'completed' }
  : T extends 'task.failed'
    ? TaskData & { readonly status: 'failed' }
    : T extends 'task.canceled'
      ? TaskData & { readonly status: 'canceled' }
      : T extends `task.${string}`
        ? TaskData
        : T extends 'endpoint.verification'
          ? ChallengeData
          : Readonly<Record<string, unknown>>

/** The event a webhook carries. `type` tells what `data` is; ignore types you do not know, later versions have more. */
export type WebhookEvent = {
  [T in EventType]: {
    /** The event's id, the same on every attempt and redelivery. */
    readonly id: string
    readonly type: T
    /** When it happened, RFC 3339. */
    readonly timestamp: string
    readonly data: DataOf<T>
  }
}[EventType]

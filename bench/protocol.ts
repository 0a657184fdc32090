/**
 * IPC messages between the runner and its processes. One command at a time, one response each.
 * Times are milliseconds of {@link monotonicMs}.
 */

/** The tasks a load is made of. `inputBytes` is the exact length of `input` as JSON. */
export interface TaskSpec {
  readonly type: string
  readonly inputBytes: number
  /** Tasks go round these. */
  readonly endpointIds: readonly string[]
  readonly delaySeconds?: number
  /** `input.n` of the first task; each one after it is one higher. */
  readonly firstNumber: number
}

export interface Target {
  readonly port: number
  readonly path: string
  readonly headers: Readonly<Record<string, string>>
  readonly connections: number
  readonly task: TaskSpec
}

/** Closed loop: every connection has one request open at a time, until `count` or `durationMs` is reached. */
export interface ClosedLoad {
  readonly command: 'closed'
  readonly target: Target
  readonly count?: number
  readonly durationMs?: number
}

/** Open loop: request `i` is due at `startedAt + i / rate`, whatever became of those before it. */
export interface OpenLoad {
  readonly command: 'open'
  readonly target: Target
  readonly ratePerSecond: number
  readonly durationMs: number
}

export interface LoadReport {
  readonly startedAt: number
  readonly endedAt: number
  readonly sent: number
  /** 202 answers. */
  readonly accepted: number
  /** Answers by status, connection failures under 0. */
  readonly answers: Readonly<Record<string, number>>
  /** From sending (closed loop) or from being due (open loop) to the answer. */
  readonly answerMs: { readonly p50: number; readonly p99: number }
  /** How long after it was due a request left (open loop). */
  readonly lateMs: { readonly p50: number; readonly p99: number }
}

export type ReceiverCommand =
  /** Forget everything; keep headers and body of one request in `keepEvery` (0 keeps none). */
  | { readonly command: 'reset'; readonly keepEvery: number }
  | { readonly command: 'count' }
  /** Answers once `count` different webhooks have come, or after `timeoutMs`. */
  | { readonly command: 'await'; readonly count: number; readonly timeoutMs: number }
  | { readonly command: 'kept' }

export interface ReceiverCount {
  readonly requests: number
  /** Different `webhook-id`s. */
  readonly webhooks: number
  readonly firstAt: number
  /** When the newest webhook not seen before came. */
  readonly lastAt: number
}

export interface KeptRequest {
  readonly at: number
  readonly path: string
  readonly headers: Readonly<Record<string, string>>
  readonly body: string
}

/** The bare loop of {@link limit-sending}. */
export interface SendCommand {
  readonly command: 'send'
  readonly count: number
  readonly concurrency: number
  readonly urls: readonly string[]
}
export interface SendReport {
  readonly startedAt: number
  readonly endedAt: number
  readonly accepted: number
}

/** Answers each command from the parent with what `answer` returns. Ends with the parent. */
export function serveCommands<C>(answer: (command: C) => unknown): void {
  process.on('message', async (message) => {
    try {
      process.send?.({ ok: await answer(message as C) })
    } catch (error) {
      process.send?.({ error: error instanceof Error ? error.message : String(error) })
    }
  })
  process.on('disconnect', () => process.exit(0))
}

/** Examples of the calls of a worker. */
import { at, CLIENT, named, TASK } from './story.ts'
import { completed, pending } from './tasks.ts'

const lease = 'MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw'
const claimed = {
  id: TASK,
  type: 'report.build',
  clientId: CLIENT,
  try: 1,
  maxTries: 5,
  generation: 1,
  fence: 1,
  lease: { token: lease, expiresAt: at(31), seconds: 30 },
  deadlineAt: null,
  timeoutSeconds: 3_600,
  traceparent: null,
  tracestate: null,
  input: pending.input,
  metadata: pending.metadata,
}
const error = { code: 'ledger_open', message: 'the ledger of 2026-10 is still open' }

export const workerExamples = named({
  claimTasks: ['Claim one task, and wait for it', { types: ['report.build'], waitSeconds: 30 }],
  claimedTasks: ['A task and its lease', { tasks: [claimed] }],
  heartbeat: ['Renew the lease and report progress', { lease, progress: 42.5, message: 'page 3 of 7' }],
  completeTask: ['Complete the task', { lease, result: completed.result }],
  failTask: ['Fail the try, and retry in a minute', { lease, error, retryAfterSeconds: 60 }],
  releaseTask: ['Give the task back', { lease }],
  leaseKept: ['The renewed lease', { leaseExpiresAt: at(41), leaseSeconds: 30, cancelRequested: false }],
  leaseEnded: ['The task has completed', { status: 'completed' }],
})

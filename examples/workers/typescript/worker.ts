/** A worker of Ringback: claims tasks of the type certificate.inspect, several at once, and reads the certificates in them. */
import { X509Certificate } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'

const BASE = (process.env.WORKER_PLATFORM ?? 'http://127.0.0.1:8484').replace(/\/$/, '')
const KEY = process.env.WORKER_KEY
const TYPE = 'certificate.inspect'
const CONCURRENCY = 4

interface Claimed {
  readonly id: string
  readonly try: number
  readonly input: { readonly pem: string }
  readonly lease: { readonly token: string; readonly seconds: number }
}

/** The members of a response that a worker uses. */
interface Answer {
  readonly tasks?: readonly Claimed[]
  readonly leaseSeconds?: number
  readonly cancelRequested?: boolean
  readonly status?: string | number
  readonly code?: string
  readonly detail?: string
}

/** One API call. Rejects without a response. */
async function call(path: string, body: object, signal: AbortSignal) {
  const headers = { authorization: `Bearer ${KEY}`, 'content-type': 'application/json' }
  const response = await fetch(BASE + path, { method: 'POST', headers, body: JSON.stringify(body), signal })
  return { status: response.status, answer: (await response.json()) as Answer }
}

/** A failure that a retry cannot fix. */
class Hopeless extends Error {
  readonly code: string
  constructor(code: string, message: string) {
    super(message)
    this.code = code
  }
}
const failure = (message: string, code?: string) => ({ error: { message, ...(code && { code }) }, retryable: false })

/** The work. Between two certificates it yields to other tasks and checks the signal. */
async function inspect({ pem }: Claimed['input'], signal: AbortSignal, progress: (percent: number) => void) {
  const blocks = pem.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? []
  if (blocks.length === 0) throw new Hopeless('no_certificate', 'There is no certificate in it.')
  const read = blocks.map((block) => {
    try {
      return new X509Certificate(block)
    } catch (error) {
      throw new Hopeless('not_a_certificate', String(error))
    }
  })
  const certificates: object[] = []
  for (const [index, certificate] of read.entries()) {
    signal.throwIfAborted()
    const { subject, subjectAltName, issuer, validFrom, validTo, fingerprint256: sha256 } = certificate
    const next = read[index + 1] ?? (certificate.checkIssued(certificate) ? certificate : null)
    const signedByNext = next && certificate.checkIssued(next) && certificate.verify(next.publicKey)
    const names = subjectAltName?.split(', ') ?? []
    const dates = { validFrom: new Date(validFrom).toISOString(), validTo: new Date(validTo).toISOString() }
    certificates.push({ subject, names, issuer, ...dates, sha256, signedByNext })
    progress((100 * certificates.length) / read.length)
    await new Promise(setImmediate)
  }
  return { certificates }
}

const stopping = new AbortController()
for (const signal of ['SIGTERM', 'SIGINT']) process.on(signal, () => stopping.abort())

/** Runs one claimed task and reports its result, which ends its lease. */
async function run(task: Claimed): Promise<void> {
  console.log(`claimed ${task.id} try ${task.try}`)
  const ends = new AbortController()
  let endsAt = performance.now() + task.lease.seconds * 1000
  let report = {}
  const say = (verb: string, body: object, signal: AbortSignal) =>
    call(`/v1/worker/tasks/${task.id}/${verb}`, { lease: task.lease.token, ...body }, signal)
  // Sends a heartbeat every third of the lease. A missing response means nothing; a refusal means that the lease is lost.
  const settled = new AbortController()
  const every = (task.lease.seconds * 1000) / 3
  const beat = async (): Promise<void> => {
    while (await sleep(every, true, { signal: settled.signal }).catch(() => false)) {
      const began = performance.now()
      const beaten = await say('heartbeat', report, AbortSignal.timeout(every)).catch(() => null)
      if (beaten?.status === 200) endsAt = began + Number(beaten.answer.leaseSeconds) * 1000
      if ((beaten && beaten.status >= 400 && beaten.status < 500) || beaten?.answer.cancelRequested) ends.abort()
    }
  }
  const beating = beat()
  const work = inspect(task.input, AbortSignal.any([ends.signal, stopping.signal]), (progress) => {
    report = { progress }
  })
  let [verb, body] = await work.then(
    (result): [string, object] => ['complete', { result }],
    (error): [string, object] => {
      if (stopping.signal.aborted) return ['release', {}]
      return ['fail', error instanceof Hopeless ? failure(error.message, error.code) : { error: { message: String(error) } }]
    },
  )
  settled.abort()
  await beating
  // Retries until there is a response: a repeated report under the same lease gets the same response.
  for (let delay = 500; ; delay = Math.min(delay * 2, 5_000)) {
    const said = await say(verb, body, AbortSignal.timeout(20_000)).catch(() => null)
    if (verb === 'complete' && (said?.status === 413 || said?.status === 422)) {
      // Too large, or does not match the schema.
      ;[verb, body] = ['fail', failure(said.answer.detail ?? 'The result was refused.')]
      continue
    }
    if (said && said.status < 500) return console.log(`ended ${task.id} ${said.answer.status} ${said.answer.code ?? ''}`)
    if (performance.now() > endsAt) return console.log(`ended ${task.id} not said in time`)
    await sleep(delay * (0.5 + Math.random() / 2))
  }
}

const running = new Set<Promise<void>>()
console.log('ready')
for (let delay = 500; !stopping.signal.aborted; ) {
  if (running.size >= CONCURRENCY) await Promise.race(running)
  const asked = { types: [TYPE], limit: CONCURRENCY - running.size, waitSeconds: 30 }
  // After an aborted claim the platform keeps the tasks.
  const claimed = await call('/v1/worker/claim', asked, stopping.signal).catch(() => null)
  if (claimed?.status === 200) {
    delay = 500
    for (const task of claimed.answer.tasks ?? []) {
      const ended = run(task).finally(() => running.delete(ended))
      running.add(ended)
    }
  } else if (claimed && claimed.status < 500 && claimed.status !== 429) {
    throw new Error(`The platform refuses claims with ${claimed.status}: ${claimed.answer.detail}`)
  } else {
    await sleep(delay * (0.5 + Math.random() / 2), undefined, { signal: stopping.signal }).catch(() => {})
    delay = Math.min(delay * 2, 30_000)
  }
}
await Promise.all(running)
console.log('stopped')

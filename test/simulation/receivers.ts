/** Webhook receivers and their network: quick, slow, failing, unavailable for a while, or accepting requests without a response. */
import type { Millis } from '../../src/core/model.ts'
import type { SendResult } from '../../src/webhook/attempt.ts'
import type { Transport, WebhookRequest } from '../../src/webhook/transport.ts'
import type { Auditor } from './auditor.ts'
import type { Life } from './machine.ts'
import type { World } from './world.ts'

/** A webhook that arrived. */
export interface Arrival {
  readonly endpointId: string
  readonly eventId: string
  readonly body: string
}
/** How receivers fare: shares of what they get. */
export interface Moods {
  readonly fails: number
  readonly refuses: number
  readonly isSlow: number
  /** Takes the webhook, and the answer never comes. */
  readonly losesAnswers: number
  /** Asks to wait. */
  readonly throttles: number
}

export interface Receivers {
  transport(life: Life): Transport
  add(endpointId: string): string
  /** Nobody answers at that endpoint for so long. */
  shut(endpointId: string, ms: Millis): void
  /** How often the webhook of that event was taken by that endpoint. */
  taken(eventId: string, endpointId: string): number
  readonly arrivals: number
}

const TIMEOUT_MS: Millis = 20_000
const NOTICED_MS: Millis = 50

export function createReceivers(world: World, auditor: Auditor, moods: () => Moods, arrived: (arrival: Arrival) => void): Receivers {
  const endpoints = new Map<string, { readonly id: string; shutUntil: Millis }>()
  const bodies = new Map<string, string>()
  const taken = new Map<string, number>()
  let arrivals = 0

  /** What the receiver does with a webhook that reached it: the status, and after how long; null: no answer ever. */
  const receive = (endpointId: string, call: WebhookRequest): { status: number; afterMs: Millis; retryAfter?: number } | null => {
    const eventId = call.headers['webhook-id']!
    const body = call.body!
    arrivals++
    const key = `${eventId} ${endpointId}`
    if ((bodies.get(key) ?? body) !== body) world.violated(`webhook ${auditor.name(eventId)} came with two bodies`)
    bodies.set(key, body)
    arrived({ endpointId, eventId, body })
    const { fails, isSlow, losesAnswers, throttles } = moods()
    if (world.chance(fails)) return { status: 500, afterMs: world.between(1, 200) }
    if (world.chance(throttles)) return { status: world.pick([429, 503]), afterMs: 5, retryAfter: world.whole(1, 4) }
    auditor.took(eventId, endpointId)
    taken.set(key, (taken.get(key) ?? 0) + 1)
    if (world.chance(losesAnswers)) return null
    return { status: world.pick([200, 202, 204]), afterMs: world.chance(isSlow) ? world.between(1_000, 25_000) : world.between(1, 60) }
  }

  return {
    get arrivals() {
      return arrivals
    },
    taken: (eventId, endpointId) => taken.get(`${eventId} ${endpointId}`) ?? 0,
    add(id) {
      const url = `https://receiver.example/${id}`
      endpoints.set(url, { id, shutUntil: 0 })
      return url
    },
    shut(endpointId, ms) {
      for (const endpoint of endpoints.values()) if (endpoint.id === endpointId) endpoint.shutUntil = world.now() + ms
    },
    transport: (life) => ({
      send: (call, signal) =>
        new Promise((resolve) => {
          const startedAt = life.clock.now()
          let over = false
          const end = (outcome: SendResult['outcome'], httpStatus: number | null, retryAfter?: number): void => {
            if (over) return
            over = true
            resolve({
              outcome,
              httpStatus,
              error: outcome === 'success' ? null : outcome,
              durationMs: life.clock.now() - startedAt,
              timings: { dnsMs: null, connectMs: null, tlsMs: null, firstByteMs: null },
              responseHeaders: retryAfter === undefined ? {} : { 'retry-after': String(retryAfter) },
              responseExcerpt: null,
              remoteAddress: null,
            })
          }
          const abort = (): void => void world.after(world.between(0, NOTICED_MS), life, () => end('aborted', null))
          if (signal?.aborted) return abort()
          signal?.addEventListener('abort', abort, { once: true })
          world.after(TIMEOUT_MS, life, () => end('timeout', null))
          const endpoint = endpoints.get(call.url)!
          if (world.chance(moods().refuses) || endpoint.shutUntil > world.now())
            return void world.after(world.between(1, 20), life, () => end('connect', null))
          // Once it is on the wire it arrives, whatever becomes of its sender.
          world.after(world.between(1, 30), null, () => {
            const answer = receive(endpoint.id, call)
            if (!answer) return void world.after(world.between(10, 2_000), life, () => end('connect', null))
            const { status, afterMs, retryAfter } = answer
            world.after(afterMs, null, () =>
              world.after(world.between(1, 30), life, () => end(status < 300 ? 'success' : 'http_error', status, retryAfter)),
            )
          })
        }),
      async close() {},
    }),
  }
}

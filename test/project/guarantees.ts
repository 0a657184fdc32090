/**
 * What the platform guarantees about tasks and webhooks, one sentence each, with the one test that owns it. `docs/explanation/tested-guarantees.md` is generated from this file.
 *
 * A sentence about what is stored is tested on both databases; where one database is enough, `why` says so.
 */
import type { Engine } from '../support/stores.ts'

export interface Sentence {
  readonly says: string
  readonly file: string
  /** The titles of the test, from the outermost to the innermost. */
  readonly test: string
  /** The databases it must run on: `both`; one of them, with the reason; or `none` where nothing is stored or both store alike. */
  readonly on: 'both' | Engine | 'none'
  readonly why?: string
  /** The operating system that the test needs. */
  readonly needs?: 'Linux'
}
export interface Group {
  readonly name: string
  readonly sentences: readonly Sentence[]
}

/** `file` without its folder and ending. */
const both = (says: string, file: string, test: string): Sentence => ({ says, file: `test/${file}.ts`, test, on: 'both' })
const single =
  (on: Engine, why: string) =>
  (says: string, file: string, test: string, needs?: 'Linux'): Sentence => ({
    says,
    file: `test/${file}.ts`,
    test,
    on,
    why,
    ...(needs && { needs }),
  })
const pure = (says: string, file: string, test: string): Sentence => ({ says, file: `test/${file}.ts`, test, on: 'none' })

export const tasks: readonly Group[] = [
  {
    name: 'Claim and settle',
    sentences: [
      both(
        'N nodes with M claimers each claim every try exactly once.',
        'store/contract/claims',
        'many claimers on many nodes claim each try of a task once, the first and the next',
      ),
      both(
        'A late finish from an expired lease changes nothing.',
        'store/contract/claims',
        'a finish, a progress report and a renewal from an expired lease change nothing',
      ),
      both(
        'The fence survives retry, release and redo.',
        'store/contract/claims',
        'the fence never decreases through retry, release, cancel and redo',
      ),
      both(
        'Finishing twice with one lease changes nothing the second time.',
        'store/contract/claims',
        'finishing twice with one lease is a no-op, in sequence and concurrently',
      ),
      both(
        'When complete, fail, cancel, timeout and rescue race, one wins and one terminal event is recorded.',
        'store/contract/claims',
        'complete racing fail, cancel, timeout and rescue leaves one winner and one terminal event',
      ),
      both(
        'A failed settlement does not turn a success into a failure.',
        'e2e/settle.test',
        'on %s > a settlement that the store refuses is repeated: a success does not become a failure',
      ),
      both(
        'One bad item in a batch (NUL in a text, a conflict, a row that cannot be decoded) fails alone, and the 99 good ones succeed.',
        'store/contract/endings',
        'one bad item in a batch fails alone, and the 99 others succeed: %s',
      ),
    ],
  },
  {
    name: 'Crash',
    sentences: [
      both(
        'After kill -9 (at random, around the commits of claims and settlements, during runs, before and after sending) nothing is lost, tries count once, and a crash repeats a webhook at most once, under its id.',
        'long/crash.test',
        'on %s > kill -9 under load, again and again, loses nothing',
      ),
      both(
        'A task whose 202 was sent exists after an immediate kill -9.',
        'long/crash.test',
        'on %s > a task whose 202 has arrived exists, although the server was killed in that very moment',
      ),
      single('postgres', 'a SQLite store has one owner, so no other node can take over its work')(
        'A server that continues from SIGSTOP after its lease expired is refused.',
        'long/drain.test',
        'on PostgreSQL > a server that was stopped for longer than its lease is refused when it wakes: another has finished its tasks',
      ),
      single('sqlite', 'PostgreSQL writes its disk in another process and reports a full disk as a failed commit')(
        'On a full disk a request is answered 503, never 202, and no change is partly applied.',
        'store/open.test',
        'a full disk under SQLite > is answered with 503; nothing is half done, and it goes on when there is room',
        'Linux',
      ),
      single('sqlite', 'only SQLite merges operations of different kinds into one commit')(
        'When the disk fills up within a group commit, each operation is done and acknowledged, or neither.',
        'store/open.test',
        'a full disk under SQLite > between two operations of one group: each is done and acknowledged, or not done and refused',
      ),
    ],
  },
  {
    name: 'Time',
    sentences: [
      both(
        'Setting a clock by an hour, forward or back, expires no live lease.',
        'store/clock-steps.test',
        'A node’s clock that is set by an hour, on %s, > steals no live lease, and ends none',
      ),
      both(
        'The three deadlines are independent.',
        'e2e/settle.test',
        'on %s > startBy, timeoutSeconds and deadlineAt are independent: each runs on its own clock and ends what it is about alone',
      ),
      pure('A timer longer than 24.8 days waits its full time.', 'core/clock.test', 'a timer > of %i ms waits its full time'),
      both(
        'The only node of a store keeps its tasks through a suspend of 31 s, longer than its lease.',
        'long/schedules.test',
        'on %s > a server that was stopped for 31 s, longer than its lease, and has the store for itself keeps its task when it wakes',
      ),
    ],
  },
  {
    name: 'Sharing',
    sentences: [
      both(
        'A concurrency limit of k is never exceeded, and slots never leak.',
        'e2e/fairness.test',
        'on %s > the limits of a type and of a concurrency key hold while nodes crash, and their slots are freed',
      ),
      both(
        'One client with 100,000 tasks queued does not delay another’s single task by more than one round.',
        'long/sharing.test',
        'on %s > one client has 100,000 tasks queued: another’s one task waits no more than a round',
      ),
      both(
        '10,000 blocked tasks of one concurrency key slow other tasks by less than 10 percent.',
        'e2e/fairness.test',
        'on %s > with 10,000 tasks blocked behind one key > a claim of another client’s task, or of the same client’s task under another key, reads no more rows and runs no more statements',
      ),
    ],
  },
  {
    name: 'Drain',
    sentences: [
      both(
        'After SIGTERM a running task finishes within the grace period or is released.',
        'long/drain.test',
        'on %s > what outlives the grace is given back without spending its try, and waiting calls are answered',
      ),
      both(
        'After SIGTERM with the store down the process exits within the grace period, and its tasks restart when their leases expire.',
        'long/drain.test',
        'on %s > SIGTERM while the store is down ends the process within the grace, and the next server finishes what ran',
      ),
      both(
        'Starting and stopping in a loop leaks nothing.',
        'e2e/start-stop.test',
        'start and stop in a loop leak no file, timer, listener or memory, on %s',
      ),
    ],
  },
]

export const webhooks: readonly Group[] = [
  {
    name: 'Signing',
    sentences: [
      both(
        'The signed bytes are the sent bytes, for any floats, Unicode and order of members.',
        'e2e/joint.test',
        'on %s > the signed bytes are the sent bytes for any numbers, characters and member order of the input',
      ),
      both(
        'Every attempt has a fresh timestamp and a stable id.',
        'e2e/tasks-and-webhooks.test',
        'on %s > every attempt sends the same id and bytes under a fresh signature',
      ),
      pure(
        'The receiver library refuses a stale or future `iat`, another `aud`, a re-serialised body, `alg: none`, HS256 with the public key, an embedded `jwk` and an unknown `kid`.',
        'receiver/verify.test',
        'every known forgery is among the published vectors, and refused with its own code',
      ),
      both(
        'During a key rotation signatures of both keys verify.',
        'e2e/key-rotation.test',
        'a server on %s > rotates its key under load: every delivery verifies at a receiver that caches the key set for ten minutes',
      ),
      both(
        'Custom headers cannot set `webhook-*`, `host`, hop-by-hop headers, CR or LF.',
        'e2e/tasks-and-webhooks.test',
        'on %s > custom headers are sent, shown starred, and cannot be those of the signature',
      ),
      both(
        'A server with a wrong master key refuses to start.',
        'e2e/key-rotation.test',
        'a server on %s > refuses to start with a wrong master key, makes no new keys, and starts again with the right one',
      ),
    ],
  },
  {
    name: 'Network',
    sentences: [
      pure(
        'DNS rebinding (a public address first, 127.0.0.1 second) is refused.',
        'webhook/transport.test',
        'an address that may not be called > behind a name that was public before is refused: names are resolved at every connect',
      ),
      pure(
        'A name that resolves to allowed and forbidden addresses is refused.',
        'webhook/transport.test',
        'an address that may not be called > among others refuses them all: %j',
      ),
      pure(
        'A forbidden IP address is refused in every spelling.',
        'webhook/transport.test',
        'an address that may not be called > is refused in any spelling: %s',
      ),
      pure(
        'A 302 to 127.0.0.1 is not followed.',
        'webhook/transport.test',
        'an address that may not be called > is not called when a redirect names it',
      ),
      pure(
        'A proxy named by environment variables is not used.',
        'webhook/transport.test',
        'an address that may not be called > is not reached through a proxy of the environment',
      ),
      pure(
        'A configured proxy is asked to connect only to the checked address.',
        'webhook/proxy.test',
        'a proxy gets the checked address, never the name, and its credentials; the receiver gets its own name',
      ),
      pure(
        'A hanging name server does not slow other lanes.',
        'webhook/transport.test',
        'a name > whose name server is silent ends as dns and delays no other attempt',
      ),
      pure(
        'A name with an AAAA record is reached on a network without IPv6.',
        'webhook/transport.test',
        'a name > whose first address drops packets is still reached in time',
      ),
    ],
  },
  {
    name: 'Hostile receivers',
    sentences: [
      pure(
        'A response that sends header bytes slowly is cut at the deadline.',
        'webhook/transport.test',
        'a hostile receiver > that trickles header bytes is disconnected at the deadline',
      ),
      pure(
        'A response that sends body bytes slowly is cut at the deadline.',
        'webhook/transport.test',
        'a hostile receiver > that trickles body bytes is disconnected at the overall deadline, and a 2xx stays a success',
      ),
      pure(
        'A response with endless headers is cut.',
        'webhook/transport.test',
        'a hostile receiver > that sends endless headers is disconnected',
      ),
      pure(
        'A response with an endless body is abandoned.',
        'webhook/transport.test',
        'a hostile receiver > that sends an endless body is disconnected after 64 KiB, and 4 KiB are returned',
      ),
      pure(
        'A gzip bomb is not decompressed.',
        'webhook/transport.test',
        'a hostile receiver > that sends an unexpected gzip bomb inflates nothing',
      ),
      pure(
        'A flood of 1xx responses is cut.',
        'webhook/transport.test',
        'a hostile receiver > that sends endless interim responses is disconnected',
      ),
      pure(
        'A receiver that closes the connection early is judged by what it sent before.',
        'webhook/transport.test',
        'a hostile receiver > that hangs up %s is judged by what it had sent',
      ),
      pure(
        'A 2xx response with a broken body counts as delivered.',
        'webhook/transport.test',
        'a hostile receiver > whose 2xx continues with garbage has succeeded',
      ),
      pure(
        'A huge, negative, past or textual `Retry-After` is handled safely.',
        'core/lifecycle.test',
        'Retry-After > %j asks to wait %s ms',
      ),
    ],
  },
  {
    name: 'Lanes',
    sentences: [
      both(
        'The cap of an endpoint holds with two nodes.',
        'store/queue/lane.test',
        'lanes on %s > the cap of an endpoint holds under two nodes that claim and settle at once, and its slots never leak',
      ),
      single('postgres', 'a SQLite store has one node')(
        'The cap of an endpoint holds after kill -9 of one of two servers.',
        'long/nodes.test',
        'of two servers on one PostgreSQL > together they never send an endpoint more than maxInFlight at once, nor after one has died',
      ),
      both(
        '200 hanging lanes leave slots for other lanes, even before any circuit breaker has opened.',
        'store/scripts/health.test',
        'failing endpoints on %s > 200 hanging lanes use two slots each before any circuit breaker opens, and leave the rest to other lanes',
      ),
      single('sqlite', 'the slots belong to the node, not to the store')(
        'Slow but successful receivers of one client leave slots for other clients.',
        'engine/dispatcher.test',
        'one client’s slow receivers do not delay another client’s webhook, even with enough deliveries for every slot',
      ),
      both(
        'A probe uses one try.',
        'store/scripts/health.test',
        'failing endpoints on %s > a probe sends the longest-due delivery and uses one try; a hold uses none',
      ),
      both(
        'Lanes that are paused, unverified, disabled or closed hold their deliveries, and send them later.',
        'store/scripts/health.test',
        'failing endpoints on %s > an endpoint that is paused, disabled, unverified or failing for an hour receives every event afterwards, each once',
      ),
      both(
        'A hold ends after its configured number of days.',
        'store/scripts/health.test',
        'failing endpoints on %s > a delivery that is open for too many days fails as expired, with an attempt that shows it, and the others continue',
      ),
    ],
  },
]

export const joint: readonly Group[] = [
  {
    name: 'Joint',
    sentences: [
      both(
        'Every way to end a task records exactly one terminal event, in the same commit.',
        'store/contract/endings',
        '$name: the commit that ends the task records one terminal event and its delivery',
      ),
      both(
        'After a webhook, GET returns that revision or a later one.',
        'e2e/joint.test',
        'on %s > a receiver that reads the task while it handles the webhook sees that revision or a later one',
      ),
      both(
        'SSE, feed, GET and webhook never disagree.',
        'e2e/joint.test',
        'on %s > server-sent events, the feed, the status route and webhooks never disagree about a task, however it ends',
      ),
      single('postgres', 'SQLite has one writer, so commits never overlap')(
        'A feed reader skips nothing while a transaction is open.',
        'store/postgres-connection.test',
        'a feed reader skips nothing while a transaction that has its place in the feed is still open',
      ),
      both(
        'A feed has no gaps and is in commit order.',
        'store/contract/lists',
        'the feed of each client has no gaps and is in commit order, with many writing nodes',
      ),
      both(
        'A retried task is a new generation with its own terminal event.',
        'store/contract/endings',
        'a retried task is a new generation with its own terminal event',
      ),
      both(
        'Deleting or rotating an endpoint during retries loses nothing silently.',
        'e2e/joint.test',
        'on %s > rotating the secret of an endpoint during retries, or deleting the endpoint, loses nothing silently',
      ),
    ],
  },
]

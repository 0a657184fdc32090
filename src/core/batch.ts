/** Group commit: calls that arrive during a commit share the next one. There are no timers; a single call is a batch of one. */

export interface BatchExecutor<Item, Answer> {
  /** Runs one commit and returns answers in the order of the items. `take` returns the waiting items, and the same again when the commit is repeated. */
  run(take: () => readonly Item[]): Promise<readonly Answer[]>
  /** Whether one of the items caused the error, so that the others are to be tried without it. */
  isItemError(error: unknown): boolean
  /** Concurrent commits. */
  readonly maxConcurrent: number
}

export interface BatchLimits<Item> {
  readonly maxItems: number
  /** Of one commit, by `sizeOf`. A larger item is committed alone. */
  readonly maxBytes: number
  sizeOf(item: Item): number
  /** Waiting items; further ones are rejected with `overflowError`. */
  readonly maxWaiting: number
  overflowError(): Error
}

interface QueuedItem<Item, Answer> {
  readonly item: Item
  readonly resolve: (answer: Answer) => void
  readonly reject: (error: unknown) => void
}

/** Returns a function that adds one item and resolves with its answer after the commit. */
export function createBatcher<Item, Answer>(
  executor: BatchExecutor<Item, Answer>,
  limits: BatchLimits<Item>,
): (item: Item) => Promise<Answer> {
  let queue: QueuedItem<Item, Answer>[] = []
  let running = 0

  const takeBatch = (): QueuedItem<Item, Answer>[] => {
    let count = 0
    for (let bytes = 0; count < queue.length && count < limits.maxItems; count++) {
      bytes += limits.sizeOf(queue[count]!.item)
      if (bytes > limits.maxBytes && count > 0) break
    }
    const taken = count === queue.length ? queue : queue.slice(0, count)
    queue = count === queue.length ? [] : queue.slice(count)
    return taken
  }

  const commit = async (only?: readonly QueuedItem<Item, Answer>[]): Promise<void> => {
    let taken = only
    try {
      const answers = await executor.run(() => {
        taken ??= takeBatch()
        return taken.map((waiting) => waiting.item)
      })
      taken?.forEach((waiting, i) => {
        waiting.resolve(answers[i] as Answer)
      })
    } catch (error) {
      const failed = taken ?? takeBatch()
      if (failed.length > 1 && executor.isItemError(error)) {
        // Halves until the bad item is alone, so that only it fails.
        const middle = failed.length >> 1
        await commit(failed.slice(0, middle))
        await commit(failed.slice(middle))
      } else for (const waiting of failed) waiting.reject(error)
    }
  }

  const pump = async (): Promise<void> => {
    running++
    while (queue.length > 0) await commit()
    running--
  }

  return (item) =>
    new Promise<Answer>((resolve, reject) => {
      if (queue.length >= limits.maxWaiting) return reject(limits.overflowError())
      queue.push({ item, resolve, reject })
      if (running < executor.maxConcurrent) void pump()
    })
}

/**
 * Many callers, one commit: whoever asks while the last commit runs shares the next one. There are no timers; alone, a caller is
 * a batch of one.
 */

/** How a batch is carried out. */
export interface BatchExecutor<Item, Answer> {
  /**
   * Starts one commit and answers in the order of the items. `take` hands over what waits, at the latest possible moment, and
   * hands over the same again when the commit has to be repeated.
   */
  run(take: () => readonly Item[]): Promise<readonly Answer[]>
  /** Whether one of the items is to blame, so that its neighbours should be spared. */
  isItemError(error: unknown): boolean
  /** Commits that may run at the same time. */
  readonly maxConcurrent: number
}

export interface BatchLimits<Item> {
  /** Items in one commit. */
  readonly maxItems: number
  /** Size in one commit, by `size`. */
  readonly maxBytes: number
  sizeOf(item: Item): number
  /** Items that may wait; the one after is refused with what `refuse` answers. */
  readonly maxWaiting: number
  overflowError(): Error
}

interface QueuedItem<Item, Answer> {
  readonly item: Item
  readonly resolve: (answer: Answer) => void
  readonly reject: (error: unknown) => void
}

/** The answer adds one item and resolves with what became of it, after its commit. */
export function createBatcher<Item, Answer>(
  carrier: BatchExecutor<Item, Answer>,
  limits: BatchLimits<Item>,
): (item: Item) => Promise<Answer> {
  let queue: QueuedItem<Item, Answer>[] = []
  let running = 0

  const cut = (): QueuedItem<Item, Answer>[] => {
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
      const answers = await carrier.run(() => {
        taken ??= cut()
        return taken.map((waiting) => waiting.item)
      })
      taken?.forEach((waiting, i) => {
        waiting.resolve(answers[i] as Answer)
      })
    } catch (error) {
      const failed = taken ?? cut()
      if (failed.length > 1 && carrier.isItemError(error)) {
        // Halved until the bad item stands alone: its neighbours are not failed for it.
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
      if (running < carrier.maxConcurrent) void pump()
    })
}

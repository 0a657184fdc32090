/** `store.events`: the feed, and what changed. */
import type { EventStore } from '../interfaces.ts'
import * as changes from '../scripts/changes.ts'
import * as lists from '../scripts/lists.ts'
import type { Binding } from './binding.ts'

export function bindEvents({ read }: Binding): EventStore {
  return {
    list: (query) => read(() => lists.listEvents(query)),
    findFeedReach: (clientId, after) => read(() => lists.findFeedScanEnd(clientId, after)),
    findSeqs: (clientIds) => read(() => changes.findFeedSeqs(clientIds)),
    findSeq: (id, clientId) => read(() => lists.findEventSeq(id, clientId)),
    findTerminal: (tasks) => read(() => changes.findTerminalEvents(tasks)),
    findRevisions: (taskIds) => read(() => changes.findRevisions(taskIds)),
  }
}

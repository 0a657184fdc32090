/** Event sinks for tests. */
import { createEventSink, type EventFacts, type EventName, type EventSink } from '../../src/observe/events.ts'

/** A sink with these subscribers. */
export function eventsWith(subscribers: { readonly [Name in EventName]?: (facts: EventFacts[Name]) => void }): EventSink {
  const events = createEventSink()
  for (const name of Object.keys(subscribers) as EventName[]) events.on(name, subscribers[name] as never)
  return events
}

/** A sink that collects what went wrong in the background. */
export const troubleInto = (errors: unknown[]): EventSink => eventsWith({ trouble: ({ error }) => errors.push(error) })

/** A sink that prints what went wrong: nothing should. */
export const printTrouble = (): EventSink =>
  eventsWith({
    trouble: ({ error }) => console.error(error),
    'http.failed': ({ code, fields }) => code === 'internal' && console.error('a request failed', fields),
  })

/** What is typical of a task type. */
import { expect, test } from 'vitest'
import { createDurations } from '../../src/engine/durations.ts'

test('The typical duration of a type is the median of its latest runs: one slow run changes nothing, a lasting change does', () => {
  const durations = createDurations()
  expect(durations.median('report.build')).toBeNull()
  durations.record('report.build', 2_000)
  expect(durations.median('report.build')).toBe(2_000)
  for (let i = 0; i < 40; i++) durations.record('report.build', i === 20 ? 3_600_000 : 1_000)
  expect(durations.median('report.build')).toBe(1_000)
  expect(durations.median('mail.send')).toBeNull()
  for (let i = 0; i < 64; i++) durations.record('report.build', 9_000)
  expect(durations.median('report.build')).toBe(9_000)
})

/** Every guarantee has one test that owns it. That test exists, is not skipped, and runs on the databases that the guarantee is about. */
import { globSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import { type Collected, collectTests } from '../support/collect.ts'
import { engines } from '../support/stores.ts'
import { type Group, joint, type Sentence, tasks, webhooks } from './guarantees.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))
const collected = collectTests(globSync('test/**/*.test.ts', { cwd: root }).sort())
const all: readonly Sentence[] = [...tasks, ...webhooks, ...joint].flatMap(({ sentences }) => sentences)

/** Faults of the list of guarantees. */
function faults(sentences: readonly Sentence[], tests: readonly Collected[]): readonly string[] {
  const found: string[] = []
  const owners = new Map<string, string>()
  for (const { says, file, test: name, on, why, needs } of sentences) {
    const fault = (what: string): void => void found.push(`"${says}": ${what}`)
    if (sentences.filter((it) => it.says === says).length > 1) fault('it is listed twice')
    if (name.trim() === '') {
      fault('no test owns it')
      continue
    }
    const owner = `${file} > ${name}`
    const other = owners.get(owner)
    if (other !== undefined) fault(`its test already owns "${other}"`)
    owners.set(owner, says)
    const same = tests.filter((it) => it.file === file && it.name === name)
    if (same.length === 0) {
      const near = tests.filter((it) => it.file === file).map((it) => it.name)
      fault(`${file} has no test "${name}", but: ${near.length === 0 ? 'none' : near.join(' | ')}`)
      continue
    }
    if (same.some(({ skipped }) => skipped)) fault('its test is skipped')
    if (same.some(({ conditional }) => conditional) && needs === undefined)
      fault('its test runs under a condition that the sentence does not name')
    const places = new Set(same.flatMap((it) => [...it.on]))
    if (on === 'both') for (const engine of engines) if (!places.has(engine)) fault(`its test does not run on ${engine}`)
    if ((on === 'sqlite' || on === 'postgres') && why === undefined) fault(`no reason says why ${on} is enough`)
  }
  return found
}

describe('the tested guarantees', () => {
  test('each have one owning test that exists, is not skipped, and runs on the right databases', () => {
    expect(faults(all, collected)).toEqual([])
  })

  test('are the ones that the documentation lists, each with its owning test', async () => {
    await expect(page()).toMatchFileSnapshot('../../docs/explanation/tested-guarantees.md')
  })
})

describe('the check of a guarantee', () => {
  const owner: Collected = { file: 'test/a.test.ts', name: 'on %s > it holds', on: new Set(engines), skipped: false, conditional: false }
  const sentence: Sentence = { says: 'It holds.', file: owner.file, test: owner.name, on: 'both' }
  const fault = (change: Partial<Sentence>, tests: Partial<Collected> | null = {}): string =>
    faults([{ ...sentence, ...change }], tests === null ? [] : [{ ...owner, ...tests }]).join()

  test('finds no fault in a correct guarantee', () => {
    expect(fault({})).toBe('')
    expect(fault({ on: 'none' }, { on: new Set() })).toBe('')
    expect(fault({ needs: 'Linux' }, { conditional: true })).toBe('')
  })
  test.each<[string, Partial<Sentence>, Partial<Collected> | null, RegExp]>([
    ['no test owns it', { test: '' }, {}, /no test owns it/],
    ['its test does not exist', {}, null, /has no test "on %s > it holds", but: none/],
    ['its test was renamed', {}, { name: 'on %s > it held' }, /but: on %s > it held/],
    ['its test was moved to another file', {}, { file: 'test/b.test.ts' }, /test\/a\.test\.ts has no test/],
    ['its test is skipped', {}, { skipped: true }, /is skipped/],
    ['its test runs only under a condition', {}, { conditional: true }, /under a condition/],
    ['its test omits one database', {}, { on: new Set(['sqlite'] as const) }, /does not run on postgres/],
    ['one database is enough for no stated reason', { on: 'sqlite' }, {}, /no reason says why sqlite is enough/],
  ])('finds the fault: %s', (_when, change, tests, expected) => {
    expect(fault(change, tests)).toMatch(expected)
  })
  test('finds two guarantees with one test, and one guarantee listed twice', () => {
    expect(faults([sentence, { ...sentence, says: 'It holds as well.' }], [owner])).toEqual([
      '"It holds as well.": its test already owns "It holds."',
    ])
    expect(faults([sentence, { ...sentence, file: 'test/b.test.ts' }], [owner, { ...owner, file: 'test/b.test.ts' }])).toHaveLength(2)
  })
})

/** The documentation page of the guarantees. */
function page(): string {
  const line = ({ says, file, test: name, on, why, needs }: Sentence): string => {
    const where = on === 'both' || on === 'none' ? '' : `on ${on === 'sqlite' ? 'SQLite' : 'PostgreSQL'}: ${why}`
    const notes = [where, file.startsWith('test/long/') ? 'long' : '', needs ? `on ${needs}` : ''].filter((note) => note !== '')
    return `- **${says}** \`${file}\`: *${name.split(' > ').at(-1)}*${notes.length === 0 ? '' : ` (${notes.join('; ')})`}`
  }
  const section = (title: string, groups: readonly Group[]): string =>
    `## ${title}\n\n${groups.map(({ name, sentences }) => `${groups.length > 1 ? `**${name}**\n\n` : ''}${sentences.map(line).join('\n')}\n`).join('\n')}`
  return `# Tested guarantees

Each guarantee is one sentence with the test that shows it, on both databases unless the line names one. The list is kept in \`test/project/guarantees.ts\`.
A test fails when a guarantee has no test, when its test is missing, renamed or skipped, or misses a database. \`npm run test:long\` runs the tests under
\`test/long/\`, \`npm test\` the others.

A simulation (\`test/simulation/\`) also runs the engines of many nodes, and workers, in virtual time. It injects crashes, stalls, clocks that disagree,
lost notifications, and a store that is slow, fails and answers late. It checks every commit against these guarantees, with a thousand seeds in the long suite.
A failure prints its seed and how to repeat it. \`test/simulation/simulation.test.ts\` plants faults to show that they are detected.

${[section('Tasks', tasks), section('Webhooks', webhooks), section('Both together', joint)].join('\n')}`
}

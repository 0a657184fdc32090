/** Every sentence that must hold has a test that owns it, and that test is there, is run, and is run where it must. */
import { globSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import { type Collected, collectTests } from '../support/collect.ts'
import { engines } from '../support/stores.ts'
import { type Group, joint, type Sentence, tasks, webhooks } from './guarantees.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))
const collected = collectTests(globSync('test/**/*.test.ts', { cwd: root }).sort())
const all: readonly Sentence[] = [...tasks, ...webhooks, ...joint].flatMap(({ sentences }) => sentences)

/** What is wrong with the sentences, in sentences. */
function faults(sentences: readonly Sentence[], tests: readonly Collected[]): readonly string[] {
  const found: string[] = []
  const owners = new Map<string, string>()
  for (const { says, file, test: name, on, why, needs } of sentences) {
    const fault = (what: string): void => void found.push(`"${says}": ${what}`)
    if (sentences.filter((it) => it.says === says).length > 1) fault('it is said twice')
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
      fault('its test is run under a condition that the sentence does not name')
    const places = new Set(same.flatMap((it) => [...it.on]))
    if (on === 'both') for (const engine of engines) if (!places.has(engine)) fault(`its test is not run on ${engine}`)
    if ((on === 'sqlite' || on === 'postgres') && why === undefined) fault(`nothing says why ${on} is enough`)
  }
  return found
}

describe('the sentences', () => {
  test('have an owner each, which is there, is run, and is run on the databases they are about', () => {
    expect(faults(all, collected)).toEqual([])
  })

  test('are those of the documentation, each beside the test that owns it', async () => {
    await expect(page()).toMatchFileSnapshot('../../docs/explanation/proofs.md')
  })
})

describe('a sentence is found out', () => {
  const owner: Collected = { file: 'test/a.test.ts', name: 'on %s > it holds', on: new Set(engines), skipped: false, conditional: false }
  const sentence: Sentence = { says: 'It holds.', file: owner.file, test: owner.name, on: 'both' }
  const fault = (change: Partial<Sentence>, tests: Partial<Collected> | null = {}): string =>
    faults([{ ...sentence, ...change }], tests === null ? [] : [{ ...owner, ...tests }]).join()

  test('when nothing is wrong with it: it is not', () => {
    expect(fault({})).toBe('')
    expect(fault({ on: 'none' }, { on: new Set() })).toBe('')
    expect(fault({ needs: 'Linux' }, { conditional: true })).toBe('')
  })
  test.each<[string, Partial<Sentence>, Partial<Collected> | null, RegExp]>([
    ['no test owns it', { test: '' }, {}, /no test owns it/],
    ['its test is gone', {}, null, /has no test "on %s > it holds", but: none/],
    ['its test has another name by now', {}, { name: 'on %s > it held' }, /but: on %s > it held/],
    ['its test is in another file by now', {}, { file: 'test/b.test.ts' }, /test\/a\.test\.ts has no test/],
    ['its test is skipped', {}, { skipped: true }, /is skipped/],
    ['its test is run here and not there', {}, { conditional: true }, /under a condition/],
    ['its test leaves a database out', {}, { on: new Set(['sqlite'] as const) }, /not run on postgres/],
    ['one database is said to be enough, for no reason', { on: 'sqlite' }, {}, /nothing says why sqlite is enough/],
  ])('when %s', (_when, change, tests, expected) => {
    expect(fault(change, tests)).toMatch(expected)
  })
  test('when two claim one test, or one is said twice', () => {
    expect(faults([sentence, { ...sentence, says: 'It holds as well.' }], [owner])).toEqual([
      '"It holds as well.": its test already owns "It holds."',
    ])
    expect(faults([sentence, { ...sentence, file: 'test/b.test.ts' }], [owner, { ...owner, file: 'test/b.test.ts' }])).toHaveLength(2)
  })
})

/** The page of the documentation that shows them. */
function page(): string {
  const line = ({ says, file, test: name, on, why, needs }: Sentence): string => {
    const where = on === 'both' ? 'on both databases' : on === 'none' ? '' : `on ${on === 'sqlite' ? 'SQLite' : 'PostgreSQL'}: ${why}`
    const notes = [where, file.startsWith('test/long/') ? 'long' : '', needs ? `on ${needs}` : ''].filter((note) => note !== '')
    return `- **${says}** \`${file}\`: *${name}*${notes.length === 0 ? '' : ` (${notes.join('; ')})`}`
  }
  const section = (title: string, groups: readonly Group[]): string =>
    `## ${title}\n\n${groups.map(({ name, sentences }) => `${groups.length > 1 ? `**${name}**\n\n` : ''}${sentences.map(line).join('\n')}\n`).join('\n')}`
  return `# Proofs

What must hold, a sentence each, and the test that shows it. The list is kept in \`test/project/guarantees.ts\`; a test fails when a sentence has no test, when
its test is gone, renamed or skipped, and when it is not run on the databases the sentence is about. Tests under \`test/long/\` are run by
\`npm run test:long\`, the others by \`npm test\`.

Besides, a simulation (\`test/simulation/\`) runs the engine of many nodes, and workers that call their API,
in virtual time, with crashes, stalls, clocks that disagree, lost words and a
store that is slow, fails and answers late. It judges every commit against these sentences, under a thousand seeds in the long suite. A failure
prints its seed and how to repeat it, and \`test/simulation/simulation.test.ts\` plants faults to see that they are found.

${[section('Tasks', tasks), section('Webhooks', webhooks), section('Both together', joint)].join('\n')}`
}

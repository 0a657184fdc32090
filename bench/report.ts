import { writeFileSync } from 'node:fs'
import { drawChart } from './chart.ts'
import type { Machine } from './machine.ts'
import { median, round } from './statistics.ts'

export const benchNames = [
  'intake',
  'e2e',
  'drain',
  'latency',
  'isolation',
  'fairness',
  'blocked',
  'depth',
  'memory',
  'idle',
  'start',
] as const
export type BenchName = (typeof benchNames)[number]

/** One round of one contestant: its figures, or why there are none. */
export interface Round {
  readonly bench: BenchName
  readonly contestant: string
  readonly round: number
  readonly figures?: Readonly<Record<string, number>>
  /** Of the measurements that `--repeat` replaced by a less disturbed one. */
  readonly discarded?: readonly Readonly<Record<string, number>>[]
  readonly skipped?: string
  readonly failed?: string
}

/** The larger share that others used of the two cores. */
export const disturbance = ({ figures }: Round): number => Math.max(figures?.foreignCpu ?? 0, figures?.foreignLoadCpu ?? 0)
/** Share of a core that others may use before a round is named. */
const foreignLimit = 0.05
export const isDisturbed = (one: Round): boolean => disturbance(one) > foreignLimit

export interface Results {
  readonly startedAt: string
  readonly endedAt: string
  readonly command: string
  readonly quick: boolean
  readonly machine: Machine
  readonly versions: Readonly<Record<string, string | null>>
  readonly titles: Readonly<Record<string, string>>
  readonly rounds: readonly Round[]
}

/** A contestant's medians over its rounds, and the lowest and highest of its main figure. */
export interface Row {
  readonly contestant: string
  readonly title: string
  readonly figures: Readonly<Record<string, number>>
  readonly lowest: number
  readonly highest: number
  readonly rounds: number
}

const mainFigure: Readonly<Record<BenchName, string>> = {
  intake: 'perSecond',
  e2e: 'perSecond',
  drain: 'perSecond',
  latency: 'p50Ms',
  isolation: 'p99Times',
  fairness: 'rounds',
  blocked: 'throughputShare',
  depth: 'throughputShare',
  memory: 'residentMiB',
  idle: 'cpuShare',
  start: 'startMs',
}
const headings: Readonly<Record<BenchName, string>> = {
  intake: 'Intake: POST to durable 202, requests/s',
  e2e: 'End to end: POST, run, signed webhook accepted and recorded, tasks/s',
  drain: 'Drain: queued deliveries signed, accepted and recorded, deliveries/s',
  latency: "Latency at 500 tasks/s: POST due to webhook's first byte, ms",
  isolation: 'Isolation: ten well endpoints beside 200 that hang and one with a mountain due, against themselves alone, p99 in multiples',
  fairness: "Fairness: one client's single task while another has 100,000 queued, its wait in rounds of all slots",
  blocked: 'Blocked: end to end beside 10,000 tasks behind one key that is held, of the rate alone',
  depth: 'Depth: end to end beside 1,000,000 pending tasks in other lanes and 5,000,000 that have ended, of the rate on an empty store',
  memory: 'Memory: resident with 1,000,000 tasks queued, MiB',
  idle: 'Idle: share of a core in 30 s in which nobody asks for anything',
  start: 'Start: from the launch on an empty store to the first 202, ms',
}
/** What the other rows of a bench are divided by. */
const references: Readonly<Partial<Record<BenchName, string>>> = { intake: 'bare-hono', e2e: 'bullmq', drain: 'bare-sending' }

export function rowsOf({ rounds, titles }: Results, bench: BenchName): Row[] {
  const main = mainFigure[bench]
  const names = [...new Set(rounds.filter((one) => one.bench === bench).map(({ contestant }) => contestant))]
  return names.flatMap((contestant) => {
    const measured = rounds.flatMap((one) => (one.bench === bench && one.contestant === contestant && one.figures ? [one.figures] : []))
    if (measured.length === 0) return []
    const all = (name: string): number[] => measured.map((figures) => figures[name] ?? Number.NaN)
    const figures = Object.fromEntries(Object.keys(measured[0]!).map((name) => [name, round(median(all(name)), 4)]))
    const row = { contestant, title: titles[contestant] ?? contestant, figures, rounds: measured.length }
    return [{ ...row, lowest: Math.min(...all(main)), highest: Math.max(...all(main)) }]
  })
}

interface Bar {
  readonly what: string
  readonly bench: BenchName
  readonly contestant: string
  /** Divide by this contestant's figure; null: the figure itself. */
  readonly against: string | null
  readonly figure: string
  readonly atLeast?: number
  readonly atMost?: number
  readonly show: (value: number) => string
}

const percent = (value: number): string => `${Math.round(value * 100)} %`
const times = (value: number): string => `${round(value)}×`
const ms = (value: number): string => `${round(value)} ms`
const thousandths = (value: number): string => `${round(value * 100)} %`
const plain = (value: number): string => String(round(value))

const bars: readonly Bar[] = (
  [
    ['ringback-sqlite', 'SQLite'],
    ['ringback-postgres', 'PostgreSQL'],
  ] as const
).flatMap(([contestant, store]): Bar[] => {
  const onSqlite = store === 'SQLite'
  const rate = { contestant, figure: 'perSecond' }
  const latency = { bench: 'latency', contestant, against: null, show: ms } as const
  return [
    {
      ...rate,
      what: `intake on ${store}, of a bare Hono handler`,
      bench: 'intake',
      against: 'bare-hono',
      show: percent,
      ...(onSqlite ? { atLeast: 0.6 } : {}),
    },
    {
      ...rate,
      what: `end to end on ${store}, of BullMQ + Redis`,
      bench: 'e2e',
      against: 'bullmq',
      show: times,
      ...(onSqlite ? { atLeast: 2 } : {}),
    },
    { ...rate, what: `end to end on ${store}, of pg-boss`, bench: 'e2e', against: 'pg-boss', show: times, atLeast: onSqlite ? 8 : 6 },
    {
      ...rate,
      what: `drain on ${store}, of the bare sign + POST loop`,
      bench: 'drain',
      against: 'bare-sending',
      show: percent,
      ...(onSqlite ? { atLeast: 0.5 } : {}),
    },
    { ...latency, what: `latency on ${store}, p50`, figure: 'p50Ms', ...(onSqlite ? { atMost: 5 } : {}) },
    {
      what: `isolation on ${store}: p99 of the others, in multiples of theirs alone`,
      bench: 'isolation',
      contestant,
      against: null,
      figure: 'p99Times',
      atMost: 1.5,
      show: times,
    },
    {
      what: `isolation on ${store}: throughput of the others, of theirs alone`,
      bench: 'isolation',
      contestant,
      against: null,
      figure: 'throughputShare',
      atLeast: 0.9,
      show: percent,
    },
    { ...latency, what: `latency on ${store}, p99`, figure: 'p99Ms', ...(onSqlite ? { atMost: 20 } : {}) },
    ...standing(contestant, store),
  ]
})

function standing(contestant: string, store: string): Bar[] {
  const common = { contestant, against: null } as const
  const share = { ...common, figure: 'throughputShare', show: percent } as const
  return [
    {
      ...common,
      what: `fairness on ${store}: the wait of the one, in rounds`,
      bench: 'fairness',
      figure: 'rounds',
      atMost: 1,
      show: times,
    },
    { ...share, what: `10,000 blocked tasks on ${store}: throughput of the others, of theirs alone`, bench: 'blocked', atLeast: 0.9 },
    { ...share, what: `depth on ${store}: end to end, of an empty store`, bench: 'depth', atLeast: 0.8 },
    {
      ...common,
      what: `memory on ${store} with 1,000,000 tasks queued`,
      bench: 'memory',
      figure: 'residentMiB',
      atMost: 250,
      show: (value) => `${Math.round(value)} MiB`,
    },
    { ...common, what: `idle on ${store}, of a core`, bench: 'idle', figure: 'cpuShare', atMost: 0.005, show: thousandths },
    ...(store === 'PostgreSQL'
      ? [{ ...common, what: 'idle on PostgreSQL, transactions/s', bench: 'idle' as const, figure: 'perSecond', atMost: 1, show: plain }]
      : []),
    { ...common, what: `start on ${store} to the first 202`, bench: 'start', figure: 'startMs', atMost: 1_000, show: ms },
  ]
}

export interface JudgedBar {
  readonly what: string
  readonly value: number | null
  readonly shown: string
  readonly goal: string
  /** Null: nothing measured, or no goal set. */
  readonly met: boolean | null
}

export function judgeBars(results: Results): JudgedBar[] {
  return bars
    .filter(({ bench }) => results.rounds.some((one) => one.bench === bench))
    .map(({ what, bench, contestant, against, figure, atLeast, atMost, show }) => {
      const rows = rowsOf(results, bench)
      const read = (name: string): number | undefined => rows.find((row) => row.contestant === name)?.figures[figure]
      const own = read(contestant)
      const other = against === null ? 1 : read(against)
      const value = own === undefined || other === undefined ? null : own / other
      const goal = atLeast !== undefined ? `≥ ${show(atLeast)}` : atMost !== undefined ? `≤ ${show(atMost)}` : 'none set'
      const hasGoal = atLeast !== undefined || atMost !== undefined
      const met =
        value === null || !hasGoal ? null : value >= (atLeast ?? Number.NEGATIVE_INFINITY) && value <= (atMost ?? Number.POSITIVE_INFINITY)
      return { what, value, shown: value === null ? 'not measured' : show(value), goal, met }
    })
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  return [head, head.map((_, i) => (i === 0 ? '---' : '---:')), ...rows].map((cells) => `| ${cells.join(' | ')} |`).join('\n')
}

const count = (value: number): string => Math.round(value).toLocaleString('en-US')

type Column = readonly [head: string, show: (figures: Readonly<Record<string, number>>) => string]
const beside: readonly Column[] = [
  ['tasks/s', (of) => `${count(of.perSecondAlone!)} → ${count(of.perSecond!)}`],
  ['share', (of) => percent(of.throughputShare!)],
  ['p50', (of) => `${ms(of.p50AloneMs!)} → ${ms(of.p50Ms!)}`],
  ['p99', (of) => `${ms(of.p99AloneMs!)} → ${ms(of.p99Ms!)}`],
  ['rows', (of) => count(of.rows!)],
]
/** The tables of benches that have one of their own. */
const columnsOf: Readonly<Partial<Record<BenchName, readonly Column[]>>> = {
  fairness: [
    ['its wait, alone', (of) => ms(of.waitAloneMs!)],
    ['behind them', (of) => ms(of.waitMs!)],
    ['p95', (of) => `${ms(of.p95AloneMs!)} → ${ms(of.p95Ms!)}`],
    ['a round', (of) => ms(of.roundMs!)],
    ['rounds', (of) => plain(of.rounds!)],
    ['queued', (of) => count(of.queued!)],
  ],
  blocked: beside,
  depth: beside,
  memory: [
    ['resident', (of) => `${Math.round(of.residentMiB!)} MiB`],
    ['before', (of) => `${Math.round(of.residentEmptyMiB!)} MiB`],
    ['queued', (of) => count(of.rows!)],
  ],
  idle: [
    ['of a core', (of) => thousandths(of.cpuShare!)],
    ['transactions/s', (of) => (of.perSecond === undefined ? 'not counted' : plain(of.perSecond))],
  ],
  start: [['to the first 202', (of) => ms(of.startMs!)]],
}

function benchSection(results: Results, bench: BenchName): string {
  const rows = rowsOf(results, bench)
  if (rows.length === 0) return ''
  const heading = `## ${headings[bench]}`
  if (bench === 'latency') {
    const cells = rows.map(({ title, figures, lowest, highest }) => [
      title,
      ms(figures.p50Ms!),
      ms(figures.p99Ms!),
      `${round(lowest)} – ${round(highest)}`,
      String(figures.missing),
      percent((figures.serverCpu ?? 0) + (figures.storeCpu ?? 0)),
    ])
    return `${heading}\n\n${table(['contestant', 'p50', 'p99', 'p50 of the rounds', 'never came', 'CPU of its core'], cells)}`
  }
  if (bench === 'isolation') {
    const cells = rows.map(({ title, figures, lowest, highest }) => [
      title,
      `${ms(figures.p99AloneMs!)} → ${ms(figures.p99Ms!)}`,
      times(figures.p99Times!),
      `${round(lowest)} – ${round(highest)}`,
      `${count(figures.perSecondAlone!)} → ${count(figures.perSecond!)}`,
      percent(figures.throughputShare!),
      count(figures.mountain!),
    ])
    return `${heading}\n\n${table(['contestant', 'p99', 'ratio', 'of the rounds', 'tasks/s', 'share', 'mountain'], cells)}`
  }
  const columns = columnsOf[bench]
  if (columns !== undefined) {
    const cells = rows.map(({ title, figures }) => [title, ...columns.map(([, show]) => show(figures))])
    return `${heading}\n\n${table(['contestant', ...columns.map(([head]) => head)], cells)}`
  }
  const reference = rows.find(({ contestant }) => contestant === references[bench])
  const cells = rows.map((row) => {
    const { title, figures, lowest, highest } = row
    const ratio = reference === undefined ? '' : `${round(figures.perSecond! / reference.figures.perSecond!)}×`
    return [title, count(figures.perSecond!), `${count(lowest)} – ${count(highest)}`, ratio, percent(figures.loadCpu ?? 0)]
  })
  const head = ['contestant', 'median', 'rounds', `of ${reference?.title ?? 'the reference'}`, 'CPU of the load’s core']
  return `${heading}\n\n${table(head, cells)}`
}

/** What a reader must know before believing the tables. */
function cautions({ rounds, quick }: Results): string[] {
  const measured = rounds.filter(({ figures }) => figures !== undefined)
  const disturbed = measured.filter(isDisturbed)
  const busy = measured.filter(({ figures }) => (figures?.loadCpu ?? 0) > 0.85)
  const replaced = measured.filter(({ discarded }) => discarded !== undefined)
  const named = (some: readonly Round[]): string =>
    some.map(({ bench, contestant, round: n }) => `${bench}/${contestant} round ${n}`).join(', ')
  const reasons = new Map(
    rounds.flatMap(({ bench, contestant, skipped, failed }) => {
      const why = skipped ?? failed?.split('\n')[0]
      return why === undefined ? [] : [[`${bench}/${contestant}`, `${failed === undefined ? 'skipped' : 'FAILED'}: ${why}`]]
    }),
  )
  return [
    ...(quick ? ['This was a quick run: too short for steady figures.'] : []),
    ...(disturbed.length > 0
      ? [
          `Others used more than ${percent(foreignLimit)} of a core in ${disturbed.length} of ${measured.length} rounds, so that their rates are too low and their latencies too high: ${named(disturbed)}.`,
        ]
      : []),
    ...(replaced.length > 0
      ? [`Disturbed and replaced by a less disturbed repetition (the discarded figures are in results.json): ${named(replaced)}.`]
      : []),
    ...(busy.length > 0
      ? [`The load generator and the receiver used over 85 % of their core, so that the limit may be theirs: ${named(busy)}.`]
      : []),
    ...[...reasons].map(([where, why]) => `${where} ${why}`),
  ]
}

export function renderMarkdown(results: Results): string {
  const { machine, versions, command, startedAt } = results
  const judged = judgeBars(results).map(({ what, shown, goal, met }) => [what, shown, goal, met === null ? '' : met ? 'yes' : '**no**'])
  const known = Object.entries(versions).flatMap(([name, version]) => (version === null ? [] : [`${name} ${version}`]))
  const notes = cautions(results)
  const sections = [
    '# Results of the benchmarks',
    `Written by \`${command}\` on ${startedAt.slice(0, 10)}; what is measured and how fair it is: [README.md](README.md). Every round: [results.json](results.json).\nFigures are medians of the rounds. Only ratios within one run mean anything: absolute figures move with the machine.`,
    `- ${machine.cpu}, ${machine.cores} cores, ${machine.memoryGiB} GiB, ${machine.system}; ${machine.fileSystem}, fsync of 4 KiB ${machine.fsyncMs} ms; load average before the run ${machine.loadBefore}\n- ${machine.placement}\n- ${known.join(', ')}`,
    '## The bars',
    table(['what', 'measured', 'goal', 'met'], judged),
    '![The medians as bars](results.svg)',
    ...benchNames.map((bench) => benchSection(results, bench)).filter((text) => text !== ''),
    ...(notes.length > 0 ? ['## Cautions', notes.map((note) => `- ${note}`).join('\n')] : []),
  ]
  return `${sections.join('\n\n')}\n`
}

function shownIn(bench: BenchName, figures: Readonly<Record<string, number>>): string {
  if (bench === 'latency') return `p50 ${round(figures.p50Ms!)}, p99 ${round(figures.p99Ms!)}`
  if (bench === 'isolation') return times(figures.p99Times!)
  const main = figures[mainFigure[bench]]!
  if (bench === 'blocked' || bench === 'depth') return percent(main)
  if (bench === 'idle') return thousandths(main)
  return columnsOf[bench] === undefined ? count(main) : plain(main)
}

export function renderChart(results: Results): string {
  const groups = benchNames.map((bench) => ({
    heading: headings[bench],
    bars: rowsOf(results, bench).map(({ title, contestant, figures }) => ({
      title,
      value: figures[mainFigure[bench]]!,
      shown: shownIn(bench, figures),
      ours: contestant.startsWith('ringback'),
    })),
  }))
  return drawChart(groups.filter(({ bars: all }) => all.length > 0))
}

/** Writes results.json, RESULTS.md and results.svg beside this file. */
export function writeResults(results: Results): void {
  const write = (name: string, text: string): void => writeFileSync(new URL(name, import.meta.url), text)
  write('results.json', `${JSON.stringify({ ...results, bars: judgeBars(results) }, null, 2)}\n`)
  write('RESULTS.md', renderMarkdown(results))
  write('results.svg', renderChart(results))
}

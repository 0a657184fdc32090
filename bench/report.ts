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

/** One round of one contestant: its figures, or why it has none. */
export interface Round {
  readonly bench: BenchName
  readonly contestant: string
  readonly round: number
  readonly figures?: Readonly<Record<string, number>>
  /** Figures of measurements that `--repeat` replaced with a less disturbed one. */
  readonly discarded?: readonly Readonly<Record<string, number>>[]
  readonly skipped?: string
  readonly failed?: string
}

/** The larger of the shares that other processes used of the two cores. */
export const disturbance = ({ figures }: Round): number => Math.max(figures?.foreignCpu ?? 0, figures?.foreignLoadCpu ?? 0)
/** Share of a core that other processes may use before the report names the round. */
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

/** A contestant's medians over its rounds (of two: the mean), and the lowest and highest of its main figure. */
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
  intake: 'intake: POST to durable 202, requests/s',
  e2e: 'e2e: POST until run, signed webhook accepted and recorded, tasks/s',
  drain: 'drain: queued deliveries signed, accepted and recorded, deliveries/s',
  latency: "latency: due time of a POST to its webhook's first byte at 500 tasks/s, ms",
  isolation: 'isolation: ten healthy endpoints, alone → beside 200 that hang and one that hangs with 1,000,000 due deliveries',
  fairness: "fairness: wait of one client's single task, alone → while another client has 100,000 queued",
  blocked: 'blocked: end to end, alone → beside 10,000 tasks behind one held key',
  depth: "depth: end to end, on an empty store → beside other clients' 1,000,000 pending and 5,000,000 ended tasks",
  memory: 'memory: resident with 1,000,000 queued tasks, MiB',
  idle: 'idle: use of a core in 30 s without requests',
  start: 'start: launch on an empty store to the first 202, ms',
}
/** The contestant by whose figure the other rows of a bench are divided. */
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
  /** The contestant whose figure divides this one; null: no division. */
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
      what: `intake on ${store}, as a share of the bare Hono handler`,
      bench: 'intake',
      against: 'bare-hono',
      show: percent,
      ...(onSqlite ? { atLeast: 0.6 } : {}),
    },
    {
      ...rate,
      what: `e2e on ${store}, in multiples of BullMQ + Redis`,
      bench: 'e2e',
      against: 'bullmq',
      show: times,
      ...(onSqlite ? { atLeast: 2 } : {}),
    },
    { ...rate, what: `e2e on ${store}, in multiples of pg-boss`, bench: 'e2e', against: 'pg-boss', show: times, atLeast: onSqlite ? 8 : 6 },
    {
      ...rate,
      what: `drain on ${store}, as a share of the bare sign + POST loop`,
      bench: 'drain',
      against: 'bare-sending',
      show: percent,
      ...(onSqlite ? { atLeast: 0.5 } : {}),
    },
    { ...latency, what: `latency on ${store}, p50`, figure: 'p50Ms', ...(onSqlite ? { atMost: 5 } : {}) },
    {
      what: `isolation on ${store}: p99 of the healthy endpoints, in multiples of alone`,
      bench: 'isolation',
      contestant,
      against: null,
      figure: 'p99Times',
      atMost: 1.5,
      show: times,
    },
    {
      what: `isolation on ${store}: throughput of the healthy endpoints, as a share of alone`,
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
      what: `fairness on ${store}: wait of the single task, in rounds of all slots`,
      bench: 'fairness',
      figure: 'rounds',
      atMost: 1,
      show: times,
    },
    { ...share, what: `blocked on ${store}: throughput, as a share of alone`, bench: 'blocked', atLeast: 0.9 },
    { ...share, what: `depth on ${store}: throughput, as a share of the empty store`, bench: 'depth', atLeast: 0.8 },
    {
      ...common,
      what: `memory on ${store} with 1,000,000 queued tasks`,
      bench: 'memory',
      figure: 'residentMiB',
      atMost: 250,
      show: (value) => `${Math.round(value)} MiB`,
    },
    { ...common, what: `idle on ${store}, share of a core`, bench: 'idle', figure: 'cpuShare', atMost: 0.005, show: thousandths },
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
  /** Null: not measured, or no goal. */
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
      const goal = atLeast !== undefined ? `≥ ${show(atLeast)}` : atMost !== undefined ? `≤ ${show(atMost)}` : 'none'
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
/** The columns of benches with a table of their own. */
const columnsOf: Readonly<Partial<Record<BenchName, readonly Column[]>>> = {
  fairness: [
    ['wait alone', (of) => ms(of.waitAloneMs!)],
    ['wait behind the queue', (of) => ms(of.waitMs!)],
    ['p95', (of) => `${ms(of.p95AloneMs!)} → ${ms(of.p95Ms!)}`],
    ['round of all slots', (of) => ms(of.roundMs!)],
    ['wait in rounds', (of) => plain(of.rounds!)],
    ['queued', (of) => count(of.queued!)],
  ],
  blocked: beside,
  depth: beside,
  memory: [
    ['resident', (of) => `${Math.round(of.residentMiB!)} MiB`],
    ['before the queue', (of) => `${Math.round(of.residentEmptyMiB!)} MiB`],
    ['queued', (of) => count(of.rows!)],
  ],
  idle: [
    ['share of a core', (of) => thousandths(of.cpuShare!)],
    ['transactions/s', (of) => (of.perSecond === undefined ? 'not counted' : plain(of.perSecond))],
  ],
  start: [['to the first 202', (of) => ms(of.startMs!)]],
}

/** Fewest rounds whose middle figure is called a median. */
const medianFrom = 3

/** What the figures are, for the given number of rounds of each row. */
function describeFigures(rounds: readonly number[]): string {
  if (rounds.every((n) => n >= medianFrom)) return 'Each figure is the median of its rounds.'
  if (rounds.every((n) => n === 1)) return 'Each figure is from a single round.'
  return 'Each figure is the median of three or more rounds, the mean of two, or from a single round.'
}

/** The cell of a row with the lowest and highest of its main figure; none where every row has a single round. */
function rangeOf(rows: readonly Row[], { lowest, highest }: Row, show = plain): string[] {
  return rows.some(({ rounds }) => rounds > 1) ? [`${show(lowest)} – ${show(highest)}`] : []
}
const rangeHead = (rows: readonly Row[], head = 'lowest – highest'): string[] => (rows.some(({ rounds }) => rounds > 1) ? [head] : [])

function benchSection(results: Results, bench: BenchName): string {
  const rows = rowsOf(results, bench)
  if (rows.length === 0) return ''
  const heading = `## ${headings[bench]}`
  if (bench === 'latency') {
    const cells = rows.map((row) => [
      row.title,
      ms(row.figures.p50Ms!),
      ms(row.figures.p99Ms!),
      ...rangeOf(rows, row),
      String(row.figures.missing),
      percent((row.figures.serverCpu ?? 0) + (row.figures.storeCpu ?? 0)),
    ])
    const head = ['contestant', 'p50', 'p99', ...rangeHead(rows, 'lowest – highest p50'), 'missing webhooks', 'CPU of the server core']
    return `${heading}\n\n${table(head, cells)}`
  }
  if (bench === 'isolation') {
    const cells = rows.map((row) => [
      row.title,
      `${ms(row.figures.p99AloneMs!)} → ${ms(row.figures.p99Ms!)}`,
      times(row.figures.p99Times!),
      ...rangeOf(rows, row),
      `${count(row.figures.perSecondAlone!)} → ${count(row.figures.perSecond!)}`,
      percent(row.figures.throughputShare!),
      count(row.figures.mountain!),
    ])
    const range = rangeHead(rows, 'lowest – highest ratio')
    const head = ['contestant', 'p99', 'p99 ratio', ...range, 'tasks/s', 'tasks/s ratio', 'deliveries due']
    return `${heading}\n\n${table(head, cells)}`
  }
  const columns = columnsOf[bench]
  if (columns !== undefined) {
    const cells = rows.map(({ title, figures }) => [title, ...columns.map(([, show]) => show(figures))])
    return `${heading}\n\n${table(['contestant', ...columns.map(([head]) => head)], cells)}`
  }
  const reference = rows.find(({ contestant }) => contestant === references[bench])
  const cells = rows.map((row) => {
    const { title, figures } = row
    const ratio = reference === undefined ? '' : `${round(figures.perSecond! / reference.figures.perSecond!)}×`
    return [title, count(figures.perSecond!), ...rangeOf(rows, row, count), ratio, percent(figures.loadCpu ?? 0)]
  })
  const figure = rows.every(({ rounds }) => rounds >= medianFrom) ? 'median' : 'figure'
  const head = ['contestant', figure, ...rangeHead(rows), `ratio to ${reference?.title ?? 'the reference'}`, 'CPU of the load core']
  return `${heading}\n\n${table(head, cells)}`
}

/** Conditions that make figures less reliable. */
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
    ...(quick ? ['This was a quick run: its rounds are too short for stable figures.'] : []),
    ...(disturbed.length > 0
      ? [
          `Other processes used more than ${percent(foreignLimit)} of a core in ${disturbed.length} of ${measured.length} rounds. Rates of these rounds are too low and latencies too high: ${named(disturbed)}.`,
        ]
      : []),
    ...(replaced.length > 0
      ? [
          `Repeated because of other processes, keeping the least disturbed repetition (results.json holds the discarded figures): ${named(replaced)}.`,
        ]
      : []),
    ...(busy.length > 0
      ? [`The load generator and the receiver used over 85 % of their core and may be the bottleneck: ${named(busy)}.`]
      : []),
    ...[...reasons].map(([where, why]) => `${where} ${why}`),
  ]
}

export function renderMarkdown(results: Results): string {
  const { machine, versions, command, startedAt } = results
  const judged = judgeBars(results).map(({ what, shown, goal, met }) => [what, shown, goal, met === null ? '' : met ? 'yes' : '**no**'])
  const known = Object.entries(versions).flatMap(([name, version]) => (version === null ? [] : [`${name} ${version}`]))
  const notes = cautions(results)
  const missing = benchNames.filter((bench) => results.rounds.every((one) => one.bench !== bench)).map((bench) => `\`${bench}\``)
  const absent = Object.entries(results.titles).flatMap(([name, title]) =>
    results.rounds.every(({ contestant }) => contestant !== name) ? [title] : [],
  )
  const left = [...missing, ...absent]
  const rounds = benchNames.flatMap((bench) => rowsOf(results, bench).map((row) => row.rounds))
  const sections = [
    '# Results of the benchmarks',
    `\`${command}\` wrote this page on ${startedAt.slice(0, 10)}. [README.md](README.md) says what each bench measures and how fair it is; [results.json](results.json) holds every round.\n${describeFigures(rounds)} Compare only ratios within this run: absolute figures vary with the machine.${left.length === 0 ? '' : `\nNot in this run: ${left.join(', ')}.`}`,
    `- ${machine.cpu}, ${machine.cores} cores, ${machine.memoryGiB} GiB, ${machine.system}; ${machine.fileSystem}, fsync of 4 KiB ${machine.fsyncMs} ms; load average before the run: ${machine.loadBefore}\n- ${machine.placement}\n- ${known.join(', ')}`,
    '## Goals',
    table(['figure', 'measured', 'goal', 'met'], judged),
    '![The figures as bars](results.svg)',
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

/** Writes results.json, RESULTS.md and results.svg into the folder of this file. */
export function writeResults(results: Results): void {
  const write = (name: string, text: string): void => writeFileSync(new URL(name, import.meta.url), text)
  write('results.json', `${JSON.stringify({ ...results, bars: judgeBars(results) }, null, 2)}\n`)
  write('RESULTS.md', renderMarkdown(results))
  write('results.svg', renderChart(results))
}

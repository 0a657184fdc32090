/** Loads tables. */
import { readdir, readFile } from 'node:fs/promises'
import { Permanent } from '../../src/index.ts'

/** A file name of the package vega-datasets, CSV text, or rows. */
export type Table = { readonly dataset: string } | { readonly csv: string } | { readonly rows: readonly Row[] }
export type Row = Readonly<Record<string, unknown>>

/** Throws `Permanent` when there is no such table. */
export async function readTable(input: Table, signal: AbortSignal): Promise<readonly Row[]> {
  if ('rows' in input) return input.rows
  if ('csv' in input) return parseTable(input.csv, ',')
  const text = await readDataset(input.dataset, signal)
  if (!/\.json$/.test(input.dataset)) return parseTable(text, /\.tsv$/.test(input.dataset) ? '\t' : ',')
  const table: unknown = JSON.parse(text)
  if (!Array.isArray(table) || !table.every((row) => typeof row === 'object' && row !== null && !Array.isArray(row)))
    throw new Permanent(`${input.dataset} is no table: its JSON is not a list of objects.`, { code: 'not_a_table' })
  return table as readonly Row[]
}

/** The first line names the columns. */
async function parseTable(text: string, delimiter: string): Promise<readonly Row[]> {
  const { dsvFormat } = await import('d3-dsv').catch((cause: unknown) => {
    throw new Permanent('CSV is read with the package d3-dsv, which is not installed: run npm install --save-dev d3-dsv.', {
      code: 'package_missing',
      cause,
    })
  })
  const table = dsvFormat(delimiter).parse(text)
  const readings = new Map(table.columns.map((name) => [name, readingOf(table.map((row) => row[name] ?? ''))]))
  return table.map((row) =>
    Object.fromEntries(Object.entries(row).map(([name, cell]) => [name, cell === '' ? null : readings.get(name)!(cell)])),
  )
}

const NUMBER = /^[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$/i
/** "00210" is an identifier, not a number. */
const CODE = /^[-+]?0\d/

/** Converts the cells of a column: one cell that is not a number makes all of them text. */
function readingOf(cells: readonly string[]): (cell: string) => unknown {
  if (cells.every((cell) => cell === '' || (NUMBER.test(cell) && !CODE.test(cell)))) return Number
  if (cells.every((cell) => cell === '' || cell === 'true' || cell === 'false')) return (cell) => cell === 'true'
  return (cell) => cell
}

async function readDataset(name: string, signal: AbortSignal): Promise<string> {
  const url = datasetUrl(name)
  try {
    return await readFile(url, { encoding: 'utf8', signal })
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== 'ENOENT') throw cause
    const names = (await readdir(new URL('.', url))).filter((it) => /\.(csv|tsv|json)$/.test(it))
    throw new Permanent(`There is no data set ${JSON.stringify(name)}; there are ${names.join(', ')}.`, {
      code: 'dataset_not_found',
      cause,
    })
  }
}

/** The URL of a data set's file, which may not exist. */
export function datasetUrl(name: string): URL {
  try {
    // The package exports only its code; the data is beside it.
    return new URL(`../data/${name}`, import.meta.resolve('vega-datasets'))
  } catch (cause) {
    throw new Permanent(
      'Data sets come with the package vega-datasets, which is not installed: run npm install --save-dev vega-datasets.',
      {
        code: 'package_missing',
        cause,
      },
    )
  }
}

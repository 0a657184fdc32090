import { setImmediate as breathe } from 'node:timers/promises'
import { z } from 'zod'
import { defineTask, Permanent } from '../../src/index.ts'
import { type Column, createColumn } from './column.ts'
import { readTable } from './table.ts'

const MAX_COLUMNS = 1_000
/** Rows between two checks of the signal. They take a few milliseconds, in which nothing else runs. */
const ROWS_AT_ONCE = 500

const profile = z.object({
  name: z.string(),
  type: z.enum(['number', 'boolean', 'date', 'string', 'object', 'mixed', 'empty']),
  count: z.int(),
  nulls: z.int(),
  distinct: z.int(),
  min: z.union([z.number(), z.string()]).nullable(),
  max: z.union([z.number(), z.string()]).nullable(),
  mean: z.number().nullable(),
  quantiles: z.object({ p05: z.number(), p25: z.number(), p50: z.number(), p75: z.number(), p95: z.number() }).nullable(),
  top: z.array(z.object({ value: z.string(), count: z.int() })).readonly(),
})

export const datasetProfile = defineTask({
  type: 'dataset.profile',
  description: 'Profiles the columns of a table: a data set of the package vega-datasets by its name, CSV text, or rows.',
  input: z.union(
    [
      // A plain file name, without slash or leading dot, which could leave the folder.
      z.strictObject({ dataset: z.string().regex(/^[A-Za-z0-9][A-Za-z0-9-]{0,99}\.(csv|tsv|json)$/) }),
      z.strictObject({ csv: z.string().min(1) }),
      z.strictObject({ rows: z.array(z.record(z.string(), z.unknown())) }),
    ],
    { error: 'must have exactly one of "dataset" (a file name such as "movies.json"), "csv" (text) and "rows" (a list of objects)' },
  ),
  result: z.object({ dataset: z.string().nullable(), rows: z.int(), columns: z.array(profile) }),
  timeoutSeconds: 120,
  async run(input, { signal, progress }) {
    progress(0, 'reading')
    const rows = await readTable(input, signal)
    const columns = new Map<string, Column>()
    for (const [index, row] of rows.entries()) {
      if (index % ROWS_AT_ONCE === 0) {
        progress(5 + (index / rows.length) * 85, `${index} of ${rows.length} rows`)
        await breathe(undefined, { signal })
      }
      for (const [name, value] of Object.entries(row)) columnNamed(columns, name).add(value)
    }
    const profiles = []
    for (const column of columns.values()) {
      progress(90 + (profiles.length / columns.size) * 10, `${profiles.length} of ${columns.size} columns`)
      await breathe(undefined, { signal })
      profiles.push(column.profile(rows.length))
    }
    return { dataset: 'dataset' in input ? input.dataset : null, rows: rows.length, columns: profiles }
  },
})

function columnNamed(columns: Map<string, Column>, name: string): Column {
  const known = columns.get(name)
  if (known) return known
  if (columns.size === MAX_COLUMNS) throw new Permanent(`The table has over ${MAX_COLUMNS} columns.`, { code: 'too_many_columns' })
  const column = createColumn(name)
  columns.set(name, column)
  return column
}

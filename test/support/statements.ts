/** Records the statements that scripts run, as texts that can be reviewed. */
import { type Driver, render } from '../../src/store/driver.ts'
import { type BoundStatement, type Dialect, rowSource, type Script, type Statement } from '../../src/store/script.ts'

/** A driver that adds the text of every statement it runs to `texts`. */
export function recordingDriver(driver: Driver, texts: Set<string>): Driver {
  const known = new WeakSet<Statement>()
  const record = ({ statement }: BoundStatement): void => {
    if (known.has(statement)) return
    known.add(statement)
    texts.add(textOf(statement, driver.dialect))
  }
  const recorded = function* <R>(script: Script<R>): Script<R> {
    let turn = script.next()
    while (!turn.done) {
      for (const call of [turn.value].flat() as BoundStatement[]) record(call)
      turn = script.next((yield turn.value) as never)
    }
    return turn.value
  }
  // Getters of the driver stay getters.
  return Object.create(driver, {
    write: { value: <R>(priority: never, make: () => Script<R>) => driver.write(priority, () => recorded(make())) },
    read: { value: <R>(script: Script<R>) => driver.read(recorded(script)) },
  }) as Driver
}

/** SQLite's row sources are written as one row, whatever the number of records. */
function textOf(statement: Statement, dialect: Dialect): string {
  const { text, parameters } = render(dialect, statement)
  if (dialect.name === 'postgres') return indent(text)
  let nth = 0
  return indent(
    text.replaceAll('?', () => {
      const parameter = parameters[nth++]!
      const source = 'name' in parameter ? rowSource(parameter.name) : null
      return source ? `(${source.columns.map(() => '?').join(', ')})` : '?'
    }),
  )
}

const CLAUSE = /(?<!delete|distinct|epoch) (?=(?:from|where|set|returning|on conflict|order by|union all|values)\b)/
const WIDTH = 140
/** A line for each clause, indented by its parentheses. White space of the source does not show. */
function indent(text: string): string {
  let depth = 1
  const lines = text
    .trim()
    .replace(/\s+/g, ' ')
    .split(CLAUSE)
    .flatMap((clause, i) => {
      const margin = '  '.repeat(i === 0 ? 0 : depth)
      depth += clause.split('(').length - clause.split(')').length
      return wrap(clause).map((line, n) => `${margin}${n > 0 ? '    ' : ''}${line}`)
    })
  return lines.join('\n')
}
const wrap = (clause: string): string[] =>
  clause.split(', ').reduce<string[]>((lines, item) => {
    const last = lines.at(-1)
    if (last === undefined) return [item]
    return [...lines.slice(0, -1), ...(last.length + item.length > WIDTH ? [`${last},`, item] : [`${last}, ${item}`])]
  }, [])

/** The texts as one SQL file, sorted. */
export const toSqlFile = (texts: ReadonlySet<string>): string =>
  [...texts]
    .sort()
    .map((text) => `${text};\n`)
    .join('\n')

/** `ringback audit`: checks the whole store, also while servers run. */
import { Command, InvalidArgumentError } from 'commander'
import { parseConfig } from '../config/config.ts'
import type { AuditReport } from './operations.ts'
import { print } from './print.ts'

interface AuditFlags {
  readonly databaseUrl?: string
  readonly json?: true
  readonly limit: number
}

/** Calls `setExitCode` with 1 when a check fails. */
export function auditCommand(setExitCode: (code: number) => void): Command {
  return new Command('audit')
    .description('check that every row is consistent with the others, and list open deliveries by endpoint')
    .option('--database-url <url>', 'file:… or postgres://…')
    .option('--json', 'print the report as JSON')
    .option('--limit <number>', 'violations and endpoints to list', wholeNumber, 100)
    .action(async ({ databaseUrl, json, limit }: AuditFlags) => {
      const config = parseConfig({ env: process.env, options: databaseUrl === undefined ? {} : { databaseUrl } })
      const { runCheck, checks } = await import('./operations.ts')
      const report = await runCheck(config, limit)
      await print(json ? `${JSON.stringify(report, null, 2)}\n` : renderReport(report, checks, limit))
      if (report.violations.total > 0) setExitCode(1)
    })
}

function wholeNumber(text: string): number {
  if (!/^\d{1,6}$/.test(text)) throw new InvalidArgumentError(`"${text}" must be a whole number from 0 to 999999.`)
  return Number(text)
}

const amount = (n: number): string => n.toLocaleString('en-US')
/** "1 lease", "2,000 leases". */
const count = (n: number, one: string, many = `${one}s`): string => `${amount(n)} ${n === 1 ? one : many}`

function renderReport(
  { counts, violations, lapsedLeases, owed }: AuditReport,
  checks: Readonly<Record<string, string>>,
  limit: number,
): string {
  const c = counts
  const lines = [
    `Checked ${amount(c.tasks)} tasks (${amount(c.liveTasks)} live), ${amount(c.endedGenerations)} ended generations, ${amount(c.events)} events, ${amount(c.deliveries)} deliveries (${amount(c.openDeliveries)} open), ${amount(c.attempts)} attempts,`,
    `${amount(c.clients)} clients, ${amount(c.endpoints)} endpoints, ${amount(c.schedules)} schedules, ${amount(c.lanes)} lanes, ${amount(c.turns)} turns, ${amount(c.labels)} labels, ${amount(c.idempotencyKeys)} idempotency keys and ${amount(c.tombstones)} tombstones.`,
    '',
  ]
  const byCheck: Readonly<Record<string, number>> = violations.byCheck
  for (const [check, sentence] of Object.entries(checks)) {
    const n = byCheck[check] ?? 0
    lines.push(`${n === 0 ? 'holds' : 'FAILS'}  ${check.padEnd(8)}  ${sentence}${n === 0 ? '' : ` ${count(n, 'violation')}.`}`)
  }
  lines.push('')
  if (violations.total > 0) {
    for (const { check, sentence } of violations.first) lines.push(`${check}: ${sentence}`)
    const rest = violations.total - violations.first.length
    if (rest > 0) lines.push(`… and ${amount(rest)} more.`)
    lines.push('')
  }
  if (lapsedLeases > 0)
    lines.push(
      `${count(lapsedLeases, 'lease has', 'leases have')} expired, and no server has run for a minute: the next one to start takes the work back.`,
    )
  if (owed.length === 0) lines.push('No delivery is open.')
  else lines.push(`Open: ${count(c.openDeliveries, 'delivery', 'deliveries')} to ${count(owed.length, 'endpoint')}.`)
  for (const { endpointId, clientId, url, open, oldestAt, reasons } of owed.slice(0, limit)) {
    const parts = Object.entries(reasons).map(([reason, n]) => `${amount(n)} ${reason}`)
    const since = new Date(oldestAt).toISOString()
    lines.push(`  ${endpointId} of ${clientId} (${url ?? 'deleted'}): ${amount(open)} since ${since}: ${parts.join(', ')}`)
  }
  if (owed.length > limit) lines.push(`  … and ${amount(owed.length - limit)} more endpoints.`)
  return `${lines.join('\n')}\n`
}

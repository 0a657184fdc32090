/** `ringback audit`: proves the whole store, beside running servers too. */
import { Command, InvalidArgumentError } from 'commander'
import { parseConfig } from '../config/config.ts'
import type { AuditReport } from './operations.ts'
import { print } from './print.ts'

interface AuditFlags {
  readonly databaseUrl?: string
  readonly json?: true
  readonly limit: number
}

/** `end` is told the exit code: 1 when something does not hold. */
export function auditCommand(end: (code: number) => void): Command {
  return new Command('audit')
    .description('prove that every task has its one ending and every delivery its account, and say what is owed to whom')
    .option('--database-url <url>', 'file:… or postgres://…')
    .option('--json', 'print the report as JSON')
    .option('--limit <number>', 'violations and endpoints told one by one', wholeNumber, 100)
    .action(async ({ databaseUrl, json, limit }: AuditFlags) => {
      const config = parseConfig({ env: process.env, options: databaseUrl === undefined ? {} : { databaseUrl } })
      // Loaded here, so that --help and --version need nothing native.
      const { runCheck: audit, checks } = await import('./operations.ts')
      const report = await audit(config, limit)
      await print(json ? `${JSON.stringify(report, null, 2)}\n` : renderReport(report, checks, limit))
      if (report.violations.total > 0) end(1)
    })
}

function wholeNumber(text: string): number {
  if (!/^\d{1,6}$/.test(text)) throw new InvalidArgumentError(`It is "${text}", and must be a whole number from 0 to 999999.`)
  return Number(text)
}

const amount = (n: number): string => n.toLocaleString('en-US')

function renderReport(
  { counts, violations, lapsedLeases, owed }: AuditReport,
  checks: Readonly<Record<string, string>>,
  limit: number,
): string {
  const c = counts
  const lines = [
    `Looked at ${amount(c.tasks)} tasks (${amount(c.liveTasks)} live), ${amount(c.endedGenerations)} ended generations, ${amount(c.events)} events, ${amount(c.deliveries)} deliveries (${amount(c.openDeliveries)} open), ${amount(c.attempts)} attempts,`,
    `${amount(c.clients)} clients, ${amount(c.endpoints)} endpoints, ${amount(c.schedules)} schedules, ${amount(c.lanes)} lanes, ${amount(c.turns)} turns, ${amount(c.labels)} labels, ${amount(c.idempotencyKeys)} idempotency keys and ${amount(c.tombstones)} tombstones.`,
    '',
  ]
  const byCheck: Readonly<Record<string, number>> = violations.byCheck
  for (const [check, sentence] of Object.entries(checks)) {
    const n = byCheck[check] ?? 0
    lines.push(
      `${n === 0 ? 'holds' : 'FAILS'}  ${check.padEnd(8)}  ${sentence}${n === 0 ? '' : ` ${amount(n)} ${n === 1 ? 'violation' : 'violations'}.`}`,
    )
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
      `${amount(lapsedLeases)} ${lapsedLeases === 1 ? 'lease has' : 'leases have'} ended, and no server has been here for a minute: the next one takes that work back.`,
    )
  if (owed.length === 0) lines.push('Nothing is owed to anybody.')
  else
    lines.push(
      `Owed: ${amount(c.openDeliveries)} ${c.openDeliveries === 1 ? 'delivery' : 'deliveries'} to ${amount(owed.length)} ${owed.length === 1 ? 'endpoint' : 'endpoints'}.`,
    )
  for (const debt of owed.slice(0, limit)) {
    const reasons = Object.entries(debt.reasons).map(([reason, n]) => `${amount(n)} ${reason}`)
    const since = new Date(debt.oldestAt).toISOString()
    lines.push(
      `  ${debt.endpointId} of ${debt.clientId} (${debt.url ?? 'not there'}): ${amount(debt.open)} since ${since}: ${reasons.join(', ')}`,
    )
  }
  if (owed.length > limit) lines.push(`  … and ${amount(owed.length - limit)} endpoints more.`)
  return `${lines.join('\n')}\n`
}

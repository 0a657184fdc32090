export interface ChartGroup {
  readonly heading: string
  readonly bars: readonly { readonly title: string; readonly value: number; readonly shown: string; readonly ours: boolean }[]
}

const width = 760
const labelWidth = 260
const barWidth = 340
const barHeight = 18
const rowHeight = 24
const headingHeight = 34

const escapeText = (text: string): string => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;')

/** Horizontal bars in groups, each group on a scale of its own. */
export function drawChart(groups: readonly ChartGroup[]): string {
  const shapes: string[] = []
  let top = 8
  for (const { heading, bars } of groups) {
    shapes.push(`<text x="16" y="${top + 20}" font-weight="600">${escapeText(heading)}</text>`)
    top += headingHeight
    const finite = bars.map(({ value }) => value).filter(Number.isFinite)
    const largest = Math.max(...finite, Number.MIN_VALUE)
    for (const { title, value, shown, ours } of bars) {
      const length = Math.max(1, Math.round((Math.min(value, largest) / largest) * barWidth))
      shapes.push(
        `<text x="${labelWidth - 8}" y="${top + 13}" text-anchor="end">${escapeText(title)}</text>`,
        `<rect x="${labelWidth}" y="${top}" width="${length}" height="${barHeight}" rx="2" fill="${ours ? '#2563eb' : '#94a3b8'}"/>`,
        `<text x="${labelWidth + length + 6}" y="${top + 13}">${escapeText(shown)}</text>`,
      )
      top += rowHeight
    }
    top += 8
  }
  const head = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${top}" width="${width}" height="${top}" font-family="system-ui, sans-serif" font-size="12" fill="#0f172a" role="img"><title>Benchmark results</title>`
  return `${head}\n<rect width="${width}" height="${top}" rx="6" fill="#ffffff"/>\n${shapes.join('\n')}\n</svg>\n`
}

export const benchNames = ['intake', 'e2e', 'drain', 'latency'] as const
export type BenchName = (typeof benchNames)[number]
export interface Round { readonly bench: BenchName; readonly contestant: string; readonly round: number; readonly figures?: Readonly<Record<string, number>>; readonly skipped?: string; readonly failed?: string }
export interface Results { readonly startedAt: string; readonly endedAt: string; readonly command: string; readonly quick: boolean; readonly machine: object; readonly versions: object; readonly rounds: readonly Round[] }
export async function writeResults(results: Results): Promise<string> { return '' }

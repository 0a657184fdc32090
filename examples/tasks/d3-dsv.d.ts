/** The part of d3-dsv that is used here: the package brings no types of its own. */
declare module 'd3-dsv' {
  type Row = Record<string, string>
  export function dsvFormat(delimiter: string): { parse(text: string): Row[] & { readonly columns: readonly string[] } }
}

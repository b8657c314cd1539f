/** The ceilings as a bar chart, on a scale of powers of ten, readable on a light and a dark page. */
export const chart = (
  title: string,
  bars: ReadonlyArray<{ readonly name: string; readonly value: number }>
): string => {
  const rows = bars.filter(({ value }) => value > 0)
  const low = 4
  const high = 7.2
  const x = (value: number) => Math.max(2, ((Math.log10(value) - low) / (high - low)) * 440)
  const escape = (text: string) => text.replace(/[&<>]/g, (char) => `&#${char.charCodeAt(0)};`)
  const height = 60 + rows.length * 30
  const ticks = [5, 6, 7].map(
    (power) =>
      `<line x1="${220 + x(10 ** power)}" x2="${220 + x(10 ** power)}" y1="40" y2="${height - 20}" class="tick"/>` +
      `<text x="${220 + x(10 ** power)}" y="${height - 4}" text-anchor="middle">${["100,000", "1 million", "10 million"][power - 5]}</text>`
  )
  const drawn = rows.map(
    ({ name, value }, i) =>
      `<text x="210" y="${60 + i * 30}" text-anchor="end">${escape(name)}</text>` +
      `<rect x="220" y="${46 + i * 30}" width="${x(value).toFixed(1)}" height="20" class="${name.startsWith("effect-sse") ? "ours" : "peer"}"/>` +
      `<text x="${(226 + x(value)).toFixed(1)}" y="${60 + i * 30}">${Math.round(value).toLocaleString("en")}</text>`
  )
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 780 ${height}" font-family="system-ui, sans-serif" font-size="13">
<style>text{fill:#57606a}.tick{stroke:#8c959f;stroke-opacity:.4}.ours{fill:#0a7ea4}.peer{fill:#8c959f}@media(prefers-color-scheme:dark){text{fill:#c9d1d9}}</style>
<text x="10" y="20" font-size="15">${escape(title)}</text>
${ticks.join("\n")}
${drawn.join("\n")}
</svg>
`
}

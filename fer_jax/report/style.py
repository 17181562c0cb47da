"""The look of the pages: light, for a screen of any width and for paper."""

CSS = """
:root { color-scheme: light; --ink: #111827; --soft: #5b6472; --line: #e2e5ea; --blue: #1f5fa8; }
* { box-sizing: border-box; }
body { margin: 0; background: #fff; color: var(--ink); font: 15px/1.5 system-ui, "Segoe UI", Roboto,
  "Helvetica Neue", "DejaVu Sans", Arial, sans-serif; overflow-wrap: break-word;
  -webkit-print-color-adjust: exact; print-color-adjust: exact; }
main { max-width: 1160px; margin: 0 auto; padding: 24px 20px 48px; }
h1 { font-size: 26px; line-height: 1.25; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 19px; margin: 40px 0 12px; padding-bottom: 4px; border-bottom: 2px solid var(--line); }
h3 { font-size: 15px; margin: 16px 0 6px; overflow-wrap: anywhere; }
p { margin: 6px 0; }
p.lead, p.remark, caption, small { color: var(--soft); }
p.remark, caption { font-size: 13.5px; }
.synthetic, .warning { margin: 12px 0; padding: 10px 14px; border-radius: 6px; font-weight: 600; }
.synthetic { background: #fef3c7; border: 2px solid #d97706; color: #7c2d12; }
.warning { background: #fef2f2; border: 1px solid #dc9a94; color: #7f1d1d; font-weight: 500; }
.headlines { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px;
  margin: 20px 0; }
.headlines > div { border: 1px solid var(--line); border-radius: 8px; padding: 10px 14px; }
.headlines b { display: block; font-size: 24px; line-height: 1.3; font-variant-numeric: tabular-nums; }
.headlines span { color: var(--soft); font-size: 13.5px; }
.headlines small { display: block; font-size: 12.5px; line-height: 1.35; }
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: 3px 18px; margin: 12px 0;
  font-size: 14px; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
dd.code { font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: 13px;
  white-space: pre-wrap; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 480px), 1fr)); gap: 20px 32px;
  align-items: start; }
.pair > * { min-width: 0; }
figure { margin: 0; }
.plot img { display: block; width: 100%; height: auto; }
.pair .plot img { max-width: 560px; margin: 0 auto; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14px; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding: 2px 0 6px; }
th, td { padding: 5px 8px; text-align: left; border-bottom: 1px solid var(--line); vertical-align: top; }
td:first-child, th:first-child { overflow-wrap: anywhere; min-width: 5.5em; }
thead th { font-size: 13px; color: var(--soft); font-weight: 600; border-bottom: 2px solid var(--line);
  vertical-align: bottom; }
.number { text-align: right; }
td.number { white-space: nowrap; }
.averages tr:nth-last-child(-n+2) td { background: #f6f7f9; }
td b { color: var(--blue); }
.confusion { table-layout: fixed; }
.confusion thead th:first-child { width: 7.5em; }
.confusion th, .confusion td { padding: 6px 4px; font-size: 13px; text-align: center; vertical-align: middle;
  overflow-wrap: normal; border: 1px solid var(--line); }
.confusion tbody th { text-align: right; font-weight: 600; overflow-wrap: anywhere; }
.confusion thead th { font-size: 12px; padding: 6px 1px; }
.confusion small { font-weight: 400; font-size: 11.5px; }
.confusion.numbered thead th:first-child { width: 11em; }
.confusion.numbered small { font-weight: 600; }
.bar { white-space: nowrap; }
.bar i { display: block; height: 6px; min-width: 1px; border-radius: 2px; background: var(--blue); }
.run { display: flex; gap: 7px; align-items: baseline; }
.run span { min-width: 0; }
.swatch { flex: none; width: 12px; height: 12px; border-radius: 3px; }
.fields { table-layout: fixed; }
.fields th { overflow-wrap: anywhere; }
.fields th:first-child { width: 15em; }
.faces { display: grid; grid-template-columns: repeat(auto-fill, minmax(118px, 1fr)); gap: 14px 12px; }
.faces.samples { grid-template-columns: repeat(5, minmax(0, 1fr)); gap: 8px; }
.faces img { display: block; width: 100%; max-width: 128px; height: auto; aspect-ratio: 1;
  image-rendering: pixelated; background: #eee; }
.faces img.heat { margin-top: 4px; }
.faces figure { break-inside: avoid; min-width: 0; }
.faces span { display: block; font-size: 12.5px; line-height: 1.35; overflow-wrap: anywhere; }
.right { color: #166534; }
.wrong { color: #b42318; }
details { margin-top: 40px; }
summary { cursor: pointer; font-weight: 600; }
.value { white-space: pre-wrap; overflow-wrap: anywhere; font-family: ui-monospace, Menlo, Consolas,
  "DejaVu Sans Mono", monospace; font-size: 12.5px; line-height: 1.4; }
@media (max-width: 1200px) {
  .confusion:not(.numbered) thead th span { writing-mode: vertical-rl; transform: rotate(180deg); }
}
@media (max-width: 700px) {
  main { padding: 16px 12px 32px; }
  h1 { font-size: 22px; }
  .headlines { grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 8px; }
  .headlines > div { padding: 8px 10px; }
  dl { display: block; }
  dd { margin-bottom: 6px; }
  th, td { padding: 4px 5px; }
  table { font-size: 13px; }
  .confusion th, .confusion td { font-size: 12px; padding: 5px 2px; }
  .confusion thead th:first-child { width: 5.6em; }
  .confusion.numbered thead th:first-child { width: 7.5em; }
  .faces { grid-template-columns: repeat(3, minmax(0, 1fr)); gap: 12px 8px; }
  .faces.samples { gap: 6px; }
  .rows { min-width: 0 !important; }
  .rows thead { display: none; }
  .rows, .rows tbody, .rows tr { display: block; }
  .rows tr { padding: 8px 0; border-bottom: 2px solid var(--line); }
  .rows td { display: grid; grid-template-columns: 8.5em minmax(0, 1fr); gap: 8px; border: 0; padding: 2px 0;
    text-align: left; white-space: normal; overflow-wrap: anywhere; }
  .rows td::before { content: attr(data-label); color: var(--soft); overflow-wrap: anywhere; }
  .rows td:first-child { display: block; font-weight: 600; }
  .rows td:first-child::before { content: none; }
}
@media print {
  main { max-width: none; padding: 0; }
  h2 { break-after: avoid; }
  .plot, .headlines > div, tr { break-inside: avoid; }
  .scroll { overflow: visible; }
}
"""

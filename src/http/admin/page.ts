/**
 * The admin page: one document with its style and its script, and nothing from elsewhere.
 *
 * @internal
 */
import { app } from "./app.js"

/** @param nonce by which the content security policy knows the page's own style and script */
export const page = (nonce: string): string => `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>effect-sse</title>
<link rel="icon" href="data:,">
<style nonce="${nonce}">${style}</style>
</head>
<body>
<header>
  <h1>effect-sse</h1>
  <p id="node"></p>
  <p><span id="badge" class="lost" role="status">connecting</span></p>
</header>
<main>
  <section class="wide" id="nodes-section" hidden>
    <h2>Nodes <small id="nodes-note" role="status"></small></h2>
    <table>
      <thead><tr><th>Node<th>State<th>Clients<th>Publishes / s<th>Deliveries / s<th>Sent / s<th>Waiting<th>Slow<th>Memory<th>Up</tr></thead>
      <tbody id="nodes"></tbody>
    </table>
  </section>
  <section id="cards" aria-label="Totals of this node, with the last ten minutes"></section>
  <section>
    <h2>Namespaces <small id="tree-note"></small></h2>
    <ul id="tree"></ul>
  </section>
  <section>
    <h2>Watch <small id="watch-state" role="status"></small></h2>
    <form id="watch">
      <label>Namespace <input id="watch-namespace" value="/" autocomplete="off" spellcheck="false"></label>
      <button>watch</button>
      <button type="button" id="watch-stop">stop</button>
      <label><input type="checkbox" id="pause"> pause</label>
    </form>
    <ol id="watched" tabindex="0" aria-label="Events, newest first"></ol>
  </section>
  <section class="wide">
    <h2>Clients <small id="clients-note"></small></h2>
    <div class="tools">
      <label id="of-label" hidden>Node <select id="of"></select></label>
      <label>Filter <input id="filter" type="search" placeholder="address, user agent, path" autocomplete="off"></label>
      <label>Sort <select id="sort">
        <option value="age">oldest first</option>
        <option value="msgs_sent">most events first</option>
        <option value="pending_bytes">most waiting first</option>
      </select></label>
      <span id="said" role="status"></span>
    </div>
    <table>
      <thead><tr><th>Client<th>Namespace<th>Address<th>User agent<th>Connected<th>Events<th>Waiting<th><span class="away">Action</span></tr></thead>
      <tbody id="clients"></tbody>
    </table>
  </section>
  <section class="wide">
    <h2>Disconnects</h2>
    <ul id="reasons"></ul>
    <ul id="ends"></ul>
  </section>
</main>
<dialog id="ask" aria-labelledby="ask-text">
  <form method="dialog">
    <p id="ask-text"></p>
    <button value="no" autofocus>keep</button>
    <button value="yes" class="danger">disconnect</button>
  </form>
</dialog>
<noscript>This page needs JavaScript; the same figures are in <a href="status.json">status.json</a>.</noscript>
<script nonce="${nonce}">"use strict";const __name = (f) => f;(${app.toString().replaceAll("</", "<\\/")})()</script>
</body>
</html>
`

// `__name` above: some bundlers mark functions with it, and the script stands alone.

const style = `
:root { --back: #f6f7f9; --card: #fff; --text: #16181d; --dim: #59606c; --line: #d9dde3; --accent: #2457d6; --bad: #b3261e; --good: #1a7f45 }
@media (prefers-color-scheme: dark) {
  :root { --back: #111317; --card: #1a1d23; --text: #e8eaee; --dim: #9aa2af; --line: #2e333c; --accent: #86aaff; --bad: #ff8a80; --good: #6fd39a }
}
* { box-sizing: border-box }
body { margin: 0; background: var(--back); color: var(--text); font: 15px/1.45 system-ui, sans-serif }
header { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; align-items: baseline; padding: 1rem 1.25rem }
header p { margin: 0; color: var(--dim) }
h1 { font-size: 1.25rem; margin: 0 }
h2 { font-size: 1rem; margin: 0 0 .6rem }
small { font-weight: 400; color: var(--dim) }
main { display: grid; grid-template-columns: 1fr 1fr; gap: 1rem; padding: 0 1.25rem 1.25rem }
section { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: 1rem; min-width: 0 }
#cards, .wide { grid-column: 1 / -1 }
#cards { display: grid; grid-template-columns: repeat(4, 1fr); gap: 1rem }
.card span { color: var(--dim); display: block; font-size: .85rem }
.card strong { font-size: 1.35rem; font-variant-numeric: tabular-nums }
.card svg { display: block; width: 100%; height: 2rem; color: var(--accent) }
#badge { font-weight: 600; color: var(--bad) }
#badge.live { color: var(--good) }
#badge::before { content: "● " }
button, input, select { font: inherit; color: inherit; background: var(--back); border: 1px solid var(--line); border-radius: .4rem; padding: .3rem .6rem }
button { cursor: pointer }
button.small { padding: 0 .5rem; font-size: .85rem }
.danger { color: var(--bad) }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px }
ul, ol { list-style: none; margin: 0; padding: 0 }
[hidden] { display: none !important }
#nodes tr:first-child td, #nodes td:first-child { font-weight: 600 }
#tree { max-height: 24rem; overflow: auto }
#tree ul { padding-left: 1.1rem; border-left: 1px solid var(--line); margin-left: .35rem }
#tree summary { display: flex; gap: .6rem; align-items: baseline; padding: .15rem 0; cursor: pointer }
#tree summary::before { content: "▾"; color: var(--dim) }
#tree details:not([open]) > summary::before { content: "▸" }
#tree .leaf > details > summary::before { visibility: hidden }
.name { overflow-wrap: anywhere; font-weight: 600 }
.figures { color: var(--dim); margin-left: auto; white-space: nowrap; font-variant-numeric: tabular-nums }
form, .tools { display: flex; flex-wrap: wrap; gap: .6rem 1rem; align-items: center; margin-bottom: .6rem }
#watched { height: 20rem; overflow: auto; border: 1px solid var(--line); border-radius: .4rem; padding: .5rem }
#watched li { border-bottom: 1px solid var(--line); padding: .25rem 0 }
#watched .head { color: var(--dim); font-size: .85rem; overflow-wrap: anywhere }
#watched pre { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; max-height: 8rem; overflow: auto }
.skipped { color: var(--dim) }
table { width: 100%; border-collapse: collapse }
th, td { text-align: left; padding: .3rem .5rem; border-bottom: 1px solid var(--line); overflow-wrap: anywhere; vertical-align: top; font-variant-numeric: tabular-nums }
th { color: var(--dim); font-weight: 500; font-size: .85rem }
#reasons { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; margin-bottom: .5rem }
#ends { color: var(--dim); font-size: .9rem; overflow-wrap: anywhere }
dialog { color: var(--text); background: var(--card); border: 1px solid var(--line); border-radius: .6rem; max-width: 28rem; overflow-wrap: anywhere }
dialog::backdrop { background: #0008 }
.away { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%) }
noscript { display: block; padding: 1.25rem }
@media (max-width: 45rem) {
  main { grid-template-columns: 1fr; padding: 0 .75rem .75rem }
  #cards { grid-template-columns: 1fr 1fr }
  thead { display: none }
  table, tbody, tr, td { display: block; width: 100% }
  tr { border-bottom: 1px solid var(--line); padding: .4rem 0 }
  td { border: 0; padding: .1rem 0 }
  td[data-label]::before { content: attr(data-label) ": "; color: var(--dim) }
  td:empty { display: none }
}
`

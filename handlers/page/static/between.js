// What stands between: events at a known pace through the address of this page, three times (sse/probe.py says why). The server
// judges what arrived; the wire view shows the first passage, whose timeline shows buffering at a glance.

import { $, h } from "./dom.js"
import { json, url } from "./api.js"
import { Client } from "./client.js"
import { Recording } from "./recording.js"

const COUNT = 12, INTERVAL = 0.1
const MARKS = { good: "✓", note: "·", bad: "✗" }

export function between(wire) {
  const out = $("#probe-out"), start = $("#probe-start")
  $("#probe-url").textContent = url("").replace(/\/$/, "")
  let recording = null

  start.addEventListener("click", async () => {
    start.disabled = true
    try {
      await measure($("#silence").valueAsNumber || 0)
    } catch (error) {
      out.replaceChildren(h("p.bad", { role: "alert" }, `Nothing could be measured: ${error.message}`))
    }
    start.disabled = false
  })

  async function measure(silence) {
    const path = `lab/probe?interval=${INTERVAL}&count=`
    out.replaceChildren(h("progress", { "aria-label": "Measuring" }))
    recording = new Recording(`GET /${path}${COUNT}`)
    wire.show(recording)
    const [paced, plain, silent] = await Promise.all([
      passage(path + COUNT, COUNT, 0, recording), passage(`${path}${COUNT}&plain=1`, COUNT, 0),
      passage(`${path}1&silence=${silence}`, 1, silence)])
    const { findings } = await json("lab/probe", { method: "POST", body: { paced, plain, silent } })
    out.replaceChildren(...findings.map(shown), ...protocol())
  }

  return () => { if (recording) wire.show(recording) }
}

/** One stream, as sse.probe.Passage has it. */
async function passage(path, events, silence, recording = new Recording(path)) {
  const arrivals = []
  let seen = null
  const client = new Client({ path, headers: { "Last-Event-ID": "probe" } }, { recording, over: () => false, onevent: ({ data, at }) => {
    const document = JSON.parse(data)
    seen ??= document.seen ?? null
    arrivals.push([document.number, document.sent, at / 1000])
  } })
  await client.done
  const { rows, connections: [{ ended }] } = recording
  const { status = 0 } = rows.find(({ kind }) => kind === "response") ?? {}
  const comments = rows.filter(({ step }) => step?.rule === "comment").length
  return { status, headers: Object.fromEntries(client.headers ?? []), arrivals, comments, lasted: ended / 1000, seen, events, silence }
}

function shown({ name, level, says, mend }) {
  const kind = level === "note" ? "warn" : level
  return h(".card.finding", {}, h(`span.mark.${kind}`, { "aria-hidden": "true" }, MARKS[level]),
    h("div", {}, h("h3", { className: kind }, name), h("p", {}, says), mend && h("pre", {}, mend)))
}

/** What only a browser can tell: which protocol it speaks to whatever answers. */
function protocol() {
  const entry = performance.getEntriesByType("resource").findLast(({ name }) => name.includes("lab/probe"))
  if (entry?.nextHopProtocol !== "http/1.1") return []
  return [shown({ name: "HTTP/1.1", level: "note", mend: "listen 443 ssl;\nhttp2 on;",
    says: "With HTTP/1.1 a browser opens six connections to a host at the most: the seventh tab with a stream hangs. With HTTP/2 they share one." })]
}

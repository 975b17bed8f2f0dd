// The wire view: a recording as a debugger shows a program. A row for each line, what it does, what it dispatches; a cursor,
// and the buffers as they are after the row where it stands; the chunks on a timeline.
//
// In:  a Recording. Out: its rows, of which only those in view are in the document.

import { h, coalesced, count, seconds, size } from "./dom.js"
import { hex, visible } from "./bytes.js"
import { RULES } from "./parser.js"
import { Timeline } from "./timeline.js"
import { Recording } from "./recording.js"

const ROW = 24       // pixels; also in page.css
const MARGIN = 6     // rows above and below those in view
const STANDARD = "https://html.spec.whatwg.org/multipage/server-sent-events.html"
const ANCHORS = { "9.2.5": "#parsing-an-event-stream", "9.2.6": "#event-stream-interpretation" }
const LONGEST = 600  // bytes of one line that are shown in its row; the inspector has more
const NAMES = { data: "data buffer", type: "event type buffer", id: "last event ID buffer", lastEventId: "last event ID", reconnectionTime: "reconnection time" }
const NOTHING = { data: "", type: "", id: "", lastEventId: "", reconnectionTime: null }

export class WireView {
  #shown = new Map()   // index -> element
  #height = 400
  #cursor = -1
  #following = true
  #hex = false
  #render = coalesced(() => this.#draw())          // the rows in view
  #refresh = coalesced(() => this.#drawAround())   // and what stands around them

  constructor(root) {
    this.#build(root)
    this.show(new Recording())
  }

  /** Show a recording from now on. */
  show(recording, { follow = true } = {}) {
    this.#listening?.abort()
    this.#listening = new AbortController()
    const { signal } = this.#listening
    this.recording = recording
    recording.addEventListener("change", this.#refresh, { signal })
    recording.addEventListener("light", () => this.#light(), { signal })
    this.#clear()
    this.#following = follow
    this.list.scrollTop = 0
    this.#move(-1)
  }

  /** Put the cursor on a row and bring it into view. */
  select(index) { this.#following = false; this.#move(index) }

  /** Point at an event that is shown elsewhere: its bytes come into view. */
  reveal(event) {
    this.recording.light(event.block)
    this.#following = false
    this.#bring(event.row)
  }

  #listening = null

  #build(root) {
    const button = (label, title, onclick, more) => h("button.small", { title, onclick, ...more }, label)
    const step = (label, title, by) => button(label, title, () => this.#step(by), { "aria-label": title })
    this.title = h("h2", { id: "wire-title" }, "The wire")
    this.figures = h("p.figures")
    this.hexButton = button("Hex", "Show bytes as hexadecimal numbers", () => this.#toggleHex(), { "aria-pressed": "false" })
    this.followButton = button("Follow", "Keep the newest line in view", () => this.#follow(), { "aria-pressed": "true" })
    this.list = h(".rows", { role: "listbox", tabIndex: 0, "aria-labelledby": "wire-title", onscroll: () => this.#scrolled(),
      onkeydown: (event) => this.#key(event), onclick: (event) => this.#picked(event),
      onpointerover: (event) => this.#pointed(event), onpointerleave: () => this.recording.light(-1) })
    this.empty = h("p.empty", {}, "Nothing has come yet. What you start on this page shows its bytes here.")
    this.space = h(".space", { role: "presentation" })
    this.list.append(this.space)
    this.inspector = h(".inspector", { role: "region", "aria-label": "The selected line", tabIndex: 0 })
    this.timeline = new Timeline((index) => this.select(index))
    root.append(
      h(".bar", {}, h(".heading", {}, this.title, this.figures), h(".tools", { role: "toolbar", "aria-label": "The wire" },
        step("⇤", "First line", -Infinity), step("←", "One step back", -1), step("→", "One step forward", 1),
        step("⇥", "Last line", Infinity), this.hexButton, this.followButton)),
      this.timeline.canvas, h(".body", {}, this.empty, this.list), this.inspector)
    new ResizeObserver(([entry]) => { this.#height = entry.contentRect.height; this.#refresh() }).observe(this.list)
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", this.#refresh)
  }

  // -- what is drawn

  #clear() {
    for (const element of this.#shown.values()) element.remove()
    this.#shown.clear()
    this.#refresh()
  }

  #draw() {
    const { recording, list } = this, { rows, parser } = recording, total = rows.length + (parser.pending.length ? 1 : 0)
    this.empty.hidden = total > 0
    this.space.style.height = `${total * ROW}px`
    if (this.#following) list.scrollTop = total * ROW
    const first = Math.max(0, Math.floor(list.scrollTop / ROW) - MARGIN)
    const last = Math.min(total, Math.ceil((list.scrollTop + this.#height) / ROW) + MARGIN)
    for (const [index, element] of this.#shown) {
      const stays = index >= first && index < last || index === this.#cursor
      if (!stays || element.classList.contains("pending")) element.remove(), this.#shown.delete(index)
    }
    const added = document.createDocumentFragment()
    for (let index = first; index < last; index++) if (!this.#shown.has(index)) added.append(this.#element(index, total))
    if (this.#cursor >= 0 && this.#cursor < total && !this.#shown.has(this.#cursor)) added.append(this.#element(this.#cursor, total))
    this.space.append(added)
    this.followButton.setAttribute("aria-pressed", this.#following)
  }

  #drawAround() {
    this.#draw()
    this.#describe()
    if (this.#cursor < 0) this.#inspect()
    this.timeline.draw(this.recording, this.recording.rows[this.#cursor])
  }

  #describe() {
    const { rows, events, chunks, size: bytes, duration, title } = this.recording
    this.title.textContent = title || "The wire"
    this.figures.textContent = rows.length
      ? `${count(events.length, "event")} · ${count(chunks.length, "chunk")} · ${size(bytes)} · ${seconds(duration)} s` : ""
  }

  #element(index, total) {
    const row = this.recording.rows[index] ?? pendingRow(this.recording, index)
    const element = h(`.row.${row.kind}`, { role: "option", id: `wire-${index}`, "aria-selected": index === this.#cursor,
      "aria-setsize": total, "aria-posinset": index + 1 }, ...this.#cells(row))
    element.style.top = `${index * ROW}px`
    element.dataset.index = index
    element.classList.toggle("odd", row.chunk % 2 === 1)
    element.classList.toggle("lit", row.block === this.recording.lit && hasBytes(row))
    this.#shown.set(index, element)
    return element
  }

  #cells(row) {
    const { chunks } = this.recording, opens = row.kind === "step" && chunks[row.chunk]?.row === row.index
    const time = opens || row.kind === "request" || row.kind === "response" || row.kind === "note" ? seconds(row.at) : ""
    const gutter = h("span.time", {}, time)
    if (row.kind === "event") return [gutter, ...eventCells(row.event)]
    if (row.kind === "step" || row.kind === "pending") {
      const rule = row.step?.rule
      return [gutter, h("span.bytes", {}, ...this.#bytes(row)),
        h("span.effect", { title: rule ? RULES[rule][1] : "" }, row.step ? effect(row.step) : "not a whole line yet"),
        h("span.section", {}, rule ? RULES[rule][0] : "")]
    }
    return [gutter, h("span.bytes", {}, ...summary(row))]
  }

  /** The bytes of a row: name, colon, space and value set off, chunk boundaries marked, what is unseen made visible. */
  #bytes(row, longest = LONGEST) {
    const { recording } = this, { start, step } = row, end = Math.min(row.end, start + longest)
    const marks = new Map()   // offset -> class of what begins there
    const field = step?.rule === "comment" ? "comment" : step?.name === undefined ? "" : step.rule
    marks.set(start, step?.name === undefined ? "value" : "name")
    if (step?.colon >= 0) marks.set(start + step.colon, "colon").set(start + step.valueAt, "value")
    if (step && step.rule !== "bom") marks.set(start + step.line.length, "eol")
    const cuts = boundaries(recording.chunks, row.start, end)
    const points = [...new Set([...marks.keys(), ...cuts.keys()])].filter((at) => at < end).sort((a, b) => a - b)
    const parts = []
    let kind = ""
    points.forEach((at, index) => {
      kind = marks.get(at) ?? kind
      if (cuts.has(at)) parts.push(h("i.cut", { title: `chunk ${cuts.get(at) + 1} begins here` }))
      const bytes = recording.bytes(at, points[index + 1] ?? end)
      if (bytes.length) parts.push(h(`span.${kind}${field ? `.f-${field.split(" ")[0]}` : ""}`, {}, ...this.#written(bytes)))
    })
    if (end < row.end) parts.push(h("span.more", {}, `… ${size(row.end - end)} more`))
    return parts
  }

  #written(bytes) {
    if (this.#hex) return [[...bytes].map(hex).join(" ") + " "]
    return seen(bytes)
  }

  // -- the cursor

  #move(index) {
    const before = this.#shown.get(this.#cursor)
    before?.setAttribute("aria-selected", "false")
    this.#cursor = index
    this.#inspect()
    if (index < 0) { this.list.removeAttribute("aria-activedescendant"); return this.#refresh() }
    this.#bring(index)
    this.#drawAround()
    this.#shown.get(index)?.setAttribute("aria-selected", "true")
    this.list.setAttribute("aria-activedescendant", `wire-${index}`)
    const row = this.recording.rows[index]
    if (row) this.recording.light(hasBytes(row) ? row.block : -1)
  }

  #bring(index) {
    const top = index * ROW, { list } = this, seen = top - list.scrollTop
    if (seen < 0 || seen + ROW > this.#height) list.scrollTop = top - this.#height / 2
    this.#render()
  }

  #key(event) {
    const page = Math.floor(this.#height / ROW) - 1
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity }
    if (!(event.key in steps)) return
    event.preventDefault()
    this.#step(steps[event.key])
  }

  #step(by) {
    const last = this.recording.rows.length - 1
    if (last >= 0) this.select(Math.min(last, Math.max(0, this.#cursor + by)))
  }

  #picked({ target }) {
    const index = Number(target.closest(".row")?.dataset.index)
    if (index < this.recording.rows.length) this.select(index)
  }

  #pointed({ target }) {
    const row = this.recording.rows[target.closest(".row")?.dataset.index]
    this.recording.light(row && hasBytes(row) ? row.block : -1)
  }

  #light() {
    const { rows, lit } = this.recording
    for (const [index, element] of this.#shown) element.classList.toggle("lit", rows[index]?.block === lit && hasBytes(rows[index]))
  }

  #scrolled() {
    const { list } = this
    this.#following = list.scrollTop + list.clientHeight >= list.scrollHeight - ROW
    this.#render()
  }

  #follow() {
    this.#following = !this.#following
    this.#render()
  }

  #toggleHex() {
    this.#hex = !this.#hex
    this.hexButton.setAttribute("aria-pressed", this.#hex)
    this.#clear()
    this.#inspect()
  }

  // -- the inspector

  #inspect() {
    const { rows } = this.recording, row = rows[this.#cursor]
    if (!row) {
      const hint = h("p.rule.hint", {}, "Choose a line to see its rule and the buffers after it; the arrow keys step through the stream. After the newest line:")
      return this.inspector.replaceChildren(hint, registers(rows.at(-1)))
    }
    const parts = [h("p.rule", {}, ...this.#rule(row))]
    if (row.kind === "event") parts.push(messageEvent(row.event))
    if (row.headers) parts.push(definitions(Object.entries(row.headers), "headers"))
    if (row.kind === "step" && row.end - row.start > 60) parts.push(h("p.whole", {}, ...this.#bytes(row, 4096)))
    this.inspector.replaceChildren(...parts, registers(row))
  }

  #rule(row) {
    if (row.kind === "event") return ["Dispatched: what an EventSource hands to its listeners."]
    if (row.kind === "request") return ["The request. A client that comes back says how far it has got in Last-Event-ID."]
    if (row.kind === "response") return ["The response. It has to be 200 and text/event-stream (9.2.3)."]
    if (row.kind === "note") return [row.text]
    const [section, text] = RULES[row.step.rule]
    return [h("a", { href: STANDARD + ANCHORS[section], target: "_blank", rel: "noreferrer" }, section), ` ${text}`]
  }
}

const encoder = new TextEncoder()
const seen = (bytes) => visible(bytes).map(({ text, control }) => control ? h("b", {}, text) : text)
const hasBytes = (row) => row.kind === "step" || row.kind === "event"

function pendingRow({ size, parser, chunks }, index) {
  return { kind: "pending", index, start: size - parser.pending.length, end: size, chunk: chunks.length - 1, block: -2 }
}

/** Where chunks begin within these bytes: offset -> number of the chunk. */
function boundaries(chunks, start, end) {
  let low = 0, high = chunks.length
  while (low < high) {
    const middle = (low + high) >> 1
    if (chunks[middle].start < start) low = middle + 1
    else high = middle
  }
  const found = new Map()
  for (; low < chunks.length && chunks[low].start < end; low++) found.set(chunks[low].start, low)
  return found
}

/** What a line does, in a few words. */
function effect({ rule, name, value, buffers }) {
  const quoted = (text) => JSON.stringify(text.length > 80 ? text.slice(0, 80) + "…" : text)
  switch (rule) {
    case "data": return value.length > 24 ? `appended to the data buffer` : `data buffer += ${quoted(value + "\n")}`
    case "event": return `event type = ${quoted(value)}`
    case "id": return `ID buffer = ${quoted(value)}`
    case "retry": return `reconnection time = ${buffers.reconnectionTime} ms`
    case "comment": return "comment: ignored"
    case "id with NUL": return "holds NUL: ignored"
    case "retry ignored": return "not digits alone: ignored"
    case "unknown": return `no field is called ${quoted(name)}: ignored`
    case "dispatch": return "dispatches"
    case "no data": return "no data: nothing is dispatched"
    case "bom": return "byte order mark: dropped"
    case "lf": return "belongs to the CR before it"
    default: return "never dispatched: discarded"
  }
}

function eventCells({ type, data, lastEventId }) {
  return [h("span.bytes", {}, h("span.type", {}, type), h("span.data", {}, ...data ? seen(encoder.encode(data.slice(0, LONGEST))) : ["(empty)"])),
    h("span.effect.id", { title: "lastEventId" }, lastEventId), h("span.section")]
}

function summary({ kind, method, path, headers, status, text }) {
  if (kind === "request") {
    const last = headers["Last-Event-ID"]
    return [h("span.arrow", {}, "→ "), `${method} ${path}`, ...last ? [h("span.last", {}, `Last-Event-ID: ${last}`)] : []]
  }
  if (kind === "response") return [h("span.arrow", {}, "← "), `${status} `, headers["content-type"] ?? "without a type"]
  return [text]
}

function messageEvent({ type, data, lastEventId }) {
  let shown = data
  try { shown = JSON.stringify(JSON.parse(data), null, 2) } catch { /* not JSON: as it is */ }
  return h(".message", {}, definitions([["type", type], ["lastEventId", lastEventId || "(none)"]]), h("pre", { tabIndex: 0 }, shown))
}

function definitions(pairs, kind = "") {
  return h(`dl${kind && `.${kind}`}`, {}, ...pairs.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]))
}

/** The buffers after a row; those that it changed are marked. */
function registers({ buffers, before = buffers } = { buffers: NOTHING }) {
  return h("dl.registers", {}, ...Object.entries(NAMES).map(([key, name]) => {
    const now = buffers[key], value = typeof now === "string" ? JSON.stringify(now) : now === null ? "not set" : `${now} ms`
    return h(`div${now !== before[key] ? ".changed" : ""}`, {}, h("dt", {}, name), h("dd", {}, value.length > 300 ? value.slice(0, 300) + "…" : value))
  }))
}

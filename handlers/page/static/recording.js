// What came over the wire, kept: the bytes, the chunks with their times, a row for everything there is to see, the events.
//
// In:  requests, responses, chunks and ends as they happen (client.js), with the time of each in milliseconds.
// Out: `rows`, in order, which the wire view shows; "change" when there are more, "light" when an event is pointed at.
//
// Limit: all of it is held for as long as the recording is shown.

import { Parser } from "./parser.js"

export class Recording extends EventTarget {
  rows = []          // {kind: "request" | "response" | "step" | "event" | "note", at, block, buffers after it, …}
  events = []        // {type, data, lastEventId, at, block, row}
  chunks = []        // {at, start, end, row}: row: the first that it completes
  connections = []   // {begun, opened, ended}
  size = 0           // bytes
  lit = -1           // the block that is pointed at
  #bytes = new Uint8Array(4096)
  #block = 0         // the lines up to an empty one, and what they dispatch
  #buffers = { data: "", type: "", id: "", lastEventId: "", reconnectionTime: null }
  #base = 0          // where this connection's bytes begin

  parser = new Parser()
  #begun = performance.now()

  constructor(title = "") {
    super()
    this.title = title
  }

  get now() { return performance.now() - this.#begun }

  /** Seconds from the first moment to the last thing that happened. */
  get duration() { return Math.max(...this.connections.map(({ begun, ended }) => ended ?? begun), this.chunks.at(-1)?.at ?? 0, 1) }

  bytes(start, end) { return this.#bytes.subarray(start, end) }

  /** A request goes out. headers: those worth seeing. */
  request(method, path, headers = {}) {
    this.connections.push({ begun: this.now })
    this.parser.reset()
    this.#base = this.size
    this.#row({ kind: "request", method, path, headers })
    this.#changed()
  }

  response(status, headers) {
    this.connections.at(-1).opened = this.now
    this.#row({ kind: "response", status, headers })
    this.#changed()
  }

  /** Bytes have come. The events that they complete. */
  chunk(bytes) {
    this.#keep(bytes)
    this.chunks.push({ at: this.now, start: this.size - bytes.length, end: this.size, row: this.rows.length })
    const found = this.parser.feed(bytes).map((step) => this.#step(step)).filter(Boolean)
    this.#changed()
    return found
  }

  /** The body has ended, or broken; why: in words. */
  end(why) {
    const connection = this.connections.at(-1)
    if (connection) connection.ended = this.now
    for (const step of this.parser.end()) this.#step(step)
    this.note(why)
  }

  note(text) {
    this.#row({ kind: "note", text })
    this.#changed()
  }

  /** Point at an event, from wherever it is shown; -1: at none. */
  light(block) {
    if (block === this.lit) return
    this.lit = block
    this.dispatchEvent(new CustomEvent("light", { detail: block }))
  }

  #keep(bytes) {
    if (this.size + bytes.length > this.#bytes.length) {
      const larger = new Uint8Array(Math.max(this.#bytes.length * 2, this.size + bytes.length))
      larger.set(this.#bytes.subarray(0, this.size))
      this.#bytes = larger
    }
    this.#bytes.set(bytes, this.size)
    this.size += bytes.length
  }

  #step(step) {
    const { event } = step, before = this.#buffers
    this.#buffers = step.buffers
    this.#row({ kind: "step", step, before, start: this.#base + step.start, end: this.#base + step.end })
    if (event) {
      this.events.push({ ...event, at: this.now, block: this.#block, row: this.rows.length })
      this.#row({ kind: "event", event: this.events.at(-1) })
    }
    if (["dispatch", "no data", "unfinished"].includes(step.rule)) this.#block++
    return event && this.events.at(-1)
  }

  #row(row) {
    const { rows, chunks } = this
    rows.push({ at: this.now, block: this.#block, chunk: chunks.length - 1, index: rows.length, buffers: this.#buffers, ...row })
  }

  #changed() { this.dispatchEvent(new Event("change")) }
}

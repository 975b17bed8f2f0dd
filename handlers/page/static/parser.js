// Bytes, cut anywhere -> steps: what each line is, which rule applies, what it does to the buffers, what it dispatches.
//
// In:  the chunks of a body of type text/event-stream. Out: a step for each line as soon as its last byte is there.
// HTML Standard, section 9.2.5 (lines) and 9.2.6 (fields). No I/O, no clock, no document.
// The same structure as sse/wire/lines.py and sse/wire/parser.py, which have the grammar; tests/vectors.json holds for both.

const LF = 0x0a, CR = 0x0d, COLON = 0x3a, SPACE = 0x20
const BOM = [0xef, 0xbb, 0xbf]
const decoder = new TextDecoder("utf-8", { ignoreBOM: true })   // the BOM is a matter of the whole stream, not of a value

/** The bytes of one after the other. */
export function joined(one, other) {
  if (!one.length) return other
  const both = new Uint8Array(one.length + other.length)
  both.set(one)
  both.set(other, one.length)
  return both
}

/**
 * Cuts one stream into lines. A CR ends its line at once, although an LF may follow that belongs to it: to wait for the next
 * byte would hold back the event until the server has something more to say.
 */
export class LineSplitter {
  #start = new Uint8Array()    // what has come of a BOM; null: the start is over
  #line = new Uint8Array()     // the line that has not ended yet
  #afterCR = false             // the last chunk ended with one
  offset = 0                   // of the next byte in the stream

  /** Bytes that belong to no line yet. */
  get pending() { return this.#start?.length ? this.#start : this.#line }

  /** The pieces that end in this chunk, each {kind: "line" | "bom" | "lf", line, start, end}; offsets are in the stream. */
  feed(chunk) {
    const found = []
    let bytes = chunk, begin = 0
    if (this.#start) {
      bytes = joined(this.#start, chunk)
      this.offset -= this.#start.length
      const length = Math.min(bytes.length, BOM.length)
      const alike = BOM.slice(0, length).every((byte, index) => bytes[index] === byte)
      if (alike && length < BOM.length) {
        this.#start = bytes
        this.offset += bytes.length
        return found
      }
      this.#start = null
      if (alike) found.push(this.#piece("bom", this.#line, 0, begin = BOM.length))
    }
    if (this.#afterCR && bytes.length > begin) {
      this.#afterCR = false
      if (bytes[begin] === LF) found.push(this.#piece("lf", this.#line, begin, ++begin))
    }
    for (let at = begin; at < bytes.length; at++) {
      if (bytes[at] !== LF && bytes[at] !== CR) continue
      const line = joined(this.#line, bytes.subarray(begin, at))
      const from = begin - this.#line.length
      if (bytes[at] === CR && at + 1 === bytes.length) this.#afterCR = true
      else if (bytes[at] === CR && bytes[at + 1] === LF) at++
      begin = at + 1
      found.push(this.#piece("line", line, from, begin))
      this.#line = new Uint8Array()
    }
    this.#line = joined(this.#line, bytes.slice(begin))
    this.offset += bytes.length
    return found
  }

  #piece(kind, line, start, end) {
    return { kind, line, start: this.offset + start, end: this.offset + end }
  }
}

/** Rules by name: the section that has each, and what it says, in our words. */
export const RULES = {
  bom: ["9.2.5", "A byte order mark at the very start is dropped. Anywhere else it is text."],
  lf: ["9.2.5", "This LF belongs to the CR that ended the chunk before. It ends no line of its own."],
  comment: ["9.2.6", "A line that begins with a colon is a comment, and is ignored."],
  data: ["9.2.6", "The value and a LF are appended to the data buffer."],
  event: ["9.2.6", "The value replaces the event type buffer."],
  id: ["9.2.6", "The value replaces the last event ID buffer."],
  "id with NUL": ["9.2.6", "An id that holds NUL is ignored, as if the line weren't there."],
  retry: ["9.2.6", "Nothing but ASCII digits: the value is the new reconnection time, in milliseconds, at once."],
  "retry ignored": ["9.2.6", "A retry that isn't ASCII digits alone is ignored."],
  unknown: ["9.2.6", "A field of another name is ignored. Names are compared exactly."],
  dispatch: ["9.2.6", "An empty line: the last event ID is set, the event is dispatched, data and type begin anew."],
  "no data": ["9.2.6", "An empty line, but no data field before it: the last event ID is set, the type is forgotten, nothing is dispatched."],
  unfinished: ["9.2.6", "The body ended before an empty line: what has not been dispatched is discarded, its id too."],
}

/** Reads one event stream after another, as an EventSource does that reconnects. */
export class Parser {
  #lines

  constructor({ lastEventId = "" } = {}) {
    this.lastEventId = lastEventId      // what a reconnect sends; changes at an empty line, not at the id
    this.reconnectionTime = null        // milliseconds; null: the server has not said
    this.reset()
  }

  /** The connection is gone and the next chunk is the first of a new one. The reconnection time and the last event ID stay. */
  reset() {
    this.#lines = new LineSplitter()
    // Deviation: 9.2.6 begins every stream with an empty ID buffer. Browsers carry the ID over, and so do we.
    this.buffers = { data: "", type: "", id: this.lastEventId }
  }

  get pending() { return this.#lines.pending }

  /** The steps that this chunk completes. */
  feed(chunk) {
    return this.#lines.feed(chunk).map((piece) => this.#step(piece))
  }

  /** The body has ended: a step for what is lost by that, or none. */
  end() {
    const { data, type, id } = this.buffers, line = this.pending, end = this.#lines.offset
    this.reset()
    if (!data && !type && id === this.lastEventId && !line.length) return []
    return [this.#made("unfinished", { line, start: end - line.length, end })]
  }

  #step(piece) {
    const { kind, line } = piece
    if (kind !== "line") return this.#made(kind, piece)
    if (!line.length) return this.#dispatch(piece)
    const colon = line.indexOf(COLON)
    const valueAt = colon < 0 ? line.length : colon + (line[colon + 1] === SPACE ? 2 : 1)
    const name = decoder.decode(colon < 0 ? line : line.subarray(0, colon))
    const value = decoder.decode(line.subarray(valueAt))
    const field = { name, value, colon, valueAt }
    return this.#made(this.#field(name, value), piece, field)
  }

  /** Apply a field; the name of the rule that it followed. */
  #field(name, value) {
    const { data } = this.buffers
    if (name === "") return "comment"
    if (name === "data") this.buffers = { ...this.buffers, data: data + value + "\n" }
    else if (name === "event") this.buffers = { ...this.buffers, type: value }
    else if (name === "id" && value.includes("\0")) return "id with NUL"
    else if (name === "id") this.buffers = { ...this.buffers, id: value }
    else if (name === "retry" && !/^[0-9]+$/.test(value)) return "retry ignored"
    else if (name === "retry") this.reconnectionTime = Math.min(Number(value), Number.MAX_SAFE_INTEGER)
    else return "unknown"
    return name
  }

  #dispatch(piece) {
    const { data, type, id } = this.buffers
    this.lastEventId = id
    this.buffers = { data: "", type: "", id }
    if (!data) return this.#made("no data", piece)
    const event = { type: type || "message", data: data.slice(0, -1), lastEventId: id }
    return this.#made("dispatch", piece, { event })
  }

  #made(rule, { line, start, end }, more = {}) {
    const { buffers, lastEventId, reconnectionTime } = this
    return { rule, line, start, end, buffers: { ...buffers, lastEventId, reconnectionTime }, ...more }
  }
}

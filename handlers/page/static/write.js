// Write your own: bytes with escapes, parsed as one types; a link to them; a case for tests/vectors.json.

import { $, count, h } from "./dom.js"
import { hex, parsed } from "./bytes.js"
import { copy } from "./snippet.js"
import { Parser } from "./parser.js"
import { Recording } from "./recording.js"

const FIRST = "id: a.1\\n\nevent: price\\n\ndata: 12.5\\n\n\\n\ndata: the same id still\\n\n\\n\n"

export function write(wire, go) {
  const editor = $("#editor"), says = $("#editor-says")
  let bytes = new Uint8Array()

  editor.addEventListener("input", read)
  $("#permalink").addEventListener("click", ({ target }) => {
    go(encodeURIComponent(editor.value))
    copy(location.href, target)
  })
  $("#vector").addEventListener("click", ({ target }) => copy(vector(bytes), target))

  function read() {
    try {
      bytes = parsed(editor.value)
    } catch (error) {
      says.replaceChildren(h("span.bad", {}, error.message))
      return
    }
    const recording = new Recording("Your own bytes")
    if (bytes.length) recording.chunk(bytes)
    recording.end("the end of your bytes")
    wire.show(recording, { follow: false })
    says.textContent = `${count(bytes.length, "byte")}, ${count(recording.events.length, "event")}; cut anywhere, it comes out ${everywhere(bytes) ? "the same" : "otherwise"}`
  }

  return (rest) => {
    if (rest) editor.value = rest
    else if (!editor.value) editor.value = FIRST
    read()
  }
}

/** The events, the last event ID and the reconnection time. */
function run(...chunks) {
  const parser = new Parser(), steps = chunks.flatMap((chunk) => parser.feed(chunk))
  const events = steps.flatMap(({ event }) => event ? [[event.type, event.data, event.lastEventId]] : [])
  return [events, parser.lastEventId, parser.reconnectionTime]
}

/** Whether it comes out the same wherever the bytes are cut in two. Limit: only the first 2000 places are tried. */
function everywhere(bytes) {
  const whole = JSON.stringify(run(bytes))
  return bytes.subarray(0, 2000).every((_, at) => JSON.stringify(run(bytes.subarray(0, at), bytes.subarray(at))) === whole)
}

/** A case of tests/vectors.json. */
function vector(bytes) {
  const [events, last, time] = run(bytes)
  let text = null
  try { text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes) } catch { /* its bytes, then */ }
  const body = text === null ? `"hex": "${[...bytes].map(hex).join(" ")}"` : `"text": ${JSON.stringify(text)}`
  return `{"section": "9.2.6", "name": "…",\n "${body.slice(1)},\n "events": ${JSON.stringify(events)}, "last_event_id": ${JSON.stringify(last)}, "reconnection_time": ${time}}`
}

// The same answer in every format that the sidecar has (GET /chat/formats): side by side, and in the wire view when chosen.

import { $, count, h, size } from "./dom.js"
import { json } from "./api.js"
import { escaped } from "./bytes.js"
import { Client } from "./client.js"
import { Recording } from "./recording.js"

export function formats(wire) {
  const out = $("#formats-out")
  let shown = null

  async function load() {
    const { formats } = await json("chat/formats")
    const recordings = await Promise.all(formats.map((name) => {
      const path = `chat/formats/${name}`
      return new Client({ path }, { recording: new Recording(`GET /${path}`) }).done
    }))
    out.replaceChildren(...formats.map((name, index) => card(name, recordings[index])))
    choose(recordings[0])
  }

  function choose(recording) {
    shown = recording
    wire.show(recording, { follow: false })
  }

  function card(name, recording) {
    const lines = recording.rows.filter(({ kind }) => kind === "step").map(({ start, end }) => escaped(recording.bytes(start, end)))
    const button = h("button.small", { onclick: () => choose(recording) }, "Show")
    return h(".card", {}, h("h3", {}, name), h("p.state", {}, `${count(recording.events.length, "event")} · ${size(recording.size)} `, button),
      h("pre.lines", { tabIndex: 0, "aria-label": `The lines of ${name}` }, lines.join("\n")))
  }

  return () => {
    if (shown) wire.show(shown, { follow: false })
    else load().catch((error) => out.replaceChildren(h("p.bad", { role: "alert" }, error.message)))
  }
}

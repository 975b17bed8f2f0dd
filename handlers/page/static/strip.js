// The strip: this sidecar's own state, an event stream like any other (GET /lab/state).

import { count, h } from "./dom.js"
import { ask } from "./api.js"
import { Client } from "./client.js"

export function strip(root) {
  const [lamp, says] = root.children
  let client = null

  function begin() {
    client?.close()
    client = new Client({ path: "lab/state" }, { resume: "lab/state", over: () => false, onevent: tell, onstate: (state) => become(state) })
  }

  function tell({ type, data }) {
    if (type !== "message") return
    const { upstream, running, watchers, version, token } = JSON.parse(data)
    const more = h("span.more-says", {}, ` · ${count(watchers, "watcher")} · ${version}${token ? " · token set" : ""}`)
    says.replaceChildren(upstream === "demo" ? "demo model" : upstream, ` · ${count(running, "stream")}`, more)
    root.title = "Streams that run, and connections that watch; this strip is one of them."
  }

  function become(state) {
    lamp.className = `lamp ${state}`
    if (state === "closed" && client?.headers) says.replaceChildren(h("button", { onclick: ask }, "Give the token"))
    else if (state !== "open") says.textContent = "connecting"
  }

  document.addEventListener("token", begin)
  begin()
}

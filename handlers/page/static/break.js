// Break it: a job that counts, watched by this browser's own EventSource and by the wire view's client. The server drops their
// connections, or they go away and come back; each watcher's lane shows what it has got over which connection.

import { $, h } from "./dom.js"
import { json } from "./api.js"
import { Client } from "./client.js"
import { Watched } from "./lessons.js"
import { Recording } from "./recording.js"

const PARAMS = { count: 150, interval: 0.2 }
const TYPES = ["cancelled", "gap", "connected"]

export function breakIt(wire) {
  const out = $("#break-out")
  let run = null
  const tell = (error) => out.prepend(h("p.bad", { role: "alert" }, error.message))
  for (const name of ["drop", "offline", "second", "cancel"])
    $(`#break-${name}`).addEventListener("click", ({ target }) => run[name](target).catch(tell))
  $("#break-start").addEventListener("click", async () => {
    run?.close()
    try {
      run = new Run(wire, out, await json("jobs", { method: "POST", body: { kind: "steps", params: PARAMS } }))
    } catch (error) { tell(error) }
  })
  return () => { if (run) wire.show(run.client.recording) }
}

class Run {
  constructor(wire, out, { job_id: id, key }) {
    Object.assign(this, { key, path: `streams/${id}`, begun: performance.now() })
    this.log = h("ol.log", { tabIndex: 0, "aria-label": "What EventSource did" })
    this.first = new Lane("EventSource")
    this.others = h("div")
    const raw = new Lane("The wire")
    out.replaceChildren(this.first.element, raw.element, this.others, h("h3", {}, "What EventSource does"), h(".card", {}, this.log))
    const recording = new Recording(`GET /${this.path}`)
    this.client = new Client({ path: this.path }, { recording, resume: this.path,
      onevent: (event) => raw.take(event, recording.connections.length) })
    wire.show(recording)
    this.source = this.#watch(this.path, this.first, (text) => this.#say(text))
    this.#enable({ drop: true, offline: true, second: true, cancel: false })
    this.client.done.then(() => this.#enable({ drop: false, offline: false, second: false, cancel: false }))
  }

  /** An EventSource with a lane of its own. say: told each change of its state. */
  #watch(path, lane, say) {
    let told = 0, taken = 0
    lane.connection++
    return new Watched(path, TYPES, ({ events, states }) => {
      for (const event of events.slice(taken)) taken++, lane.take(event)
      for (const what of states.slice(told)) {
        told++
        if (what.endsWith("again")) {
          lane.connection++
          say(`the body ended: ${what}. After the reconnection time it asks with Last-Event-ID: ${lane.last || "(none)"}`)
        } else if (what === "OPEN" && lane.last) say(`OPEN again, and goes on after ${lane.last}`)
        else say(lane.last.endsWith(".end") ? "204: CLOSED, for good" : what)
      }
    })
  }

  #say(text) {
    this.log.append(h("li", {}, h("time", {}, ((performance.now() - this.begun) / 1000).toFixed(2)), h("span", {}, text)))
    this.log.scrollTop = this.log.scrollHeight
  }

  #enable(buttons) {
    for (const [name, enabled] of Object.entries(buttons)) $(`#break-${name}`).disabled = !enabled
  }

  #delete(path) { return json(path, { method: "DELETE", headers: { "Stream-Key": this.key } }) }

  /** The server ends the connections that watch; the stream goes on. */
  async drop() {
    this.#say("the server drops all connections")
    await this.#delete(`${this.path}/watchers`)
  }

  /** What becomes of a page that sleeps, or of a phone in a tunnel; when it comes back, its URL says what it has. */
  async offline(button) {
    const away = button.textContent === "Go offline"
    button.textContent = away ? "Come back" : "Go offline"
    if (away) {
      this.source.close()
      return this.#say("offline: the EventSource is closed. The job goes on")
    }
    const path = `${this.path}?last_event_id=${this.first.last}`
    this.#say(`a new EventSource can set no header, so it asks for /${path}`)
    this.source = this.#watch(path, this.first, (text) => this.#say(text))
  }

  async second() {
    const lane = new Lane("Second watcher")
    this.others.append(lane.element)
    this.#say("a second watcher: it gets everything from the first event on")
    this.more = this.#watch(this.path, lane, () => {})
    this.#enable({ second: false, cancel: true })
  }

  async cancel() {
    this.#say("the second watcher cancels: the job really stops")
    await this.#delete(this.path)
  }

  close() {
    for (const watcher of [this.client, this.source, this.more]) watcher?.close()
    $("#break-offline").textContent = "Go offline"
  }
}

/** What one watcher has got: a cell for each event, in two colours by turns, one for each connection. */
class Lane {
  last = ""
  connection = 0
  cells = h(".cells")

  constructor(title) { this.element = h(".lane", {}, h("strong", {}, title), this.cells) }

  take({ data, lastEventId }, connection = this.connection) {
    this.last = lastEventId
    const number = lastEventId.split(".").at(-1)
    const kind = number === "end" ? ".end" : connection % 2 ? "" : ".second"
    if (number !== "0") this.cells.append(h(`span.cell${kind}`, { title: data.slice(0, 200) }, number))
  }
}

// Break it: a job that counts, watched by this browser's own EventSource and by the wire view's client. The server drops their
// connections, or they go away and come back; each watcher's lane shows what it has got over which connection.

import { $, h } from "./dom.js"
import { json } from "./api.js"
import { Client } from "./client.js"
import { Watched } from "./lessons.js"
import { Recording } from "./recording.js"

const STEPS = { count: 150, interval: 0.2 }
const TYPES = ["cancelled", "gap", "connected"]

export function breakIt(wire) {
  const buttons = Object.fromEntries(["start", "drop", "offline", "second", "cancel"].map((name) => [name, $(`#break-${name}`)]))
  const out = $("#break-out")
  let run = null

  buttons.start.addEventListener("click", () => start().catch(tell))
  buttons.drop.addEventListener("click", () => run.drop().catch(tell))
  buttons.offline.addEventListener("click", () => run.offline())
  buttons.second.addEventListener("click", () => run.second())
  buttons.cancel.addEventListener("click", () => run.cancel().catch(tell))

  async function start() {
    run?.close()
    const { job_id: id, key } = await json("jobs", { method: "POST", body: { kind: "steps", params: STEPS } })
    run = new Run(wire, out, buttons, id, key)
  }

  function tell(error) { out.prepend(h("p.bad", { role: "alert" }, error.message)) }

  return () => { if (run) wire.show(run.client.recording) }
}

class Run {
  constructor(wire, out, buttons, id, key) {
    Object.assign(this, { buttons, id, key, path: `streams/${id}`, begun: performance.now() })
    this.log = h("ol.log", { tabIndex: 0, "aria-label": "What EventSource did" })
    this.first = new Lane("EventSource")
    this.others = h("div")
    this.raw = new Lane("The wire")
    out.replaceChildren(this.first.element, this.raw.element, this.others, h("h3", {}, "What EventSource does"), h(".card", {}, this.log))
    this.client = new Client({ path: this.path }, { recording: new Recording(`GET /${this.path}`), resume: this.path,
      onevent: (event) => this.raw.take(event, this.client.recording.connections.length) })
    wire.show(this.client.recording)
    this.source = this.#watch(this.path, this.first, (text) => this.#say(text))
    for (const name of ["drop", "offline", "second"]) buttons[name].disabled = false
    buttons.cancel.disabled = true
    this.client.done.then(() => this.#over())
  }

  /** An EventSource on the stream, with a lane of its own. say: told each change of its state. */
  #watch(path, lane, say) {
    let told = 0, taken = 0
    return new Watched(path, { types: TYPES, onchange: (watched) => {
      for (const event of watched.events.slice(taken)) {
        taken++
        lane.take(event)
        if (/\.end$/.test(event.lastEventId)) say(`${event.type === "message" ? event.data : event.type}: the last event. EventSource will come back all the same`)
      }
      for (const [, what] of watched.states.slice(told)) {
        told++
        if (what === "CONNECTING") lane.connection++
        if (what === "error, CONNECTING again") {
          lane.connection++
          say(`the body ended: ${what}. It waits for the reconnection time, then asks with Last-Event-ID: ${lane.last || "(none)"}`)
        } else if (what.startsWith("error")) say(/\.end$/.test(lane.last) ? "204: CLOSED, for good" : what)
        else if (what === "OPEN" && lane.last) this.#resumed(lane, say)
        else say(what)
      }
    } })
  }

  /** The server's word for where a watcher has gone on. */
  async #resumed(lane, say) {
    const from = lane.last
    say(`OPEN again, and goes on after ${from}`)
    const { resumes } = await json(this.path)
    say(`the stream’s state says: ${resumes} resumed so far`)
  }

  #say(text) {
    this.log.append(h("li", {}, h("time", {}, ((performance.now() - this.begun) / 1000).toFixed(2)), h("span", {}, text)))
    this.log.scrollTop = this.log.scrollHeight
  }

  /** The server ends the connections that watch; the stream goes on. */
  async drop() {
    this.#say("the server drops all connections")
    await json(`${this.path}/watchers`, { method: "DELETE", headers: { "Stream-Key": this.key } })
  }

  /** What a phone does in a tunnel, or a page that was put to sleep; then, as a page that comes back: it says in the URL what it has. */
  offline() {
    const { buttons: { offline } } = this
    if (offline.textContent === "Go offline") {
      this.source.close()
      offline.textContent = "Come back"
      return this.#say("offline: the EventSource is closed. The job goes on")
    }
    offline.textContent = "Go offline"
    this.first.connection++
    const path = `${this.path}?last_event_id=${this.first.last}`
    this.#say(`a new EventSource can set no header, so it asks for /${path}`)
    this.source = this.#watch(path, this.first, (text) => this.#say(text))
  }

  second() {
    const lane = new Lane(`Watcher ${this.others.children.length + 2}`)
    this.others.append(lane.element)
    this.#say("a second watcher: it gets everything from the first event on")
    this.more = this.#watch(this.path, lane, () => {})
    this.buttons.second.disabled = true
    this.buttons.cancel.disabled = false
  }

  async cancel() {
    this.#say("the second watcher cancels: the job really stops")
    await json(this.path, { method: "DELETE", headers: { "Stream-Key": this.key } })
  }

  #over() {
    for (const name of ["drop", "offline", "second", "cancel"]) this.buttons[name].disabled = true
  }

  close() {
    for (const watcher of [this.client, this.source, this.more]) watcher?.close()
    this.buttons.offline.textContent = "Go offline"
    this.#over()
  }
}

/** What one watcher has got: a cell for each event, in two colours by turns, one for each connection. */
class Lane {
  last = ""
  connection = 0

  constructor(title) {
    this.cells = h(".cells")
    this.element = h(".lane", {}, h("strong", {}, title), this.cells)
  }

  take({ data, lastEventId }, connection = this.connection) {
    this.last = lastEventId
    const number = lastEventId.split(".").at(-1)
    if (number === "0") return
    const kind = number === "end" ? ".end" : connection % 2 ? "" : ".second"
    this.cells.append(h(`span.cell${kind}`, { title: data.slice(0, 200) }, number))
  }
}

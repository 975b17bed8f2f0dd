// The lessons: the server plays one, this page's parser and this browser's EventSource read it at the same time, each over a
// connection of its own, and a table says what other clients make of the same bytes.

import { $, h } from "./dom.js"
import { url } from "./api.js"
import { Client } from "./client.js"
import { Recording } from "./recording.js"

const data = Promise.all(["lessons", "clients"].map((name) => fetch(url(`page/${name}.json`)).then((answer) => answer.json())))

/** An EventSource, and all that it fires. types: those beside message that are listened for. */
export class Watched {
  events = []
  states = []    // in words

  constructor(path, types, onchange) {
    const state = (what) => { this.states.push(what); onchange(this) }
    this.source = new EventSource(url(path))
    state("CONNECTING")
    this.source.onopen = () => state("OPEN")
    const take = ({ type, data, lastEventId }) => { this.events.push({ type, data, lastEventId }); onchange(this) }
    for (const type of ["message", ...types]) this.source.addEventListener(type, take)
    this.source.addEventListener("error", (event) => {
      if (event.data !== undefined) return take(event)
      const { readyState } = this.source
      state(readyState === EventSource.CLOSED ? "error, CLOSED for good" : "error, CONNECTING again")
      if (readyState === EventSource.CLOSED) this.#closed()
    })
    this.closed = new Promise((resolve) => { this.#closed = resolve })
  }

  #closed

  close() {
    this.source.close()
    this.#closed()
  }
}

const TYPES = ["end", "price"]   // that lessons use

export function lessons(wire, go) {
  const list = $("#lesson-list"), article = $("#lesson")
  let playing = null

  data.then(([{ lessons }]) => list.replaceChildren(...lessons.map(({ name, title }, index) =>
    h("button", { onclick: () => go(name), id: `lesson-${name}` }, h("span.number", {}, `${index + 1}`), title))))

  async function show(name) {
    const [{ lessons }, clients] = await data
    const lesson = lessons.find((candidate) => candidate.name === name) ?? lessons[0]
    for (const button of list.children) button.setAttribute("aria-current", button.id === `lesson-${lesson.name}`)
    playing?.stop()
    playing = null
    const results = h(".results", { role: "status" })
    const play = h("button.primary", { onclick: () => start(lesson, results) }, "Play")
    const text = encodeURIComponent(lesson.plays["*"].map(([, bytes]) => bytes).join("\n"))
    article.replaceChildren(
      h("h3", {}, lesson.title), h("p", {}, lesson.before), h("p", {}, h("strong", {}, "Look at this. "), lesson.look),
      h(".buttons", {}, play, text && h("a", { href: `#write/${text}` }, "Edit these bytes")), results, h("h3", {}, "What well-known clients make of it"), table(lesson, clients))
  }

  /** Play it. results: the element that says what came. */
  async function start(lesson, results) {
    playing?.stop()
    const path = `lab/${lesson.name}`
    const ours = h("ol"), theirs = h("ol"), verdict = h("p.state", {}, "playing")
    results.replaceChildren(h(".both", {}, h(".card", {}, h("h3", {}, "This page’s parser"), ours),
      h(".card", {}, h("h3", {}, "This browser’s EventSource"), theirs)), verdict)
    const recording = new Recording(`GET /${path}`)
    const client = new Client({ path }, { recording, resume: path, over: () => false,
      onevent: () => ours.replaceChildren(...recording.events.map(item)) })
    const watched = new Watched(path, TYPES, ({ events, states }) => theirs.replaceChildren(...events.map(item), h("li.state", {}, states.at(-1))))
    const mine = playing = { stop() { client.close(); watched.close() } }
    wire.show(recording)
    await ended(lesson, client, watched)
    mine.stop()
    const same = JSON.stringify(recording.events.map(essence)) === JSON.stringify(watched.events.map(essence))
    verdict.replaceChildren(h(`span.${same ? "good" : "bad"}`, {}, same ? `✓ The same, event for event: ${watched.events.length}.` : "✗ They differ."))
    article.dataset.same = same
  }

  return show
}

/** A lesson with an end comes to it; one whose body only ends would be played for ever, and is left when both have it. */
async function ended({ plays, type }, { done, recording }, { closed, source }) {
  const once = (target, name) => new Promise((resolve) => {
    const look = () => { if (target === source || recording.connections[0]?.ended) resolve() }
    target.addEventListener(name, look)
  })
  await Promise.all(Object.keys(plays).length > 1 || type ? [done, closed] : [once(recording, "change"), once(source, "error")])
}

const essence = ({ type, data, lastEventId }) => [type, data, lastEventId]
const item = ({ type, data, lastEventId }) => h("li", {}, h("span.type", {}, type), h("code", {}, JSON.stringify(data)), lastEventId ? ` id ${lastEventId}` : "")

function table(lesson, { clients, vectors, lessons }) {
  const found = lessons[lesson.name]
  const rows = clients.map(({ name, title, version, right }) => h("tr", {},
    h("th", { scope: "row" }, title, version ? h("span.aside", {}, ` ${version}`) : ""), outcome(found, name), h("td.aside", {}, `${right} of ${vectors}`)))
  return h(".scroll", { tabIndex: 0, role: "region", "aria-label": "What clients make of it" }, h("table", {},
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Client"), h("th", { scope: "col" }, "Dispatches"),
      h("th", { scope: "col", title: "Cases of tests/vectors.json that it gets right" }, "Vectors right"))), h("tbody", {}, ...rows)))
}

/** What a client makes of a lesson: clients.json has it only where that isn't what the standard says. */
function outcome(found, name) {
  const own = found[name] ?? found.standard
  const same = JSON.stringify(own) === JSON.stringify(found.standard)
  const list = own.error ? `fails: ${own.error}` : own.events.length ? h("code", {}, own.events.map(([type, data, id]) => `${type} ${JSON.stringify(data)}${id ? ` id ${id}` : ""}`).join("\n")) : "nothing"
  if (name === "standard") return h("td", {}, list)
  return h("td", {}, same ? h("span.good", {}, "✓ as the standard says") : h("span", {}, h("span.bad", {}, "✗ "), list))
}

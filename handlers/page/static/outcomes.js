// What streams say, for people: a chat with its stages and tools, a job's progress, merged sources, any events. Each part of it is
// linked to the event that brought it: pointing at one shows its bytes.

import { coalesced, h } from "./dom.js"

class Outcome {
  element = h("div")
  #parts = new Map()   // block -> elements

  /** An element that belongs to an event. */
  link(event, element) {
    const { recording, wire } = this
    if (!this.#parts.size) recording.addEventListener("light", ({ detail }) => this.#light(detail))
    if (!this.#parts.has(event.block)) this.#parts.set(event.block, [])
    this.#parts.get(event.block).push(element)
    element.classList.add("link")
    element.addEventListener("pointerenter", () => wire.reveal(event))
    element.addEventListener("pointerleave", () => recording.light(-1))
    element.addEventListener("click", () => wire.select(event.row))
    return element
  }

  #lit = -1
  #light(block) {
    for (const element of this.#parts.get(this.#lit) ?? []) element.classList.remove("lit")
    for (const element of this.#parts.get(block) ?? []) element.classList.add("lit")
    this.#lit = block
  }
}

/** The typed format: stages, each a request to the model; tools between them. */
export class Chat extends Outcome {
  #stages = new Map()
  #end = h("p.state", {}, "waiting")

  constructor() {
    super()
    this.element.append(this.#end)
  }

  event(event) {
    const payload = JSON.parse(event.data)
    this.stage = this.#stage(payload.stage_id)
    switch (event.type) {
      case "chat_completion_chunk": return this.#chunk(event, payload.chunk)
      case "tool_summary": return this.#tools(event, payload.tool_summary)
      case "cancel": return this.#say("warn", `cancelled: ${payload.reason}`)
      case "error": return this.#say("bad", `failed: ${payload.error}`)
      case "gap": return this.#say("warn", `events ${payload.first} to ${payload.last} are lost`)
      case "done": if (payload.final) this.#say("good", `done: ${payload.finish_reason}, ${payload.usage?.total_tokens ?? "?"} tokens`)
    }
  }

  #stage(id) {
    if (!this.#stages.has(id)) {
      const stage = { card: h(".card", {}, h("h3", {}, `Stage ${id}`)), reasoning: h("p.reasoning"), calls: h("div"), text: h("p.answer") }
      stage.card.append(stage.reasoning, stage.calls, stage.text)
      this.#end.before(stage.card)
      this.#stages.set(id, stage)
      this.#say("", "streaming")
    }
    return this.#stages.get(id)
  }

  #chunk(event, { choices: [choice] }) {
    const delta = choice?.delta ?? {}, reasoning = delta.reasoning_content ?? delta.reasoning
    if (reasoning) this.stage.reasoning.append(this.link(event, h("span", {}, reasoning)))
    if (delta.content) this.stage.text.append(this.link(event, h("span", {}, delta.content)))
    for (const { index = 0, function: called = {} } of delta.tool_calls ?? []) {
      if (called.name) this.stage.calls.append(h(".call", {}, h("span.name", {}, called.name), h("span"), h("span", {}, "…")))
      const call = this.stage.calls.children[index]
      if (called.arguments && call) call.children[1].append(this.link(event, h("span", {}, called.arguments)))
    }
  }

  #tools(event, { calls }) {
    calls.forEach(({ ok, result, error, duration_ms: time }, index) => {
      const place = this.stage.calls.children[index]?.children[2]
      place?.replaceChildren(this.link(event, h(`span${ok ? ".good" : ".bad"}`, {}, `→ ${ok ? JSON.stringify(result) : error}`)), ` ${time} ms`)
    })
  }

  #say(kind, text) { this.#end.replaceChildren(h(`span${kind && `.${kind}`}`, {}, text)) }
}

/** A job's progress. */
export class Job extends Outcome {
  #bar = h("progress", { max: 100, value: 0, "aria-label": "Progress" })
  #says = h("p.state", {}, "waiting")

  constructor() {
    super()
    this.element.append(h(".card", {}, this.#bar, this.#says))
  }

  event(event) {
    if (event.data === "[DONE]") return this.#say(event, "good", "done")
    const payload = JSON.parse(event.data)
    if (event.type === "cancelled") this.#say(event, "warn", `cancelled at ${Math.round(this.#bar.value)} %`)
    else if (event.type === "error") this.#say(event, "bad", `failed: ${payload.error}`)
    else if (payload.progress !== undefined) {
      this.#bar.value = payload.progress
      this.#say(event, "", payload.message ?? `${Math.round(payload.progress)} %`)
    }
  }

  #say(event, kind, text) { this.#says.replaceChildren(this.link(event, h(`span${kind && `.${kind}`}`, {}, text))) }
}

/** Numbered cells for each source, in the order of arrival. */
export class Merged extends Outcome {
  #cells

  constructor(ids) {
    super()
    this.#cells = new Map(ids.map((id) => [id, h(".cells")]))
    for (const [id, cells] of this.#cells) this.element.append(h(".lane", {}, h("code", {}, `${id.slice(0, 8)}…`), cells))
  }

  event(event) {
    const { stream } = JSON.parse(event.data)
    const position = event.lastEventId.split("-")[[...this.#cells.keys()].indexOf(stream)]
    this.#cells.get(stream)?.append(this.link(event, h(`span.cell${position === "end" ? ".end" : ""}`, {}, position)))
  }
}

/** Any events, as they come. */
export class Events extends Outcome {
  #list = h("ol.log")
  #says = h("p.state")
  #toEnd = coalesced(() => { this.#list.scrollTop = this.#list.scrollHeight })

  constructor() {
    super()
    this.element.append(h(".card", {}, this.#list), this.#says)
  }

  event(event) {
    const button = h("li", {}, h("time", {}, (event.at / 1000).toFixed(2)), h("span", {}, event.type === "message" ? "" : h("strong", {}, `${event.type} `), event.data.slice(0, 400)))
    this.#list.append(this.link(event, button))
    if (this.#list.children.length > 500) this.#list.firstChild.remove()
    this.#toEnd()
  }

  state(state) { this.#says.textContent = state }
}

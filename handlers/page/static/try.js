// Try it: start a chat, a job, a merge, a stream of one's own, or watch any stream; what it says, as it happens.

import { $, $$, h, tabs } from "./dom.js"
import { json } from "./api.js"
import { Client } from "./client.js"
import { Recording } from "./recording.js"
import { snippet } from "./snippet.js"
import { Chat, Events, Job, Merged } from "./outcomes.js"

const streamOf = (headers) => headers?.get("location")?.split("/").pop()
const keyed = (key) => ({ "Stream-Key": key })

export function tryIt(wire, go) {
  const outcome = $("#outcome"), code = snippet($("#code"))
  let kind = "chat"
  let run = null   // {client, stop}: what goes on

  const kinds = tabs($("#kinds"), (tab) => {
    if (tab.id === kind) return
    go(tab.id)
  })
  for (const [name, start] of Object.entries({ chat, job, merge, publish, any })) {
    const form = $(`#${name}-form`)
    form.addEventListener("submit", (event) => { event.preventDefault(); begin(form, start) })
    $(".stop", form).addEventListener("click", () => run?.stop().catch(tell))
  }

  async function begin(form, start) {
    run?.client.close()
    outcome.replaceChildren()
    try {
      run = { form, ...await start(form) }
    } catch (error) {
      return tell(error)
    }
    const { client } = run, buttons = $$(".stop, .post", form)
    for (const button of buttons) button.disabled = false
    wire.show(client.recording)
    await client.done
    if (client.failure) tell(new Error(client.failure))
    if (run.form !== form || run.client === client) for (const button of buttons) button.disabled = true
  }

  function tell(error) {
    let { message } = error
    try { message = JSON.parse(message).detail ?? message } catch { /* as it is */ }
    outcome.append(h("p.bad", { role: "alert" }, message))
  }

  /** Watch, and show with `view`. request: what would be sent from elsewhere. */
  function watch(request, view, options = {}) {
    const recording = new Recording(`${request.method ?? "GET"} /${request.path}`)
    view.wire = wire
    view.recording = recording
    outcome.append(view.element)
    code.show(request)
    return new Client(request, { recording, onevent: (event) => view.event(event), onstate: (state) => view.state?.(state), ...options })
  }

  async function chat(form) {
    const tools = $$("[name=tool]:checked", form).map(({ value }) => value)
    const body = { prompt: $("#prompt").value, ...tools.length && { tools } }
    const request = { method: "POST", path: "chat", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) }
    const client = watch(request, new Chat(), { resume: (headers) => `streams/${streamOf(headers)}` })
    const stop = () => json(`streams/${streamOf(client.headers)}`, { method: "DELETE", headers: keyed(client.headers.get("stream-key")) })
    return { client, stop }
  }

  async function startJob(count, interval) {
    return json("jobs", { method: "POST", body: { kind: "steps", params: { count, interval } } })
  }

  async function job(form) {
    const started = await startJob(form.count.valueAsNumber, form.interval.valueAsNumber)
    const path = `jobs/${started.job_id}/progress`
    const client = watch({ path }, new Job(), { resume: path })
    return { client, stop: () => json(`jobs/${started.job_id}`, { method: "DELETE", headers: keyed(started.key) }) }
  }

  async function merge() {
    const jobs = await Promise.all([startJob(24, 0.12), startJob(14, 0.3)])
    const ids = jobs.map(({ job_id }) => job_id), path = `merge?streams=${ids}`
    const client = watch({ path }, new Merged(ids), { resume: path })
    const stop = () => Promise.all(jobs.map(({ job_id, key }) => json(`jobs/${job_id}`, { method: "DELETE", headers: keyed(key) })))
    return { client, stop }
  }

  async function publish(form) {
    const { stream_id: id, key } = await json("streams", { method: "POST", body: { linger: 60, ttl: 600 } })
    const path = `streams/${id}`
    const client = watch({ path }, new Events(), { resume: path })
    $(".post", form).onclick = () => {
      const { data, event } = form
      let value = data.value
      try { value = JSON.parse(value) } catch { /* a text */ }
      json(`${path}/events`, { method: "POST", headers: keyed(key), body: { data: value, ...event.value && { event: event.value } } }).catch(tell)
    }
    return { client, stop: () => json(`${path}/close`, { method: "POST", headers: keyed(key) }) }
  }

  async function any() {
    const wanted = $("#address").value.trim()
    const path = /^[A-Za-z0-9_-]{22}$/.test(wanted) ? `streams/${wanted}` : wanted.replace(location.origin, "").replace(/^\//, "")
    if (/^[a-z]+:\/\//i.test(path)) throw new Error("This page can only ask the sidecar that it came from; `python -m sse tail URL` watches others.")
    const client = watch({ path }, new Events(), { resume: path })
    return { client, stop: async () => client.close() }
  }

  return (rest) => {
    kind = kinds.all.some(({ id }) => id === rest) ? rest : "chat"
    kinds.choose(kind)
    if (run) wire.show(run.client.recording)
  }
}

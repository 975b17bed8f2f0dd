// A chat with AG-UI's client (npm @ag-ui/client) through the sidecar. The client itself can't come back to a run: `fetch` goes
// on where a connection broke, and after a reload the same run is run again, which joins it. docs/front-ends.md

import { HttpAgent } from "@ag-ui/client"
import { reconnecting } from "../robust.js"

const threadId = new URLSearchParams(location.search).get("thread") ?? "first"
const kept = JSON.parse(localStorage.getItem(`thread-${threadId}`) ?? '{"messages":[]}')
const agent = new HttpAgent({ url: "/ag-ui", threadId, initialMessages: kept.messages, fetch: reconnecting })
const list = document.querySelector("main"), state = document.querySelector("output")

function show() {
  list.replaceChildren(...agent.messages.filter(({ content }) => content).map(({ role, content }) => {
    const article = document.createElement("article")
    article.dataset.role = role
    article.textContent = content
    return article
  }))
}

// The messages before the run are kept with its id: what the run adds to them, the sidecar tells again.
async function run(runId) {
  const messages = structuredClone(agent.messages)
  localStorage.setItem(`thread-${threadId}`, JSON.stringify({ messages, runId }))
  state.textContent = "running"
  try {
    await agent.runAgent({ runId, forwardedProps: { tools: ["calculate", "current_time"] } }, {
      onEvent: ({ event }) => { if (event.type === "RUN_FINISHED") state.textContent = event.outcome?.type ?? "success" },
      onMessagesChanged: show,
    })
  } catch (error) { state.textContent = error.message }
}

document.querySelector("form").onsubmit = (event) => {
  event.preventDefault()
  agent.addMessage({ id: crypto.randomUUID(), role: "user", content: new FormData(event.target).get("prompt") })
  event.target.reset()
  show()
  run(crypto.randomUUID())
}
document.querySelector("#stop").onclick = () => fetch(`/ag-ui/${encodeURIComponent(threadId)}/stop`, { method: "POST" })

show()
if (kept.runId) run(kept.runId)

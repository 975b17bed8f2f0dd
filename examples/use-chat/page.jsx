// A chat with useChat (npm @ai-sdk/react) through the sidecar: stop stops, a reload loses nothing, tabs see the same. What differs
// from a page of the AI SDK's own: `api`, the stop button, `fetch`, and what is kept (docs/front-ends.md).

import { useChat } from "@ai-sdk/react"
import { DefaultChatTransport, lastAssistantMessageIsCompleteWithToolCalls } from "ai"
import { useEffect, useRef } from "react"
import { createRoot } from "react-dom/client"
import { reconnecting } from "../robust.js"

const id = new URLSearchParams(location.search).get("chat") ?? "first"
const api = "/ui/chat"
const colour = { type: "function", function: { name: "colour", description: "Ask for the colour.", parameters: { type: "object" } } }
const transport = new DefaultChatTransport({
  api,
  fetch: reconnecting,   // a connection that breaks goes on below useChat, which would call it an error
  body: { tools: ["calculate", "current_time", colour] },
})
const tabs = new BroadcastChannel(`chat-${id}`)
const kept = JSON.parse(localStorage.getItem(`chat-${id}`) ?? "[]")

function Chat() {
  const { messages, setMessages, sendMessage, addToolOutput, resumeStream, status, error } = useChat({
    id, transport, messages: kept, resume: true,
    sendAutomaticallyWhen: lastAssistantMessageIsCompleteWithToolCalls,
    // Of a short answer React may never have shown "streaming".
    onFinish: ({ messages, isError }) => isError || tell(messages, false),
  })
  const asked = useRef(false)
  const tell = (messages, running) => {   // the other tabs, once, of what was asked for here
    if (asked.current) tabs.postMessage({ messages, running })
    asked.current = false
  }

  // What is kept never ends with an answer that is not complete: the sidecar has that, and tells it again.
  useEffect(() => {
    const running = status === "streaming" || status === "submitted"
    const complete = running && messages.at(-1)?.role === "assistant" ? messages.slice(0, -1) : messages
    localStorage.setItem(`chat-${id}`, JSON.stringify(complete))
    if (status === "streaming") tell(complete, true)   // the answer runs, so that the other tabs can watch it
  }, [messages, status])
  useEffect(() => {
    tabs.onmessage = ({ data: { messages, running } }) => {
      setMessages(messages)
      if (running) resumeStream()
    }
  }, [])

  const ask = (event) => {
    event.preventDefault()
    const text = new FormData(event.target).get("prompt")
    event.target.reset()
    asked.current = true
    sendMessage({ text })
  }
  const stop = () => fetch(`${api}/${encodeURIComponent(id)}/stop`, { method: "POST" })   // the work; all tabs are told
  const pick = (part, output) => { asked.current = true; addToolOutput({ tool: "colour", toolCallId: part.toolCallId, output }) }

  return <>
    {messages.map((message) => <article key={message.id} data-role={message.role} data-state={message.metadata?.state}>
      {message.parts.map((part, index) => <Part key={index} part={part} pick={pick} />)}
      {message.metadata?.state === "cancelled" && <p>Stopped.</p>}
    </article>)}
    {error && <p role="alert">{error.message}</p>}
    <form onSubmit={ask}><input name="prompt" aria-label="Message" autoComplete="off" /> <button>Send</button></form>
    <button onClick={stop}>Stop</button> <output>{status}</output>
  </>
}

function Part({ part, pick }) {
  if (part.type === "text") return <p className="text">{part.text}</p>
  if (part.type === "reasoning") return <p className="reasoning"><i>{part.text}</i></p>
  if (part.type === "tool-colour" && part.state === "input-available") {
    return <p className="tool">Which colour? {["red", "blue"].map((name) => (
      <button key={name} onClick={() => pick(part, name)}>{name}</button>))}</p>
  }
  if (part.type === "dynamic-tool" || part.type.startsWith("tool-")) {
    return <p className="tool">{part.toolName ?? part.type.slice(5)}: {part.errorText ?? JSON.stringify(part.output) ?? "…"}</p>
  }
  if (part.type === "data-gap") return <p className="gap">The beginning is no longer held.</p>
  return null
}

createRoot(document.querySelector("main")).render(<Chat />)

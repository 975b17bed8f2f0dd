// What makes a page that reads event streams robust. docs/front-ends.md says of each line why it is needed.

const HEARTBEAT = 15_000   // SIDESTREAM_HEARTBEAT: a connection that has said nothing for longer than that is dead
const PAUSE = 1_000        // before each try, and up to as much again: not all clients come at once

// `fetch`, but where the answer is one of the sidecar's streams, its body goes on after a connection that broke, exactly where
// it was. Whoever reads the body doesn't notice.
export async function reconnecting(input, init = {}) {
  const first = await fetch(input, init)
  const location = first.headers.get("location")
  if (!first.ok || !location || !first.body) return first
  const url = new URL(location, first.url), encoder = new TextEncoder()
  let response = first, last = "", cancelled = false, heard = Date.now(), connection = new AbortController()

  const dead = () => document.visibilityState === "visible" && Date.now() - heard > 2 * HEARTBEAT && connection.abort()
  const elsewhere = () => connection.abort()
  const again = async () => {
    while (true) {
      await awake(PAUSE * (1 + Math.random()))
      connection = new AbortController()
      const signal = AbortSignal.any([connection.signal, ...(init.signal ? [init.signal] : [])])
      try {
        response = await fetch(url, { headers: { "last-event-id": last }, signal })
        if (response.status < 500) return
      } catch (error) { if (init.signal?.aborted) throw error }
    }
  }
  const body = new ReadableStream({
    async start(controller) {
      document.addEventListener("visibilitychange", dead)
      addEventListener("online", elsewhere)
      try {
        while (!cancelled) {
          try {
            for await (const event of events(response, connection.signal)) {
              heard = Date.now()
              last = /^id: (.*)$/m.exec(event)?.[1] ?? last
              controller.enqueue(encoder.encode(event))
            }
          } catch (error) { if (init.signal?.aborted || cancelled) throw error }
          if (last.endsWith(".end")) return controller.close()
          await again()
          if (response.status !== 200) throw new Error(`The answer can't be read any more: ${response.status}.`)
        }
      } catch (error) {
        controller.error(error)
      } finally {
        document.removeEventListener("visibilitychange", dead)
        removeEventListener("online", elsewhere)
      }
    },
    cancel() { cancelled = true; connection.abort() },
  })
  return new Response(body, { status: first.status, headers: first.headers })
}

// The whole events of a body, as texts. What a connection that broke has left of one is not an event: it comes again.
async function* events(response, signal) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader()
  const broken = new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason), { once: true }))
  broken.catch(() => {})
  try {
    for (let text = ""; ;) {
      const { value, done } = await Promise.race([reader.read(), broken])
      if (done) return
      text += value
      for (let end; (end = text.indexOf("\n\n")) >= 0; text = text.slice(end + 2)) yield text.slice(0, end + 2)
      if (text.startsWith(":\n")) { yield ":\n"; text = text.slice(2) }
    }
  } finally { reader.cancel().catch(() => {}) }
}

// A pause that ends early when the network or the user is back.
const awake = (milliseconds) => new Promise((resolve) => {
  const over = new AbortController(), { signal } = over
  const end = () => { over.abort(); resolve() }
  setTimeout(end, milliseconds)
  addEventListener("online", end, { signal })
  document.addEventListener("visibilitychange", end, { signal })
})

// One connection for all tabs: the one that holds the lock reads, all hear. When it closes, the next one reads, from the event
// that was heard last. hear: called in every tab with each {type, data, id}.
export function shared(url, hear, types = ["message"]) {
  const channel = new BroadcastChannel(url)
  let last = ""
  const take = (event) => { last = event.id || last; hear(event) }
  channel.onmessage = ({ data }) => take(data)
  navigator.locks.request(url, () => new Promise((over) => {
    const from = new URL(url, window.location.href)
    if (last) from.searchParams.set("last_event_id", last)
    const source = new EventSource(from)
    for (const type of types) source.addEventListener(type, ({ data, lastEventId }) => {
      if (data === undefined) return   // an error of the connection
      const event = { type, data, id: lastEventId }
      channel.postMessage(event)
      take(event)
    })
    source.addEventListener("error", () => source.readyState === EventSource.CLOSED && over())
  }))
}

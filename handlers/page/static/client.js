// Reading an event stream with fetch, as an EventSource would (9.2.3): every byte, header and wait is seen, which that hides.
//
// In:  a request. Out: a Recording that grows, events as they are dispatched, and the end.
//
//     CONNECTING   200 and text/event-stream      OPEN
//                  any other answer               CLOSED
//                  no connection                  CONNECTING, after the reconnection time
//     OPEN         the body ends or breaks        CONNECTING, after the reconnection time
//     any          close(), or `over` says so     CLOSED

import { authorized, url } from "./api.js"
import { Recording } from "./recording.js"

const RECONNECTION_TIME = 3000   // until the server says one; "a few seconds" (9.2.2)

export class Client {
  headers = null                 // of the newest response
  #abort = new AbortController()
  #wake = () => {}

  /**
   * request: {path, method, headers, body}. resume: a path that takes a Last-Event-ID, for requests that must not be sent twice;
   * or a function of the first response's headers; null: don't come back. over: whether an event is the last.
   */
  constructor(request, { recording = new Recording(), onevent = () => {}, onstate = () => {}, resume = null, over = isEnd } = {}) {
    Object.assign(this, { request, recording, onevent, onstate, resume, over })
    this.done = this.#run()
  }

  /** Stop reading. The server notices that the client is gone; whether the work goes on is its affair (linger). */
  close() {
    this.closed = true
    this.#abort.abort()
    this.#wake()
  }

  async #run() {
    let request = this.request
    while (true) {
      const ended = await this.#connect(request)
      if (ended || this.closed || !this.resume) break
      request = { path: typeof this.resume === "string" ? this.resume : this.resume(this.headers) }
      if (!await this.#wait()) break
    }
    this.onstate("closed")
    return this.recording
  }

  /** One connection; whether it was the last. */
  async #connect({ path, method = "GET", headers = {}, body }) {
    this.onstate("connecting")
    const { parser } = this.recording, last = parser.lastEventId
    const sent = { Accept: "text/event-stream", ...headers, ...last && { "Last-Event-ID": last } }
    this.recording.request(method, path, sent)
    try {
      const response = await authorized(url(path), { method, headers: sent, body, signal: this.#abort.signal, cache: "no-store" })
      this.headers = response.headers
      this.recording.response(response.status, Object.fromEntries(response.headers))
      const type = (response.headers.get("content-type") ?? "").split(";")[0].trim()
      if (response.status !== 200 || type !== "text/event-stream") return await this.#refused(response, type)
      this.onstate("open")
      return await this.#read(response.body.getReader())
    } catch (error) {
      this.recording.end(this.closed ? "closed by this page" : `the connection broke: ${error.message}`)
      return this.closed
    }
  }

  async #read(reader) {
    while (true) {
      const { value, done } = await reader.read()
      if (done) break
      for (const event of this.recording.chunk(value)) {
        try { this.onevent(event) } catch (error) { reportError(error) }   // no fault of the connection
        if (this.over(event)) this.ended = true
      }
    }
    this.recording.end(this.ended ? "the body ended, after the last event" : "the body ended")
    return this.ended
  }

  async #refused(response, type) {
    const text = (await response.text()).trim()
    this.failure = response.status === 204 ? "" : text
    const why = response.status !== 200 ? `${response.status} ends it for good` : `the type is ${type || "not given"}: not an event stream`
    if (text) this.recording.note(text.slice(0, 500))
    this.recording.end(why)
    return true
  }

  /** The reconnection time; false if it was closed meanwhile. */
  async #wait() {
    const time = this.recording.parser.reconnectionTime ?? RECONNECTION_TIME
    this.onstate("connecting")
    this.recording.note(`wait ${time} ms, then come back`)
    await new Promise((resolve) => { this.#wake = resolve; setTimeout(resolve, time) })
    return !this.closed
  }
}

/** The sidecar's terminal events have an id that says so; where there are no ids, [DONE] does. */
const isEnd = ({ lastEventId, data }) => /(^|\.)end(-end)*$/.test(lastEventId) || data === "[DONE]"

// Arrivals over time: a bar for each chunk, as high as it is large, a line for each connection. What a proxy holds back shows as
// an empty stretch with one thick bar at its end.

import { count, seconds } from "./dom.js"

const HEIGHT = 56, FLOOR = 38, LEFT = 12
const STEPS = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600]

export class Timeline {
  constructor(onpick) {
    this.canvas = document.createElement("canvas")
    this.canvas.className = "timeline"
    this.canvas.setAttribute("role", "img")
    this.canvas.addEventListener("click", ({ offsetX }) => {
      const chunk = this.#nearest(offsetX)
      if (chunk && chunk.row < this.recording.rows.length) onpick(chunk.row)
    })
  }

  draw(recording, row) {
    this.recording = recording
    const { canvas } = this, width = canvas.clientWidth, ratio = devicePixelRatio || 1
    if (!width) return
    if (canvas.width !== Math.round(width * ratio)) canvas.width = Math.round(width * ratio), canvas.height = HEIGHT * ratio
    const draw = canvas.getContext("2d"), style = getComputedStyle(canvas), color = (name) => style.getPropertyValue(name)
    draw.setTransform(ratio, 0, 0, ratio, 0, 0)
    draw.clearRect(0, 0, width, HEIGHT)
    this.#scale = (width - 2 * LEFT) / recording.duration
    this.#axis(draw, width, color)
    this.#connections(draw, color)
    this.#bars(draw, color)
    if (row) draw.fillStyle = color("--ink"), draw.fillRect(this.#x(row.at) - 0.5, 2, 1, FLOOR)
    canvas.setAttribute("aria-label", described(recording))
  }

  #scale = 1
  #x(at) { return LEFT + at * this.#scale }

  #axis(draw, width, color) {
    const total = this.recording.duration / 1000
    const step = STEPS.find((candidate) => candidate / total * width > 64) ?? 1200
    draw.font = "11px system-ui, sans-serif"
    for (let at = 0; at <= total; at += step) {
      const x = Math.round(this.#x(at * 1000)) + 0.5
      draw.fillStyle = color("--line")
      draw.fillRect(x - 0.5, 0, 1, FLOOR)
      draw.fillStyle = color("--dim")
      draw.fillText(`${Number(at.toFixed(2))} s`, Math.min(x + 3, width - 32), HEIGHT - 5)
    }
  }

  #connections(draw, color) {
    const { connections, duration } = this.recording
    for (const { begun, opened, ended } of connections) {
      const to = this.#x(ended ?? duration)
      draw.fillStyle = color("--line-strong")
      draw.fillRect(this.#x(begun), FLOOR, Math.max(to - this.#x(begun), 1), 1)
      if (opened === undefined) continue
      draw.fillStyle = color("--accent")
      draw.fillRect(this.#x(opened), FLOOR - 1, Math.max(to - this.#x(opened), 1), 3)
    }
  }

  /** One bar a pixel at most: those of thousands of chunks are put together. */
  #bars(draw, color) {
    const heights = new Map()
    for (const { at, start, end } of this.recording.chunks) {
      const x = Math.round(this.#x(at))
      heights.set(x, (heights.get(x) ?? 0) + end - start)
    }
    draw.fillStyle = color("--accent")
    for (const [x, bytes] of heights) {
      const height = Math.min(FLOOR - 4, 5 + 2.6 * Math.log2(bytes + 1))
      draw.fillRect(x - 1, FLOOR - height, 2, height)
    }
  }

  #nearest(x) {
    const at = (x - LEFT) / this.#scale
    return this.recording?.chunks.reduce((best, chunk) =>
      !best || Math.abs(chunk.at - at) < Math.abs(best.at - at) ? chunk : best, null)
  }
}

/** The same in words. */
function described({ chunks, connections, duration }) {
  let silence = 0
  chunks.forEach(({ at }, index) => { if (index) silence = Math.max(silence, at - chunks[index - 1].at) })
  return `Timeline: ${count(chunks.length, "chunk")} over ${count(connections.length, "connection")} in ${seconds(duration)} seconds; `
    + `the longest silence is ${seconds(silence)} seconds.`
}

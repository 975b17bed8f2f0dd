// An application in Node that streams its own progress through the sidecar:  node examples/publish.mjs
// It prints the URL to watch. Stop the stream (DELETE), and the application learns it by a 410.

const sidecar = process.env.SIDECAR ?? "http://127.0.0.1:8090"
const steps = Number(process.env.STEPS ?? 20), interval = Number(process.env.INTERVAL ?? 250)

const opened = await fetch(`${sidecar}/streams`, { method: "POST" })
const { url, key } = await opened.json()
console.log(sidecar + url)

const post = (path, body) => fetch(`${sidecar}${url}${path}`, {
  method: "POST", body, headers: { "content-type": "application/json", "stream-key": key },
})
for (let step = 1; step <= steps; step++) {
  await new Promise((resolve) => setTimeout(resolve, interval))
  const event = { event: "progress", data: { step, of: steps } }
  const { status } = await post(`/events?first=${step}`, JSON.stringify(event))   // numbered: sent again, it isn't doubled
  if (status === 410) { console.log("stopped"); process.exit() }
}
await post("/close")
console.log("closed")

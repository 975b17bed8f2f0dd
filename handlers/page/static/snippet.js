// The request on screen, as one would write it elsewhere: curl, a browser, Python.

import { $, tabs } from "./dom.js"
import { hasToken, url } from "./api.js"

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`

const LANGUAGES = {
  curl({ method = "GET", path, body }) {
    const parts = ["curl -N"]
    if (hasToken()) parts.push(`-H "Authorization: Bearer $SIDESTREAM_TOKEN"`)
    if (body) parts.push(`-H 'Content-Type: application/json' -d ${quoted(body)}`)
    else if (method !== "GET") parts.push(`-X ${method}`)
    return [...parts, quoted(url(path))].join(parts.length > 1 ? " \\\n     " : " ")
  },
  browser({ method = "GET", path, body }) {
    if (method === "GET") return `const source = new EventSource(${JSON.stringify(url(path))})\nsource.onmessage = ({ data, lastEventId }) => console.log(lastEventId, data)`
    const token = hasToken() ? `,\n             Authorization: \`Bearer \${token}\`` : ""
    return `// In the backend, which keeps the key: it permits cancelling.
const { url, key } = await fetch(${JSON.stringify(url(path))}, {
  method: "POST",
  headers: { "Content-Type": "application/json", Accept: "application/json"${token} },
  body: JSON.stringify(${body}),
}).then((answer) => answer.json())

// In the page
const source = new EventSource(url)`
  },
  python({ method = "GET", path, body }) {
    const more = [...body ? [`json=${body}`] : [], ...hasToken() ? [`headers={"Authorization": f"Bearer {token}"}`] : []]
    return `from sse.client import EventSource

async with EventSource(${[JSON.stringify(url(path)), ...method === "POST" ? [`method="POST"`] : [], ...more].join(", ")}) as source:
    async for event in source:
        print(event.last_event_id, event.type, event.data)`
  },
}

export function snippet(root) {
  let request = null, language = "curl"
  const pre = $("pre", root), panel = $("#snippet", root)
  const list = tabs($("[role=tablist]", root), (tab) => {
    language = tab.id
    panel.setAttribute("aria-labelledby", tab.id)
    panel.hidden = false
    write()
  })
  const write = () => { if (request) pre.textContent = LANGUAGES[language](request) }
  $(".copy", root).addEventListener("click", ({ target }) => copy(pre.textContent, target))
  return { show(what) { request = what; root.hidden = false; list.choose(language); write() } }
}

/** Copy, and say on the button that it is done. */
export async function copy(text, button) {
  const before = button.textContent
  try {
    await navigator.clipboard.writeText(text)
    button.textContent = "Copied"
  } catch {
    button.textContent = "Not allowed here"   // without TLS, elsewhere than on localhost
  }
  setTimeout(() => { button.textContent = before }, 1200)
}

// Making elements. Text is only ever set as text: nothing that came over the wire is read as HTML.

/** h("p.note", {title: "…"}, "text", element, …): properties that begin with "on" are listeners, with "-" attributes. */
export function h(what, properties = {}, ...children) {
  const [tag, ...classes] = what.split(".")
  const element = document.createElement(tag || "div")
  if (classes.length) element.className = classes.join(" ")
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined) continue
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value)
    else if (name.includes("-") || name === "role" || name === "for") element.setAttribute(name, value)
    else element[name] = value
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== false))
  return element
}

export const $ = (selector, root = document) => root.querySelector(selector)
export const $$ = (selector, root = document) => [...root.querySelectorAll(selector)]

/** Call back once in the next frame, however often it is asked for. */
export function coalesced(callback) {
  let asked = false
  return () => {
    if (asked) return
    asked = true
    requestAnimationFrame(() => { asked = false; callback() })
  }
}

/** Buttons of which one is chosen: arrows move, as in any tab list (WAI-ARIA Authoring Practices, "Tabs"). */
export function tabs(list, onchoose) {
  const all = $$("[role=tab]", list)
  const choose = (tab) => {
    for (const other of all) {
      const chosen = other === tab
      other.setAttribute("aria-selected", chosen)
      other.tabIndex = chosen ? 0 : -1
      document.getElementById(other.getAttribute("aria-controls"))?.toggleAttribute("hidden", !chosen)
    }
    onchoose?.(tab)
  }
  list.addEventListener("click", ({ target }) => { const tab = target.closest("[role=tab]"); if (tab) choose(tab) })
  list.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -Infinity, End: Infinity }[event.key]
    if (!step) return
    event.preventDefault()
    const at = all.indexOf(document.activeElement)
    const next = step === -Infinity ? 0 : step === Infinity ? all.length - 1 : (at + step + all.length) % all.length
    all[next].focus()
    choose(all[next])
  })
  return { choose: (id) => choose(all.find((tab) => tab.id === id) ?? all[0]), all }
}

export const count = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`
export const size = (bytes) => bytes < 1024 ? `${bytes} B` : bytes < 1 << 20 ? `${(bytes / 1024).toFixed(1)} KiB` : `${(bytes / (1 << 20)).toFixed(1)} MiB`
export const seconds = (milliseconds) => (milliseconds / 1000).toFixed(milliseconds < 100000 ? 2 : 1)

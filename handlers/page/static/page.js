// The wire lab: the sections, the one wire view that all of them use, and what stands in the address's fragment.
//
//     #try  #lessons/bom  #break  #formats  #write/<bytes, escaped>  #between

import { $, tabs } from "./dom.js"
import { WireView } from "./wire.js"
import { tryIt } from "./try.js"
import { lessons } from "./lessons.js"
import { breakIt } from "./break.js"
import { formats } from "./formats.js"
import { write } from "./write.js"
import { between } from "./between.js"
import { strip } from "./strip.js"

const wire = new WireView($("#wire"))

// Each is shown with what the fragment says after its name, and says where it is with go(rest).
const sections = { try: tryIt, lessons, break: breakIt, formats, write, between }
const shows = Object.fromEntries(Object.entries(sections).map(([name, make]) => [name, make(wire, (rest) => go(name, rest))]))
const list = tabs($("#sections"), ({ id }) => { if (shown.name !== id.slice(3)) go(id.slice(3)) })
const shown = { name: "", rest: "" }

function go(name, rest = "") {
  history.replaceState(null, "", `#${name}${rest && "/"}${rest}`)
  show()
}

/** What the fragment says; one that names no section is a link within the page. */
function show() {
  const [, name, rest] = /^#?([^/]*)\/?(.*)$/s.exec(location.hash)
  if (!(name in shows) || name === shown.name && rest === shown.rest) return
  Object.assign(shown, { name, rest })
  list.choose(`to-${name}`)
  shows[name](decodeURIComponent(rest))
}

addEventListener("hashchange", show)
show()
if (!shown.name) go("try")
strip($("#strip"))

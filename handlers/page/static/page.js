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
const list = tabs($("#sections"), (tab) => { if (current() !== tab.id) go(tab.id) })

function current() { return location.hash.slice(1).split("/")[0] }

function go(name, rest = "") {
  history.replaceState(null, "", `#${name}${rest && "/"}${rest}`)
  show()
}

let shown = ""
function show() {
  const [, name, rest = ""] = /^#?([a-z]*)\/?(.*)$/s.exec(location.hash)
  if (location.hash === shown) return
  shown = location.hash
  const known = name in shows ? name : "try"
  list.choose(known)
  shows[known](decodeURIComponent(rest))
}

addEventListener("hashchange", show)
if (current() in shows) show()
else go("try")
strip($("#strip"))

// tests/vectors.json against the page's parser: node vectors.mjs <vectors.json> <static folder>. Prints what is wrong, a line each.

import { readFileSync } from "node:fs"

const [, , file, folder] = process.argv
const { Parser } = await import(`${folder}/parser.js`)
const { escaped, parsed } = await import(`${folder}/bytes.js`)

const bytesOf = ({ hex, text }) => hex ? Uint8Array.from(hex.split(" ").map((byte) => parseInt(byte, 16))) : new TextEncoder().encode(text)

/** Every way to cut the bytes that is tried: whole, byte by byte, and at every pair of places. */
function* cuts(bytes) {
  yield [bytes]
  yield [...bytes].map((byte) => Uint8Array.of(byte))
  for (let first = 0; first <= bytes.length; first++)
    for (let second = first; second <= bytes.length; second++) yield [bytes.slice(0, first), bytes.slice(first, second), bytes.slice(second)]
}

for (const vector of JSON.parse(readFileSync(file)).cases) {
  const bytes = bytesOf(vector), wanted = JSON.stringify([vector.events, vector.last_event_id, vector.reconnection_time])
  for (const chunks of cuts(bytes)) {
    const parser = new Parser(), steps = chunks.flatMap((chunk) => parser.feed(chunk))
    const events = steps.filter(({ event }) => event).map(({ event: { type, data, lastEventId } }) => [type, data, lastEventId])
    const found = JSON.stringify([events, parser.lastEventId, parser.reconnectionTime])
    const where = `${vector.name}, cut into ${chunks.map(({ length }) => length)}`
    if (found !== wanted) console.log(`${where}: ${found}`)
    let at = 0
    for (const { start, end } of [...steps, ...parser.end()]) {
      if (start !== at && start < bytes.length) console.log(`${where}: a step begins at ${start}, and the last one ended at ${at}`)
      at = end
    }
    if (at !== bytes.length) console.log(`${where}: ${bytes.length - at} bytes belong to no step`)
  }
  if (Buffer.compare(parsed(escaped(bytes)), bytes)) console.log(`${vector.name}: ${escaped(bytes)} is read back as something else`)
}
console.log("all")

// Bytes <-> text in which every byte can be seen.
//
//     \n \r \0 \t \\   LF, CR, NUL, tab, backslash       \xNN     any other byte that isn't printable UTF-8
// The notation of docs/wire-protocol.md, and of lessons.json. U+2028 and its like are shown as \u2028, and may be written so.

const NAMED = { 0: "\\0", 9: "\\t", 10: "\\n", 13: "\\r", 92: "\\\\" }
const BACK = { 0: 0, t: 9, n: 10, r: 13, "\\": 92 }
// Controls, format characters, separators but the space: what a reader would not see
const UNSEEN = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\u00a0]/u
const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })

export const hex = (byte) => byte.toString(16).padStart(2, "0")

/** How long the sequence is that this byte begins; 0: it begins none. */
const lengthOf = (byte) => byte < 0x80 ? 1 : byte < 0xc2 ? 0 : byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : byte < 0xf5 ? 4 : 0

/** The runs of bytes, in order: {text, control}: control runs are escapes, the rest is as it is. */
export function visible(bytes) {
  const runs = []
  const add = (text, control) => {
    const last = runs.at(-1)
    if (last && last.control === control && !control) last.text += text
    else runs.push({ text, control })
  }
  for (let at = 0; at < bytes.length;) {
    const byte = bytes[at], length = lengthOf(byte)
    let text = null
    if (length === 1) text = String.fromCharCode(byte)
    else if (length) try { text = strict.decode(bytes.subarray(at, at + length)) } catch { /* not UTF-8: shown byte by byte */ }
    if (text === null || at + length > bytes.length) add("\\x" + hex(byte), true), at++
    else {
      if (NAMED[byte] !== undefined && byte !== 92) add(NAMED[byte], true)
      else if (!UNSEEN.test(text)) add(text, false)
      else add(byte < 0x80 ? "\\x" + hex(byte) : "\\u" + text.codePointAt(0).toString(16).padStart(4, "0"), true)
      at += length
    }
  }
  return runs
}

/** As one text, to be read back by `parsed`. */
export function escaped(bytes) {
  return visible(bytes).map(({ text, control }) => control ? text : text.replaceAll("\\", "\\\\")).join("")
}

/** Text with escapes -> bytes. Line breaks of the text itself don't count. Throws a SyntaxError that names a wrong escape. */
export function parsed(text) {
  const encoder = new TextEncoder(), bytes = []
  const tokens = /\\x([0-9a-f]{2})|\\u([0-9a-f]{4})|\\(.?)|[^\\\r\n]+|[\r\n]+/giu
  for (const [token, byte, unit, name] of text.matchAll(tokens)) {
    if (byte) bytes.push(parseInt(byte, 16))
    else if (unit) bytes.push(...encoder.encode(String.fromCodePoint(parseInt(unit, 16))))
    else if (name !== undefined) {
      if (!(name in BACK)) throw new SyntaxError(`\\${name} is no escape; there are \\n \\r \\0 \\t \\\\ \\xNN \\uNNNN`)
      bytes.push(BACK[name])
    } else if (!/[\r\n]/.test(token)) bytes.push(...encoder.encode(token))
  }
  return Uint8Array.from(bytes)
}

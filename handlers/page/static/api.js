// Requests to the sidecar that this page came from, with the token if one is set. It is kept in this module's memory only.

let token = ""
let asking = null   // the dialog's promise: it is asked for once, however many requests wait

/** The address of a path, wherever the sidecar is mounted. */
export const url = (path) => new URL(path.replace(/^\//, ""), document.baseURI).href

/** fetch, with the token; asks for one where the answer is 401, and tries again. */
export async function authorized(address, options = {}) {
  const response = await fetch(address, withToken(options))
  if (response.status !== 401) return response
  asking ??= ask().finally(() => { asking = null })
  return await asking ? fetch(address, withToken(options)) : response
}

/** The JSON of an answer; throws an Error with what the sidecar says. */
export async function json(path, { body, ...options } = {}) {
  const headers = { Accept: "application/json", ...body !== undefined && { "Content-Type": "application/json" }, ...options.headers }
  const response = await authorized(url(path), { ...options, headers, body: body === undefined ? undefined : JSON.stringify(body) })
  const text = await response.text()
  const value = text ? JSON.parse(text) : null
  if (!response.ok) throw new Error(value?.detail ?? value?.error?.message ?? `${response.status}`)
  return value
}

/** Whether requests carry a token. */
export const hasToken = () => token !== ""

function withToken(options) {
  return token ? { ...options, headers: { ...options.headers, Authorization: `Bearer ${token}` } } : options
}

/** Ask for the token; whether one was given. */
export function ask() {
  const dialog = document.querySelector("#token")
  const field = dialog.querySelector("input")
  return new Promise((resolve) => {
    dialog.onclose = () => {
      if (dialog.returnValue === "use") token = field.value.trim()
      field.value = ""
      resolve(dialog.returnValue === "use" && token !== "")
      document.dispatchEvent(new Event("token"))
    }
    dialog.returnValue = ""
    dialog.showModal()
  })
}

// Requests to the server. The browser adds the session's cookie; this module adds the session's secret.

const SECRET_KEY = "microjobs-console";
const SECRET_HEADER = "X-Microjobs-Console";
const READ_OPERATION = /^(Batch)?(Describe|Filter|Get|Head|List|Search)/;
export const MAX_RETRIES = 3;
const RETRY_DELAY_MS = 300;

export class ApiError extends Error {
  constructor(status, code, message, members = {}) {
    super(message);
    this.status = status;
    this.code = code;
    this.members = members; // other members of AWS's error, such as OriginalMessage
  }
}

const sessionEnd = new EventTarget();

/** Call a function when the server refuses the session; return a function that removes the listener. */
export function onSessionEnd(listener) {
  sessionEnd.addEventListener("end", listener);
  return () => sessionEnd.removeEventListener("end", listener);
}

export const hasSession = () => localStorage.getItem(SECRET_KEY) !== null;

/** Open a session with the one-time token of an address. If the response is lost, the page can send the token again
 * only with the same key. */
export async function openSession(token) {
  const response = await post("sessions", { token, key: crypto.randomUUID() }, {}, { retries: MAX_RETRIES });
  localStorage.setItem(SECRET_KEY, (await response.json()).secret);
}

/** Send a request to a route of the console; return the response. Throw an ApiError if the request fails. */
export async function send(path, body = {}, options = {}) {
  const secret = localStorage.getItem(SECRET_KEY) ?? "";
  try {
    return await post(path, body, { [SECRET_HEADER]: secret }, options);
  } catch (error) {
    if (error.code === "NoSession") {
      localStorage.removeItem(SECRET_KEY);
      sessionEnd.dispatchEvent(new Event("end"));
    }
    throw error;
  }
}

/** Perform an operation of a service, such as `call("sagemaker", "ListModels", {})`; return the members of the result. */
export async function call(service, operation, members = {}, options = {}) {
  const retries = READ_OPERATION.test(operation) ? MAX_RETRIES : 0;
  return (await send(`${service}/${operation}`, members, { retries, ...options })).json();
}

async function post(path, body, headers, { signal, retries = 0 } = {}) {
  const response = await fetchWithRetries(retries, `api/${path}`, {
    method: "POST",
    headers: { "Content-Type": "application/json", ...headers },
    body: JSON.stringify(body),
    signal,
  });
  if (response.ok) return response;
  const { __type: code = "Error", message = response.statusText, ...members } = await response.json().catch(() => ({}));
  throw new ApiError(response.status, code, message, members);
}

/** Send a request again if it fails without a response. Chromium ends all requests when a network interface appears, such
 * as that of a new container. */
async function fetchWithRetries(retries, url, options) {
  for (let retry = 0; ; retry++) {
    try {
      return await fetch(url, options);
    } catch (error) {
      if (retry === retries || options.signal?.aborted) throw error;
      await new Promise((resolve) => setTimeout(resolve, RETRY_DELAY_MS));
    }
  }
}

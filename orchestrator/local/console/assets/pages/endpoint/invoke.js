// Requests to an endpoint: with a whole response, with a response stream, or into the queue of an asynchronous endpoint.

import { ApiError, call, send } from "../../lib/api.js";

const MEMBERS = ["ContentType", "Accept", "TargetVariant", "InferenceComponentName", "TargetModel", "TargetContainerHostname"];
const SENDERS_BY_MODE = {
  whole: async (request, setResponseBytes) => {
    const response = await call("sagemaker-runtime", "InvokeEndpoint", request);
    setResponseBytes(decode(response.Body));
    return response;
  },
  stream: readStream,
  queue: async (request) => {
    const response = await call("sagemaker-runtime", "InvokeEndpointAsync", request);
    return { output: response["X-Amzn-SageMaker-OutputLocation"], failure: response["X-Amzn-SageMaker-FailureLocation"] };
  },
};

/** Send the request of a form; return `{seconds, response}` or `{seconds, error}`.
 *
 * @param mode `whole`, `stream` or `queue`.
 * @param setResponseBytes called with the bytes of the response. While a stream is open: with the bytes that have arrived.
 *   It is not called in the mode `queue`. The response is then `{output, failure}`, the S3 addresses of the objects.
 */
export async function invoke(endpoint, form, mode, setResponseBytes) {
  const start = performance.now();
  const makeResult = (content) => ({ seconds: (performance.now() - start) / 1000, ...content });
  try {
    const members = MEMBERS.map((name) => [name, form.get(name)]).filter(([, value]) => value);
    const file = form.get("file");
    const body = await encode(file?.size ? file : new Blob([form.get("text")]));
    const request = { EndpointName: endpoint, Body: body, ...Object.fromEntries(members) };
    return makeResult({ response: await SENDERS_BY_MODE[mode](request, setResponseBytes) });
  } catch (error) {
    return makeResult({ error });
  }
}

async function readStream(request, setResponseBytes) {
  const response = await send("sagemaker-runtime/InvokeEndpointWithResponseStream", request);
  let [responseMembers, bytes] = [null, new Uint8Array()]; // the first line has the members of the response
  for await (const line of readLines(response.body)) {
    const { __type: code, message, ...lineMembers } = JSON.parse(line);
    if (code) throw new ApiError(response.status, code, message, lineMembers);
    responseMembers ??= lineMembers;
    if (lineMembers.bytes) setResponseBytes((bytes = join(bytes, decode(lineMembers.bytes))));
  }
  return responseMembers;
}

async function* readLines(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    const lines = (text + part.value).split("\n");
    text = lines.pop();
    yield* lines;
  }
}

function join(first, second) {
  const bytes = new Uint8Array(first.length + second.length);
  bytes.set(first);
  bytes.set(second, first.length);
  return bytes;
}

/** Return the bytes of a file in base64. */
const encode = (blob) =>
  new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });

const decode = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));

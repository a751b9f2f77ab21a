// The metrics of versions: the contents of the JSON files that ModelMetrics and DriftCheckBaselines name.

import { describeObject, readStart } from "../../lib/objects.js";

const MAX_BYTES = 1 << 18;
const MAX_VALUES = 100;

/** The contents of files, by S3 address. They are kept, because other versions and later calls often need the same
 * files. */
const filesByUri = new Map();

/** Return `[{name, uri, values: [[name, value]], error}]`, one item for each file with metrics of a version. */
export function loadMetrics(version, signal) {
  const sources = ["ModelMetrics", "DriftCheckBaselines"].flatMap((member) => findFiles(version[member], member));
  return Promise.all(
    sources.map(async ({ path, uri }) => {
      const content = await readFile(uri, signal).catch((error) => {
        if (signal.aborted) throw error;
        return { values: [], error };
      });
      return { name: path.replace(/^ModelMetrics\./, ""), uri, ...content };
    }),
  );
}

/** Return `{path, uri}` of each S3 address among the members. */
function findFiles(value, path) {
  if (value === null || typeof value !== "object") return [];
  if (value.S3Uri) return [{ path, uri: value.S3Uri }];
  return Object.entries(value).flatMap(([name, inner]) => findFiles(inner, `${path}.${name}`));
}

/** Return the values of a JSON file. Files are read again when their ETag changes. */
async function readFile(uri, signal) {
  const [bucket, ...parts] = uri.slice("s3://".length).split("/");
  const key = parts.join("/");
  const { size, etag } = await describeObject(bucket, key, signal);
  if (filesByUri.get(uri)?.etag === etag) return filesByUri.get(uri);
  if (size > MAX_BYTES) throw new Error(`The file has more than ${MAX_BYTES / 1024} KiB.`);
  const content = { etag, values: listValues(parse(await readStart(bucket, key, MAX_BYTES, signal))).slice(0, MAX_VALUES) };
  filesByUri.set(uri, content);
  return content;
}

function parse(bytes) {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    throw new Error("The file is not JSON.");
  }
}

/** Return the numbers, texts and truth values of a JSON value with their paths. The path omits `value` at its end. */
function listValues(value, path = []) {
  if (value === null) return [];
  if (typeof value !== "object") return [[(path.at(-1) === "value" ? path.slice(0, -1) : path).join("."), value]];
  return Object.entries(value).flatMap(([name, inner]) => listValues(inner, [...path, name]));
}

/** Return the names of numbers in the files of ModelMetrics of versions, `[{metrics}]`, in the order of their first
 * appearance. Return at most `count` names. */
export function listNumericMetrics(versions, count) {
  const names = new Set(versions.flatMap(({ metrics }) => [...makeNumericMetrics(metrics).keys()]));
  return [...names].slice(0, count);
}

/** Return the numbers of all files of ModelMetrics by name. */
export function makeNumericMetrics(metrics) {
  const values = metrics.filter(({ name }) => !name.startsWith("DriftCheckBaselines")).flatMap((file) => file.values);
  return new Map(values.filter(([, value]) => typeof value === "number"));
}

// The content of a preview. The suffix of an object's name decides its format. An object without a known suffix is
// text, unless it has bytes that text cannot contain.

import { listArchive, readStart } from "../../lib/objects.js";
import { parseCsv } from "./csv.js";
import { parseNpy } from "./npy.js";

const MAX_TEXT_BYTES = 1 << 18;
const MAX_IMAGE_BYTES = 8 << 20;
const IMAGE_TYPES = { png: "image/png", jpg: "image/jpeg", jpeg: "image/jpeg", gif: "image/gif", webp: "image/webp" };

/** Return `{format, isPart}`, and the content as `archive`, `image`, `npy`, `rows`, `text` or `error`. The format
 * `other` has no content. */
export async function loadPreview(bucket, key, size, signal) {
  const suffix = key.slice(key.lastIndexOf(".") + 1).toLowerCase();
  if (/\.(tar|tar\.gz|tgz)$/i.test(key)) return loadArchive(bucket, key, signal);
  if (suffix in IMAGE_TYPES && size <= MAX_IMAGE_BYTES) {
    return { format: "image", image: new Blob([await readStart(bucket, key, MAX_IMAGE_BYTES, signal)], { type: IMAGE_TYPES[suffix] }) };
  }
  const bytes = await readStart(bucket, key, MAX_TEXT_BYTES, signal);
  const isPart = size > bytes.length;
  if (suffix === "npy") return { format: "npy", isPart: false, ...tryParse(() => ({ npy: parseNpy(bytes) })) };
  if (!isText(bytes)) return { format: "other", isPart: false };
  const text = new TextDecoder().decode(bytes);
  if (suffix === "csv" || suffix === "tsv") {
    return { format: "csv", isPart, rows: parseCsv(text, suffix === "tsv" ? "\t" : ",", isPart) };
  }
  return { format: "text", isPart, text: suffix === "json" && !isPart ? indent(text) : text };
}

/** Return the content of an archive, or the error if it cannot be read: the page then still shows the object. */
const loadArchive = (bucket, key, signal) =>
  listArchive(bucket, key, signal).then(
    (archive) => ({ format: "archive", archive, isPart: false }),
    (error) => ({ format: "archive", error, isPart: false }),
  );

function tryParse(parse) {
  try {
    return parse();
  } catch (error) {
    return { error };
  }
}

const isText = (bytes) => !bytes.some((byte) => byte < 9 || (byte > 13 && byte < 32 && byte !== 27));

function indent(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

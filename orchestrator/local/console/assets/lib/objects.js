// Objects of buckets.

import { call, send } from "./api.js";
import { makeHref } from "./router.js";

/** Return the address of the page that lists the objects whose keys begin with the key of an `s3://` address. */
export function makeUriHref(uri) {
  const [bucket, ...key] = uri.slice("s3://".length).split("/");
  return makeHref(["buckets", bucket], { prefix: key.join("/") });
}

/** Return the facts about an object that its page shows. They come from the HTTP headers that HeadObject returns. */
export async function describeObject(bucket, key, signal) {
  const headers = await call("s3", "HeadObject", { Bucket: bucket, Key: key }, { signal });
  return {
    size: headers["Content-Length"],
    type: headers["Content-Type"],
    changed: headers["Last-Modified"],
    etag: headers.ETag,
    metadata: headers["x-amz-meta-"] ?? {},
  };
}

/** Return the first bytes of an object.
 *
 * @param count the number of bytes, at most 8 MiB. */
export async function readStart(bucket, key, count, signal) {
  return new Uint8Array(await (await send("objects/preview", { bucket, key, bytes: count }, { signal })).arrayBuffer());
}

/** Return the first members of a tar archive, `{members: [{name, size, type}], isComplete}`. */
export const listArchive = async (bucket, key, signal) =>
  (await send("objects/archive", { bucket, key }, { signal })).json();

/** Let the browser store an object in a file. */
export async function downloadObject(bucket, key) {
  const { path } = await (await send("objects", { bucket, key })).json();
  Object.assign(document.createElement("a"), { href: `api/${path}`, download: "" }).click();
}

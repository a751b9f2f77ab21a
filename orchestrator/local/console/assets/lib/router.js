// Addresses of pages: `#/jobs/training-job/my-job?host=algo-1`.

import { useEffect, useState } from "./ui.js";

/** Make the address of a page from its parts and its query. Empty values of the query are left out. */
export function makeHref(parts, query = {}) {
  const entries = Object.entries(query).filter(([, value]) => value);
  const search = new URLSearchParams(entries).toString();
  return `#/${parts.map(encodeURIComponent).join("/")}${search ? `?${search}` : ""}`;
}

/** Return the parts and the query of the current address. */
export function readAddress() {
  const [path, search = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const parts = path.split("/").map(decodePart);
  return { parts, query: Object.fromEntries(new URLSearchParams(search)) };
}

function decodePart(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** Change the query without a new entry in the browser's history. */
export function replaceQuery(query) {
  history.replaceState(null, "", makeHref(readAddress().parts, query));
  dispatchEvent(new HashChangeEvent("hashchange"));
}

/** Return the page of an address and its parameters; null if there is no such page. */
export function findPage(pages, parts) {
  for (const page of pages) {
    const names = page.path.split("/");
    if (names.length !== parts.length) continue;
    if (!names.every((name, index) => name.startsWith(":") || name === parts[index])) continue;
    const pairs = names.map((name, index) => [name.slice(1), parts[index]]);
    return { page, params: Object.fromEntries(pairs.filter((_, index) => names[index].startsWith(":"))) };
  }
  return null;
}

export function useAddress() {
  const [address, setAddress] = useState(readAddress);
  useEffect(() => {
    const update = () => setAddress(readAddress());
    addEventListener("hashchange", update);
    return () => removeEventListener("hashchange", update);
  }, []);
  return address;
}

// Loads the console, and reloads the page if a file cannot be loaded: Chromium ends all requests when a network
// interface appears, such as the interface of a new container.

const RELOADS_KEY = "reloads"; // key of `sessionStorage` for the number of reloads
const MAX_RELOADS = 5;
const RELOAD_DELAY_MS = 500;

function reload(error) {
  const count = Number(sessionStorage.getItem(RELOADS_KEY) ?? 0);
  if (count >= MAX_RELOADS) throw error;
  sessionStorage.setItem(RELOADS_KEY, String(count + 1));
  setTimeout(() => location.reload(), RELOAD_DELAY_MS);
}

import("./main.js").then(() => sessionStorage.removeItem(RELOADS_KEY), reload);

// Loads the console, and reloads the page if a file does not arrive: Chromium ends all requests when a network interface
// appears, such as that of a container that starts.

const RELOADS = "reloads";
const MAX_RELOADS = 5;
const RELOAD_DELAY_MS = 500;

function reload(error) {
  const count = Number(sessionStorage.getItem(RELOADS) ?? 0);
  if (count >= MAX_RELOADS) throw error;
  sessionStorage.setItem(RELOADS, String(count + 1));
  setTimeout(() => location.reload(), RELOAD_DELAY_MS);
}

import("./main.js").then(() => sessionStorage.removeItem(RELOADS), reload);

// Opens a session, and shows the page of the address.

import { hasSession, onSessionEnd, openSession } from "./lib/api.js";
import { loadKinds } from "./lib/kinds.js";
import { startFeed } from "./lib/live.js";
import { findPage, useAddress } from "./lib/router.js";
import { html, render, useEffect, useState } from "./lib/ui.js";
import { Heading, Problem } from "./lib/components.js";
import { pages } from "./pages.js";

const Navigation = ({ current }) => html`
  <header>
    <a class="skip" href="#main" onClick=${focusMain}>Skip to content</a>
    <nav aria-label="Pages">
      <strong>Microjobs</strong>
      ${pages.filter((page) => page.title).map((page) => html`
        <a href="#/${page.path}" aria-current=${current?.startsWith(page.path) ? "page" : null}>${page.title}</a>
      `)}
    </nav>
  </header>
`;

function focusMain(event) {
  event.preventDefault();
  document.querySelector("main").focus();
}

const NoSession = ({ error }) => html`
  <main>
    <${Heading}>Open the console<//>
    <${Problem} error=${error} />
    <p>This browser has no session. Run this command, and open the address that it prints:</p>
    <pre>microjobs local console</pre>
  </main>
`;

function App() {
  const address = useAddress();
  const route = findPage(pages, address.parts);
  const [loadedPage, setLoadedPage] = useState(null);
  const [error, setError] = useState(null);
  const [hasEnded, setHasEnded] = useState(false);
  useEffect(() => onSessionEnd(() => setHasEnded(true)), []);
  useEffect(() => {
    setLoadedPage(null);
    setError(null);
    route?.page.load().then((module) => setLoadedPage({ module, path: route.page.path }), setError);
  }, [route?.page.path]);
  if (hasEnded) return html`<${NoSession} />`;
  const Page = loadedPage?.path === route?.page.path ? loadedPage?.module.Page : null;
  return html`
    <${Navigation} current=${route?.page.path} />
    <main id="main" tabindex="-1">
      <${Problem} error=${error} />
      ${route ? null : html`<${Heading}>Page not found<//><p><a href="#/jobs">Show all jobs</a></p>`}
      ${Page && html`<${Page} key=${address.parts.join("/")} params=${route.params} query=${address.query} />`}
    </main>
  `;
}

/** If the address has a token, open a session with it, and remove it from the address and the history. */
async function logIn() {
  const token = location.hash.startsWith("#token=") ? location.hash.slice("#token=".length) : null;
  if (token !== null) history.replaceState(null, "", "#/jobs");
  if (token !== null) await openSession(token);
  if (!location.hash) history.replaceState(null, "", "#/jobs");
}

async function start() {
  const root = document.getElementById("app");
  try {
    await logIn();
    if (!hasSession()) throw null;
    await loadKinds();
    startFeed();
    render(html`<${App} />`, root);
  } catch (error) {
    render(html`<${NoSession} error=${error} />`, root);
  }
}

addEventListener("hashchange", () => location.hash.startsWith("#token=") && location.reload());
start();

// A resource as code for several clients, and a form that creates a similar one.

import { call, send } from "../lib/api.js";
import { Field, Heading, Problem } from "../lib/components.js";
import { findKind } from "../lib/kinds.js";
import { useQuery } from "../lib/query.js";
import { makeHref } from "../lib/router.js";
import { html, useState } from "../lib/ui.js";

const MAX_NAME = 63;

export function Page({ params }) {
  const kind = findKind(params.type);
  return kind ? html`<${Code} kind=${kind} id=${params.id} />` : html`<${Heading}>No kind ${params.type}<//>`;
}

function Code({ kind, id }) {
  const { data, error } = useQuery((signal) => load(kind, id, signal), [kind.type, id]);
  return html`
    <${Heading}>Code of <a href=${makeHref(["jobs", kind.type, id])}>${id}</a><//>
    <${Problem} error=${error} />
    ${data && html`
      <p class="hint">The code needs the variables that <code>microjobs local env</code> prints.</p>
      <${Programs} programs=${data.programs} />
      <${CloneForm} kind=${kind} request=${data} />
    `}
  `;
}

/** Programs as tabs: the keys Left and Right move between them. */
function Programs({ programs }) {
  const titles = Object.keys(programs);
  const [shown, setShown] = useState(titles[0]);
  const move = (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const next = titles[(titles.indexOf(shown) + step + titles.length) % titles.length];
    setShown(next);
    [...event.currentTarget.children].find((one) => one.textContent === next).focus();
  };
  return html`
    <div role="tablist" aria-label="Clients" class="tabs" onKeyDown=${move}>
      ${titles.map((title) => html`
        <button role="tab" id=${`tab ${title}`.replaceAll(" ", "-")} aria-selected=${title === shown} aria-controls="program"
          tabindex=${title === shown ? 0 : -1} onClick=${() => setShown(title)}>${title}</button>
      `)}
    </div>
    <pre id="program" tabindex="0" role="tabpanel" aria-label=${shown}>${programs[shown]}</pre>
    <${CopyButton} key=${shown} text=${programs[shown]} />
  `;
}

function CopyButton({ text }) {
  const [outcome, setOutcome] = useState("");
  const copy = () => navigator.clipboard.writeText(text).then(() => setOutcome("Copied."), (error) => setOutcome(error.message));
  return html`<p><button onClick=${copy}>Copy</button>${" "}<span role="status">${outcome}</span></p>`;
}

async function load(kind, id, signal) {
  const found = await call("sagemaker", kind.operations.Describe, { [kind.identifierMember]: id }, { signal });
  return (await send("code", { arn: found[kind.arnMember] }, { signal })).json();
}

/** Return the members with a new name, if the resource has a name. */
function rename(kind, members) {
  const name = members[kind.nameMember];
  return name ? { ...members, [kind.nameMember]: `${name.slice(0, MAX_NAME - 5)}-copy` } : members;
}

function CloneForm({ kind, request: { operation, members, tokens } }) {
  const [text, setText] = useState(JSON.stringify(rename(kind, members), null, 2));
  const [error, setError] = useState(null);
  const create = async (event) => {
    event.preventDefault();
    try {
      const news = tokens.map((name) => [name, crypto.randomUUID()]);
      const answer = await call("sagemaker", operation, { ...JSON.parse(text), ...Object.fromEntries(news) });
      const arn = answer[kind.arnMember];
      location.hash = makeHref(["jobs", kind.type, kind.partOf ? arn : arn.split("/").slice(1).join("/")]);
    } catch (problem) {
      setError(problem);
    }
  };
  return html`
    <h2 id="clone">Create a similar ${kind.words}</h2>
    <form aria-labelledby="clone" onSubmit=${create}>
      <${Field} label="Request">
        <textarea rows="20" cols="100" spellcheck=${false} value=${text} onInput=${(event) => setText(event.target.value)}></textarea>
      <//>
      <${Problem} error=${error} />
      <p><button>Create</button></p>
    </form>
  `;
}

// A resource as code for several clients, and a form that creates a similar resource.

import { call, send } from "../lib/api.js";
import { Field, Heading, Problem } from "../lib/components.js";
import { findKind } from "../lib/kinds.js";
import { useQuery } from "../lib/query.js";
import { makeHref } from "../lib/router.js";
import { html, useState } from "../lib/ui.js";

const MAX_NAME_LENGTH = 63;

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
  const [shownTitle, setShownTitle] = useState(titles[0]);
  const move = (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const nextTitle = titles[(titles.indexOf(shownTitle) + step + titles.length) % titles.length];
    setShownTitle(nextTitle);
    [...event.currentTarget.children].find((button) => button.textContent === nextTitle).focus();
  };
  return html`
    <div role="tablist" aria-label="Clients" class="tabs" onKeyDown=${move}>
      ${titles.map((title) => html`
        <button role="tab" id=${`tab ${title}`.replaceAll(" ", "-")} aria-selected=${title === shownTitle} aria-controls="program"
          tabindex=${title === shownTitle ? 0 : -1} onClick=${() => setShownTitle(title)}>${title}</button>
      `)}
    </div>
    <pre id="program" tabindex="0" role="tabpanel" aria-label=${shownTitle}>${programs[shownTitle]}</pre>
    <${CopyButton} key=${shownTitle} text=${programs[shownTitle]} />
  `;
}

function CopyButton({ text }) {
  const [outcome, setOutcome] = useState("");
  const copy = () => navigator.clipboard.writeText(text).then(() => setOutcome("Copied."), (error) => setOutcome(error.message));
  return html`<p><button onClick=${copy}>Copy</button>${" "}<span role="status">${outcome}</span></p>`;
}

async function load(kind, id, signal) {
  const description = await call("sagemaker", kind.operations.Describe, { [kind.identifierMember]: id }, { signal });
  return (await send("code", { arn: description[kind.arnMember] }, { signal })).json();
}

/** Return the members with a new name, if the resource has a name. */
function rename(kind, members) {
  const name = members[kind.nameMember];
  return name ? { ...members, [kind.nameMember]: `${name.slice(0, MAX_NAME_LENGTH - 5)}-copy` } : members;
}

function CloneForm({ kind, request: { operation, members, tokenMembers } }) {
  const [text, setText] = useState(JSON.stringify(rename(kind, members), null, 2));
  const [error, setError] = useState(null);
  const create = async (event) => {
    event.preventDefault();
    try {
      const newTokens = tokenMembers.map((name) => [name, crypto.randomUUID()]);
      const answer = await call("sagemaker", operation, { ...JSON.parse(text), ...Object.fromEntries(newTokens) });
      const arn = answer[kind.arnMember];
      location.hash = makeHref(["jobs", kind.type, kind.parentType ? arn : arn.split("/").slice(1).join("/")]);
    } catch (problem) {
      setError(problem);
    }
  };
  return html`
    <h2 id="clone">Create a similar ${kind.displayName}</h2>
    <form aria-labelledby="clone" onSubmit=${create}>
      <${Field} label="Request">
        <textarea rows="20" cols="100" spellcheck=${false} value=${text} onInput=${(event) => setText(event.target.value)}></textarea>
      <//>
      <${Problem} error=${error} />
      <p><button>Create</button></p>
    </form>
  `;
}

// A job as code for boto3 and the AWS CLI, and a form that creates a similar job.

import { call, send } from "../lib/api.js";
import { Field, Heading, Problem } from "../lib/components.js";
import { findKind } from "../lib/kinds.js";
import { useQuery } from "../lib/query.js";
import { makeHref } from "../lib/router.js";
import { html, useState } from "../lib/ui.js";
import { formatBoto3, formatCli } from "./code/format.js";

const MAX_NAME = 63;

export function Page({ params }) {
  const kind = findKind(params.type);
  return kind?.lifecycle ? html`<${Code} kind=${kind} id=${params.id} />` : html`<${Heading}>No kind ${params.type}<//>`;
}

function Code({ kind, id }) {
  const { data, error } = useQuery((signal) => load(kind, id, signal), [kind.type, id]);
  return html`
    <${Heading}>Code of <a href=${makeHref(["jobs", kind.type, id])}>${id}</a><//>
    <${Problem} error=${error} />
    ${data && html`
      <p class="hint">The code needs the credentials of this server: <code>microjobs local env</code> prints them.</p>
      <h2 id="boto3">boto3</h2>
      <pre tabindex="0" aria-labelledby="boto3" role="region">${formatBoto3(data)}</pre>
      <h2 id="cli">AWS CLI</h2>
      <pre tabindex="0" aria-labelledby="cli" role="region">${formatCli(data)}</pre>
      <${CloneForm} kind=${kind} request=${data} />
    `}
  `;
}

async function load(kind, id, signal) {
  const job = await call("sagemaker", kind.operations.Describe, { [kind.identifierMember]: id }, { signal });
  const arn = job[kind.arnMember];
  const request = await (await send("requests", { arn }, { signal })).json();
  return { ...request, url: location.origin, region: arn.split(":")[3] };
}

function CloneForm({ kind, request: { operation, members } }) {
  const copy = { ...members, [kind.nameMember]: `${members[kind.nameMember].slice(0, MAX_NAME - 5)}-copy` };
  const [text, setText] = useState(JSON.stringify(copy, null, 2));
  const [error, setError] = useState(null);
  const create = async (event) => {
    event.preventDefault();
    try {
      const changed = JSON.parse(text);
      await call("sagemaker", operation, changed);
      location.hash = makeHref(["jobs", kind.type, changed[kind.nameMember]]);
    } catch (problem) {
      setError(problem);
    }
  };
  return html`
    <h2 id="clone">Create a similar job</h2>
    <form aria-labelledby="clone" onSubmit=${create}>
      <${Field} label="Request">
        <textarea rows="20" cols="100" spellcheck=${false} value=${text} onInput=${(event) => setText(event.target.value)}></textarea>
      <//>
      <${Problem} error=${error} />
      <p><button>Create</button></p>
    </form>
  `;
}

// The output of the hosts of a job or an endpoint.

import { call } from "../lib/api.js";
import { Field, Heading, Problem, Select } from "../lib/components.js";
import { findKind, isChangeOf } from "../lib/kinds.js";
import { downloadLog, getLogGroup, isLogOf, listStreams } from "../lib/logs.js";
import { onChanges } from "../lib/live.js";
import { useQuery } from "../lib/query.js";
import { makeHref, replaceQuery } from "../lib/router.js";
import { html, useEffect, useState } from "../lib/ui.js";
import { Lines } from "./logs/lines.js";
import { Matches } from "./logs/matches.js";

export function Page({ params, query }) {
  const kind = findKind(params.type);
  return kind?.logs
    ? html`<${Logs} kind=${kind} id=${params.id} query=${query} />`
    : html`<${Heading}>No logs of ${params.type}<//>`;
}

function Logs({ kind, id, query }) {
  const load = (signal) => loadStreams(kind, id, signal);
  const { data, error, reload } = useQuery(load, [kind.type, id], (change) => isChangeOf(kind, id, change));
  const [problem, setProblem] = useState(null);
  const stream = data?.streams.find((stream) => stream.name === query.stream) ?? data?.streams[0];
  const group = getLogGroup(kind, id);
  const isOfNewStream = (change) =>
    isLogOf(kind, id, change) && !data?.streams.some((stream) => stream.name === change.stream);
  useEffect(() => onChanges((event) => event.logs.some(isOfNewStream) && reload()), [data]);
  const changeQuery = (members) => replaceQuery({ ...query, ...members });
  return html`
    <${Heading}>Logs of <a href=${makeHref(["jobs", kind.type, id])}>${id}</a><//>
    <${Problem} error=${error ?? problem} />
    ${data && !stream && html`<p role="status">No host has written a line yet.</p>`}
    ${stream && html`
      <div class="filters">
        <${Select} label="Host" value=${stream.name} options=${data.streams.map((item) => [item.name, item.host])}
          onChange=${(name) => changeQuery({ stream: name, at: "" })} />
        <${SearchForm} text=${query.find ?? ""} onSearch=${(find) => changeQuery({ find })} />
        <button onClick=${() => downloadLog(group, stream.name).catch(setProblem)}>Download</button>
      </div>
      ${query.find && html`<${Matches} key=${`${stream.name}/${query.find}`} group=${group} stream=${stream.name}
        text=${query.find} onChoose=${(at) => changeQuery({ at })} />`}
      <${Lines} key=${`${stream.name}@${query.at ?? ""}`} group=${group} stream=${stream.name} chosenOffset=${query.at}
        onEnd=${() => changeQuery({ at: "" })} />
    `}
  `;
}

async function loadStreams(kind, id, signal) {
  await call("sagemaker", kind.operations.Describe, { [kind.identifierMember]: id }, { signal }); // fails if the resource does not exist
  return { streams: await listStreams(kind, id, signal) };
}

function SearchForm({ text, onSearch }) {
  const search = (event) => {
    event.preventDefault();
    onSearch(new FormData(event.target).get("text"));
  };
  return html`
    <form class="filters" role="search" onSubmit=${search}>
      <${Field} label="Find lines with"><input type="search" name="text" defaultValue=${text} /><//>
      <button>Find</button>
    </form>
  `;
}

// The list of tuning jobs.

import { ResourceList } from "../lib/resource_list.js";
import { html } from "../lib/ui.js";

export const Page = () => html`<${ResourceList} type="hyper-parameter-tuning-job" title="Tuning jobs" path="tuning" />`;

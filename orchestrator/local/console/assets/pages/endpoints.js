// The list of endpoints.

import { ResourceList } from "../lib/resource_list.js";
import { html } from "../lib/ui.js";

export const Page = () => html`<${ResourceList} type="endpoint" title="Endpoints" path="endpoints" />`;

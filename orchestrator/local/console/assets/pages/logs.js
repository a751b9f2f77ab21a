// The output of the hosts of a job or an endpoint.

import { Heading } from "../lib/components.js";
import { html } from "../lib/ui.js";

export const Page = ({ params }) => html`<${Heading}>Logs of ${params.id}<//>`;

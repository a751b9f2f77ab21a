// A button that opens the pages of an MLflow server in another tab.

import { call } from "./api.js";
import { Problem } from "./components.js";
import { html, useState } from "./ui.js";

export const isMlflow = (kind) => ["mlflow-tracking-server", "mlflow-app"].includes(kind.type);

export function MlflowButton({ kind, id, status }) {
  const [error, setError] = useState(null);
  const { transitionalStatuses, activeStatuses } = kind.lifecycle;
  if (!activeStatuses.includes(status) || transitionalStatuses.includes(status)) return null;
  const open = async () => {
    const operation = `CreatePresigned${kind.noun}Url`;
    const { AuthorizedUrl: address } = await call("sagemaker", operation, { [kind.identifierMember]: id });
    window.open(address, "_blank", "noopener");
  };
  return html`<button onClick=${() => open().catch(setError)}>Open MLflow</button><${Problem} error=${error} />`;
}

// Code that sends a request, `{operation, members, url, region}`.

const INDENT = "    ";

/** Return a Python program. JSON's texts and numbers are also Python's. */
export function formatBoto3({ operation, members, url, region }) {
  const entries = Object.entries(members).map(([name, value]) => `${INDENT}${name}=${formatPython(value, INDENT)},\n`);
  return [
    "import boto3\n\n",
    `client = boto3.client("sagemaker", region_name=${JSON.stringify(region)}, endpoint_url=${JSON.stringify(url)})\n`,
    `client.${separate(operation, "_")}(\n${entries.join("")})\n`,
  ].join("");
}

/** Return a command for a POSIX shell. */
export function formatCli({ operation, members, url, region }) {
  const json = JSON.stringify(members, null, 2).replaceAll("'", "'\\''");
  return `aws sagemaker ${separate(operation, "-")} --endpoint-url ${url} --region ${region} --cli-input-json '${json}'\n`;
}

const separate = (operation, separator) => operation.replace(/(?!^)(?=[A-Z])/g, separator).toLowerCase();

function formatPython(value, indent) {
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value !== "object") return JSON.stringify(value);
  const inner = indent + INDENT;
  const items = Array.isArray(value)
    ? value.map((item) => formatPython(item, inner))
    : Object.entries(value).map(([name, item]) => `${JSON.stringify(name)}: ${formatPython(item, inner)}`);
  const [open, close] = Array.isArray(value) ? "[]" : "{}";
  return items.length ? `${open}\n${items.map((item) => `${inner}${item},\n`).join("")}${indent}${close}` : open + close;
}

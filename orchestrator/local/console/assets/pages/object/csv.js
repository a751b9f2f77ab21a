// Tables in CSV.

const MAX_ROWS = 200;
const MAX_COLUMNS = 50;

/** Return the first rows, each as a list of texts. A quoted cell may contain separators and line ends.
 *
 * @param isPart whether the last row may be incomplete: it is then left out.
 */
export function parseCsv(text, separator, isPart) {
  const rows = [];
  let [row, at] = [[], 0];
  while (at < text.length && rows.length < MAX_ROWS) {
    const [cell, end] = text[at] === '"' ? readQuoted(text, at, separator) : readPlain(text, at, separator);
    row.push(cell);
    at = end;
    if (text[at] === separator) {
      at++;
      if (at < text.length) continue;
      row.push("");
    }
    if (at >= text.length && isPart) break;
    at += text.startsWith("\r\n", at) ? 2 : 1;
    rows.push(row.slice(0, MAX_COLUMNS));
    row = [];
  }
  return rows;
}

function readPlain(text, start, separator) {
  let end = start;
  while (end < text.length && text[end] !== separator && text[end] !== "\n" && !text.startsWith("\r\n", end)) end++;
  return [text.slice(start, end), end];
}

/** Read a quoted cell. Text after the closing quote belongs to the cell. */
function readQuoted(text, start, separator) {
  let end = start + 1;
  while (end < text.length && (text[end] !== '"' || text[end + 1] === '"')) end += text[end] === '"' ? 2 : 1;
  const [rest, next] = readPlain(text, end + 1, separator);
  return [text.slice(start + 1, end).replaceAll('""', '"') + rest, next];
}

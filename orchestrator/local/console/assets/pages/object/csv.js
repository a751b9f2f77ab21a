// Tables in CSV.

const MAX_ROWS = 200;
const MAX_COLUMNS = 50;

/** Return the first rows, each as a list of texts. A quoted cell may contain separators and line ends.
 *
 * @param isPart whether the text is only the beginning of a file. Its last row may be incomplete, and is left out.
 */
export function parseCsv(text, separator, isPart) {
  const rows = [];
  let [row, position] = [[], 0];
  while (position < text.length && rows.length < MAX_ROWS) {
    const readCell = text[position] === '"' ? readQuoted : readPlain;
    const [cell, end] = readCell(text, position, separator);
    row.push(cell);
    position = end;
    if (text[position] === separator) {
      position++;
      if (position < text.length) continue;
      row.push("");
    }
    if (position >= text.length && isPart) break;
    position += text.startsWith("\r\n", position) ? 2 : 1;
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
  const [suffix, cellEnd] = readPlain(text, end + 1, separator);
  return [text.slice(start + 1, end).replaceAll('""', '"') + suffix, cellEnd];
}

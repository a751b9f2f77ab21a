// Text of times, durations, sizes and counts.

const DATE_FORMAT = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });

/** Return the local time of a number of seconds since 1970. */
export const formatTime = (seconds) => (seconds ? DATE_FORMAT.format(new Date(seconds * 1000)) : "");

/** Return a duration in its two largest units, such as `2 min 5 s`. */
export function formatDuration(seconds) {
  if (!(seconds >= 0)) return "";
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  const units = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  const unitIndex = units.findIndex(([, size]) => seconds >= size);
  let remainder = Math.round(seconds);
  const parts = units.slice(unitIndex, unitIndex + 2).map(([name, size]) => {
    const count = Math.floor(remainder / size);
    remainder -= count * size;
    return count ? `${count} ${name}` : "";
  });
  return parts.filter(Boolean).join(" ");
}

export function formatBytes(count) {
  const units = ["B", "KB", "MB", "GB", "TB"];
  let unit = 0;
  for (; count >= 1000 && unit < units.length - 1; unit++) count /= 1000;
  return `${unit ? count.toFixed(1) : count} ${units[unit]}`;
}

/** Return a count with its noun, such as `1 line` or `2 lines`. */
export const formatCount = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;

/** Return `name/id` for the ARN of an execution, `…:pipeline/name/execution/id`. */
export const shortenArn = (arn) => arn.split(":").pop().split("/").filter((_, index) => index % 2).join("/");

// Scales of plots: the places of values on an axis, from 0 to 1.

import { formatNumber } from "./chart.js";

const LOG_RATIO = 1000;

export const toNumber = (value) => (value === "" || value === null || value === undefined ? NaN : Number(value));

/** Return the scale of values, `{isNumeric, canBeLog, isLog, place, invert, ticks}`. Texts that are no numbers are categories.
 * `invert` returns the number at a place; for categories, the place itself.
 *
 * @param values numbers and texts; undefined values are left out.
 * @param wantsLog whether a scale of positive numbers is logarithmic; by default, if they differ much. */
export function makeScale(values, wantsLog) {
  const present = values.filter((value) => value !== undefined && value !== "");
  const numbers = present.map(toNumber);
  return present.length && numbers.every(Number.isFinite) ? makeNumericScale(numbers, wantsLog) : makeCategories(present);
}

function makeNumericScale(numbers, wantsLog) {
  const [low, high] = findRange(numbers);
  const canBeLog = low > 0;
  const isLog = canBeLog && (wantsLog ?? high / low >= LOG_RATIO);
  const [convert, revert] = isLog ? [Math.log, Math.exp] : [(number) => number, (number) => number];
  const [first, last] = low === high ? [convert(low) - 0.5, convert(low) + 0.5] : [convert(low), convert(high)];
  const place = (value) => (Number.isFinite(toNumber(value)) ? (convert(toNumber(value)) - first) / (last - first) : null);
  const invert = (at) => revert(first + at * (last - first));
  const ticks = (low === high ? [low] : [low, high]).map((value) => ({ at: place(value), label: formatNumber(value) }));
  return { isNumeric: true, canBeLog, isLog, place, invert, ticks };
}

function makeCategories(values) {
  const names = [...new Set(values.map(String))].sort();
  const locate = (index) => (names.length === 1 ? 0.5 : index / (names.length - 1));
  const place = (value) => (names.includes(String(value)) ? locate(names.indexOf(String(value))) : null);
  const ticks = names.map((label, index) => ({ at: locate(index), label }));
  return { isNumeric: false, canBeLog: false, isLog: false, place, invert: (at) => at, ticks };
}

/** Return whether a value is in a range, `[low, high]` in the units of `invert`. Each value is in the range null. */
export function isInRange(scale, range, value) {
  const position = scale.isNumeric ? toNumber(value) : scale.place(value);
  return range === null || (position !== null && position >= range[0] && position <= range[1]);
}

const findRange = (numbers) =>
  numbers.reduce(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [Infinity, -Infinity]);

// Scales of plots. A scale converts a value to its place on an axis: a number from 0 to 1.

import { formatNumber } from "./chart.js";

const MIN_LOG_RATIO = 1000; // of the largest to the smallest value

export const toNumber = (value) => (value === "" || value === null || value === undefined ? NaN : Number(value));

/** Return the scale of values, `{isNumeric, canBeLog, isLog, place, invert, ticks}`. If a value is not a number, all
 * values are categories. `place` returns the place of a value, and null if it has none. `invert` returns the number at
 * a place; for categories, the place itself.
 *
 * @param values numbers and texts; undefined values and empty texts are ignored.
 * @param wantsLog whether a scale of positive numbers is logarithmic; by default, this depends on MIN_LOG_RATIO. */
export function makeScale(values, wantsLog) {
  const present = values.filter((value) => value !== undefined && value !== "");
  const numbers = present.map(toNumber);
  return present.length && numbers.every(Number.isFinite) ? makeNumericScale(numbers, wantsLog) : makeCategories(present);
}

function makeNumericScale(numbers, wantsLog) {
  const [low, high] = findRange(numbers);
  const canBeLog = low > 0;
  const isLog = canBeLog && (wantsLog ?? high / low >= MIN_LOG_RATIO);
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

/** Return whether a value is in a range, `[low, high]` in the units of `invert`. The range null contains all values. */
export function isInRange(scale, range, value) {
  const position = scale.isNumeric ? toNumber(value) : scale.place(value);
  return range === null || (position !== null && position >= range[0] && position <= range[1]);
}

const findRange = (numbers) =>
  numbers.reduce(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [Infinity, -Infinity]);

// Scales of plots. A scale converts a value to its position on an axis: a number from 0 to 1.

import { formatNumber } from "./chart.js";

const MIN_LOG_RATIO = 1000; // minimum ratio of the largest to the smallest value

export const toNumber = (value) => (value === "" || value === null || value === undefined ? NaN : Number(value));

/** Return the scale of values, `{isNumeric, canBeLog, isLog, toPosition, invert, ticks}`. If a value is not a number,
 * all values are categories. `toPosition` returns the position of a value, or null if the value has no position.
 * `invert` returns the number at a position; for categories, the position itself. `ticks` are `{position, label}`.
 *
 * @param values numbers and texts; undefined values and empty texts are ignored.
 * @param isLogChosen whether a scale of positive numbers is logarithmic; if undefined, MIN_LOG_RATIO decides. */
export function makeScale(values, isLogChosen) {
  const axisValues = values.filter((value) => value !== undefined && value !== "");
  const numbers = axisValues.map(toNumber);
  return axisValues.length && numbers.every(Number.isFinite) ? makeNumericScale(numbers, isLogChosen) : makeCategories(axisValues);
}

function makeNumericScale(numbers, isLogChosen) {
  const [low, high] = findRange(numbers);
  const canBeLog = low > 0;
  const isLog = canBeLog && (isLogChosen ?? high / low >= MIN_LOG_RATIO);
  const [convert, revert] = isLog ? [Math.log, Math.exp] : [(number) => number, (number) => number];
  const [start, end] = low === high ? [convert(low) - 0.5, convert(low) + 0.5] : [convert(low), convert(high)];
  const toPosition = (value) => (Number.isFinite(toNumber(value)) ? (convert(toNumber(value)) - start) / (end - start) : null);
  const invert = (position) => revert(start + position * (end - start));
  const ticks = (low === high ? [low] : [low, high]).map((value) => ({ position: toPosition(value), label: formatNumber(value) }));
  return { isNumeric: true, canBeLog, isLog, toPosition, invert, ticks };
}

function makeCategories(values) {
  const names = [...new Set(values.map(String))].sort();
  const locate = (index) => (names.length === 1 ? 0.5 : index / (names.length - 1));
  const toPosition = (value) => (names.includes(String(value)) ? locate(names.indexOf(String(value))) : null);
  const ticks = names.map((label, index) => ({ position: locate(index), label }));
  return { isNumeric: false, canBeLog: false, isLog: false, toPosition, invert: (position) => position, ticks };
}

/** Return whether a value is in a range, `[low, high]` in the units of `invert`. The range null contains all values. */
export function isInRange(scale, range, value) {
  const number = scale.isNumeric ? toNumber(value) : scale.toPosition(value);
  return range === null || (number !== null && number >= range[0] && number <= range[1]);
}

const findRange = (numbers) =>
  numbers.reduce(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [Infinity, -Infinity]);

// The importance of the parameters of a tuning job, from 0 to 1.
//
// For numbers, it is the absolute rank correlation (Spearman) of the parameter and the objective. For categories, it is
// the correlation ratio of the objective's ranks: the square root of the share of their variance that the categories
// explain.

const MIN_TRIALS = 4;

/** Return `[{name, importance}]`, the most important parameter first; empty if there are too few trials.
 *
 * @param trials `[{value, parameters}]`: the trials that have a value of the objective. */
export function findImportance(names, trials) {
  if (trials.length < MIN_TRIALS) return [];
  const objective = rank(trials.map((trial) => trial.value));
  const rows = names.map((name) => {
    const values = trials.map((trial) => trial.parameters[name]);
    const numbers = values.map(Number);
    const importance = numbers.some(Number.isNaN)
      ? findCorrelationRatio(values, objective)
      : Math.abs(correlate(rank(numbers), objective));
    return { name, importance };
  });
  return rows.sort((first, second) => second.importance - first.importance);
}

/** Return the rank of each number. Equal numbers have the average of their ranks. */
function rank(numbers) {
  const order = numbers.map((_, index) => index).sort((first, second) => numbers[first] - numbers[second]);
  const ranks = [];
  for (let start = 0, end = 0; start < order.length; start = end) {
    while (end < order.length && numbers[order[end]] === numbers[order[start]]) end++;
    for (const index of order.slice(start, end)) ranks[index] = (start + end - 1) / 2;
  }
  return ranks;
}

const average = (numbers) => numbers.reduce((sum, number) => sum + number, 0) / numbers.length;

function findVariance(numbers) {
  const mean = average(numbers);
  return average(numbers.map((number) => (number - mean) ** 2));
}

/** Return the correlation of two lists; 0 if one of them is constant. */
function correlate(xs, ys) {
  const [x0, y0] = [average(xs), average(ys)];
  const covariance = average(xs.map((x, index) => (x - x0) * (ys[index] - y0)));
  const product = Math.sqrt(findVariance(xs) * findVariance(ys));
  return product ? covariance / product : 0;
}

function findCorrelationRatio(categories, numbers) {
  const groups = new Map();
  categories.forEach((category, index) => groups.set(category, [...(groups.get(category) ?? []), numbers[index]]));
  const means = [...groups.values()].flatMap((group) => group.map(() => average(group)));
  const variance = findVariance(numbers);
  return variance ? Math.sqrt(findVariance(means) / variance) : 0;
}

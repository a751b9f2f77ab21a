// The steps of a pipeline's definition and their dependencies.

const STEP = /^Steps\.([^.[]+)/;

/** Return all steps, also those in branches and loops: `[{name, type, before: [{name, label}]}]`. */
export const readNodes = (definition) => definition.Steps.flatMap((step) => readStep(step, []));

/** @param outer the step that contains this one, with the label of the edge from it. */
function readStep(step, outer) {
  const { IfSteps = [], ElseSteps = [], ForEachBody = [], ...own } = step.Arguments ?? {};
  const listed = (step.DependsOn ?? []).map(readDependency);
  const read = findSteps([own, step.FunctionArn, step.SqsQueueUrl]).map((name) => ({ name, label: "" }));
  const names = new Set(listed.map((one) => one.name));
  const before = [...outer, ...listed, ...read.filter((one) => !names.has(one.name))];
  const contain = (steps, label) => steps.flatMap((inner) => readStep(inner, [{ name: step.Name, label }]));
  return [
    { name: step.Name, type: step.Type, before },
    ...contain(IfSteps, "if"),
    ...contain(ElseSteps, "else"),
    ...contain(ForEachBody, "each"),
  ];
}

const readDependency = (one) =>
  typeof one === "string" ? { name: one, label: "" } : { name: one.Step, label: one.Trigger };

/** Return the names of the steps whose properties a value reads. */
function findSteps(value) {
  const names = new Set();
  collect(value, names);
  return [...names];
}

function collect(value, names) {
  if (value === null || typeof value !== "object") return;
  const name = typeof value.Get === "string" && value.Get.match(STEP)?.[1];
  if (name) names.add(name);
  for (const inner of Object.values(value)) collect(inner, names);
}

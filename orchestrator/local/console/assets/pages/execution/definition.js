// The steps of a pipeline's definition and their dependencies.

const STEP = /^Steps\.([^.[]+)/;

/** Return all steps, also those in branches and loops: `[{name, type, dependencies: [{name, label}]}]`. */
export const readNodes = (definition) => definition.Steps.flatMap((step) => readStep(step, []));

/** @param outerSteps `[{name, label}]`: the step that contains this step, and the label of the edge between them; empty
 *   if no step contains this step. */
function readStep(step, outerSteps) {
  const { IfSteps = [], ElseSteps = [], ForEachBody = [], ...ownArguments } = step.Arguments ?? {};
  const listedDependencies = (step.DependsOn ?? []).map(readDependency);
  const propertyDependencies = findSteps([ownArguments, step.FunctionArn, step.SqsQueueUrl]).map((name) => ({ name, label: "" }));
  const names = new Set(listedDependencies.map((dependency) => dependency.name));
  const dependencies = [...outerSteps, ...listedDependencies, ...propertyDependencies.filter((dependency) => !names.has(dependency.name))];
  const readSteps = (steps, label) => steps.flatMap((inner) => readStep(inner, [{ name: step.Name, label }]));
  return [
    { name: step.Name, type: step.Type, dependencies },
    ...readSteps(IfSteps, "if"),
    ...readSteps(ElseSteps, "else"),
    ...readSteps(ForEachBody, "each"),
  ];
}

const readDependency = (dependency) =>
  typeof dependency === "string" ? { name: dependency, label: "" } : { name: dependency.Step, label: dependency.Trigger };

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

// The description of an endpoint, with the facts that its configuration, its models and its components add.

import { call } from "../../lib/api.js";

/** Return the parts of an endpoint: `{endpoint, isAsynchronous, variants, components}`. */
export async function loadEndpoint(name, signal) {
  const endpoint = await describe("Endpoint", name, signal);
  const config = await describe("EndpointConfig", endpoint.EndpointConfigName, signal).catch(ignoreMissing);
  const variants = [
    ...listVariants(endpoint, config, "ProductionVariants", config?.AsyncInferenceConfig ? "asynchronous" : "real-time"),
    ...listVariants(endpoint, config, "ShadowProductionVariants", "shadow"),
  ];
  const components = await listComponents(name, signal);
  const isAsynchronous = Boolean(config?.AsyncInferenceConfig);
  return { endpoint, isAsynchronous, variants: await Promise.all(variants.map((variant) => addModel(variant, signal))), components };
}

const describe = (noun, name, signal) => call("sagemaker", `Describe${noun}`, { [`${noun}Name`]: name }, { signal });

/** Return null for a configuration, a model or a component that was deleted. */
function ignoreMissing(error) {
  if (error.code === "ValidationException") return null;
  throw error;
}

/** Return the running variants, or the variants of the configuration while no variant runs.
 *
 * @param type the type of the variants that are not serverless. */
function listVariants(endpoint, config, member, type) {
  const configVariants = config?.[member] ?? [];
  const variants = endpoint[member]?.length ? endpoint[member] : configVariants;
  return variants.map((variant) => {
    const settings = configVariants.find((item) => item.VariantName === variant.VariantName) ?? {};
    const serverlessConfig = variant.CurrentServerlessConfig ?? settings.ServerlessConfig;
    return {
      name: variant.VariantName,
      type: serverlessConfig ? "serverless" : type,
      isShadow: type === "shadow",
      model: settings.ModelName,
      capacity: serverlessConfig
        ? `${serverlessConfig.MemorySizeInMB} MB, at most ${serverlessConfig.MaxConcurrency} requests at once`
        : settings.InstanceType,
      instances: serverlessConfig ? "" : variant.CurrentInstanceCount,
      weight: variant.CurrentWeight ?? settings.InitialVariantWeight,
      status: variant.VariantStatus?.map((status) => status.StatusMessage ?? status.Status).join(", "),
    };
  });
}

async function addModel(variant, signal) {
  if (!variant.model) return { ...variant, type: variant.type === "real-time" ? "inference components" : variant.type };
  const model = await describe("Model", variant.model, signal).catch(ignoreMissing);
  const containers = [model?.PrimaryContainer, ...(model?.Containers ?? [])].filter(Boolean);
  const isMultiModel = containers.some((container) => container.Mode === "MultiModel");
  const isDirect = model?.InferenceExecutionConfig?.Mode === "Direct";
  return { ...variant, isMultiModel, isDirect, type: isMultiModel ? `${variant.type}, multi-model` : variant.type };
}

async function listComponents(name, signal) {
  const members = { EndpointNameEquals: name, MaxResults: 100 };
  const summaries = (await call("sagemaker", "ListInferenceComponents", members, { signal })).InferenceComponents;
  const components = await Promise.all(
    summaries.map((summary) => describe("InferenceComponent", summary.InferenceComponentName, signal).catch(ignoreMissing)),
  );
  return components.filter(Boolean).map((component) => ({
    name: component.InferenceComponentName,
    variant: component.VariantName,
    copies: component.RuntimeConfig?.CurrentCopyCount,
    status: component.InferenceComponentStatus,
    failure: component.FailureReason ?? "",
  }));
}

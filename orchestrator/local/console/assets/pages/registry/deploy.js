// The deployment of a version: a model, an endpoint configuration, and a new or changed endpoint.

import { call } from "../../lib/api.js";

const READ_ONLY = ["EndpointConfigArn", "EndpointConfigName", "CreationTime"];
const create = (noun, members) => call("sagemaker", `Create${noun}`, members);

/** Return the names of the endpoints that an update can change. */
export async function listEndpoints(signal) {
  const members = { StatusEquals: "InService", SortBy: "Name", SortOrder: "Ascending", MaxResults: 100 };
  const { Endpoints: endpoints } = await call("sagemaker", "ListEndpoints", members, { signal });
  return endpoints.map((one) => one.EndpointName);
}

/** Return the members of the present configuration of an endpoint, without its name. */
export async function loadConfig(endpoint, signal) {
  const { EndpointConfigName } = await call("sagemaker", "DescribeEndpoint", { EndpointName: endpoint }, { signal });
  const config = await call("sagemaker", "DescribeEndpointConfig", { EndpointConfigName }, { signal });
  return Object.fromEntries(Object.entries(config).filter(([name]) => !READ_ONLY.includes(name)));
}

/** Create an endpoint for a version. */
export function deploy(version, endpoint, instances) {
  const variant = { VariantName: "AllTraffic", ...instances };
  return replaceConfig(version, endpoint, (model) => ({ ProductionVariants: [{ ...variant, ModelName: model }] }), "Create");
}

/** Update an endpoint: one variant gets the version, and the new configuration is otherwise that of the endpoint. */
export function update(version, endpoint, variantName, instances) {
  const change = async (model) => {
    const { ProductionVariants: variants, ...others } = await loadConfig(endpoint);
    const changed = variants.map((one) => (one.VariantName === variantName ? { ...one, ...instances, ModelName: model } : one));
    return { ...others, ProductionVariants: changed };
  };
  return replaceConfig(version, endpoint, change, "Update");
}

/** If a request fails, the resources of the earlier requests are deleted. */
async function replaceConfig(version, endpoint, makeConfig, verb) {
  const name = `${endpoint}-${Date.now().toString(36)}`;
  const role = `arn:aws:iam::${version.ModelPackageArn.split(":")[4]}:role/microjobs`;
  const undo = [];
  try {
    const container = { ModelPackageName: version.ModelPackageArn };
    await create("Model", { ModelName: name, Containers: [container], ExecutionRoleArn: role });
    undo.push(["DeleteModel", { ModelName: name }]);
    await create("EndpointConfig", { ...(await makeConfig(name)), EndpointConfigName: name });
    undo.push(["DeleteEndpointConfig", { EndpointConfigName: name }]);
    await call("sagemaker", `${verb}Endpoint`, { EndpointName: endpoint, EndpointConfigName: name });
  } catch (error) {
    await Promise.allSettled(undo.map(([operation, members]) => call("sagemaker", operation, members)));
    throw error;
  }
}

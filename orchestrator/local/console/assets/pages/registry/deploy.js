// The deployment of a version: a model, an endpoint configuration, and a new or changed endpoint.

import { call } from "../../lib/api.js";

const READ_ONLY_MEMBERS = ["EndpointConfigArn", "EndpointConfigName", "CreationTime"];
const create = (noun, members) => call("sagemaker", `Create${noun}`, members);

/** Return the names of the endpoints that an update can change, at most 100. */
export async function listEndpoints(signal) {
  const members = { StatusEquals: "InService", SortBy: "Name", SortOrder: "Ascending", MaxResults: 100 };
  const { Endpoints: endpoints } = await call("sagemaker", "ListEndpoints", members, { signal });
  return endpoints.map((endpoint) => endpoint.EndpointName);
}

/** Return the members of the current configuration of an endpoint, except READ_ONLY_MEMBERS. */
export async function loadConfig(endpoint, signal) {
  const { EndpointConfigName } = await call("sagemaker", "DescribeEndpoint", { EndpointName: endpoint }, { signal });
  const config = await call("sagemaker", "DescribeEndpointConfig", { EndpointConfigName }, { signal });
  return Object.fromEntries(Object.entries(config).filter(([name]) => !READ_ONLY_MEMBERS.includes(name)));
}

/** Create an endpoint for a version.
 *
 * @param instances the members InstanceType and InitialInstanceCount of the variant. */
export function deploy(version, endpoint, instances) {
  const variant = { VariantName: "AllTraffic", ...instances };
  return deployWithConfig(version, endpoint, (model) => ({ ProductionVariants: [{ ...variant, ModelName: model }] }), "Create");
}

/** Update an endpoint: one variant gets the version, and the rest of the configuration does not change. */
export function update(version, endpoint, variantName, instances) {
  const change = async (model) => {
    const { ProductionVariants: variants, ...otherMembers } = await loadConfig(endpoint);
    const newVariants = variants.map((variant) => (variant.VariantName === variantName ? { ...variant, ...instances, ModelName: model } : variant));
    return { ...otherMembers, ProductionVariants: newVariants };
  };
  return deployWithConfig(version, endpoint, change, "Update");
}

/** Create a model and a configuration, and create or update the endpoint. If a request fails, delete the created
 * resources. */
async function deployWithConfig(version, endpoint, makeConfig, verb) {
  const name = `${endpoint}-${Date.now().toString(36)}`;
  const role = `arn:aws:iam::${version.ModelPackageArn.split(":")[4]}:role/microjobs`;
  const undoRequests = [];
  try {
    const container = { ModelPackageName: version.ModelPackageArn };
    await create("Model", { ModelName: name, Containers: [container], ExecutionRoleArn: role });
    undoRequests.push(["DeleteModel", { ModelName: name }]);
    await create("EndpointConfig", { ...(await makeConfig(name)), EndpointConfigName: name });
    undoRequests.push(["DeleteEndpointConfig", { EndpointConfigName: name }]);
    await call("sagemaker", `${verb}Endpoint`, { EndpointName: endpoint, EndpointConfigName: name });
  } catch (error) {
    await Promise.allSettled(undoRequests.map(([operation, members]) => call("sagemaker", operation, members)));
    throw error;
  }
}

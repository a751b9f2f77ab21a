// The deployment of a version: a model, an endpoint configuration, and an endpoint.

import { call } from "../../lib/api.js";

/** Create an endpoint for a version. If a request fails, the resources of the earlier requests are deleted. */
export async function deploy(version, endpoint, instanceType, count) {
  const name = `${endpoint}-${Date.now().toString(36)}`;
  const account = version.ModelPackageArn.split(":")[4];
  const role = `arn:aws:iam::${account}:role/microjobs`;
  const variant = { VariantName: "AllTraffic", ModelName: name, InstanceType: instanceType, InitialInstanceCount: count };
  const container = { ModelPackageName: version.ModelPackageArn };
  const undo = [];
  try {
    await create("Model", { ModelName: name, Containers: [container], ExecutionRoleArn: role });
    undo.push(["DeleteModel", { ModelName: name }]);
    await create("EndpointConfig", { EndpointConfigName: name, ProductionVariants: [variant] });
    undo.push(["DeleteEndpointConfig", { EndpointConfigName: name }]);
    await create("Endpoint", { EndpointName: endpoint, EndpointConfigName: name });
  } catch (error) {
    await Promise.allSettled(undo.map(([operation, members]) => call("sagemaker", operation, members)));
    throw error;
  }
}

const create = (noun, members) => call("sagemaker", `Create${noun}`, members);

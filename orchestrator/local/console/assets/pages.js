// The pages: each page has one module and one line of this list. `path` is the part of the address after `#/`; segments
// that start with a colon are parameters. Pages with a `title` are in the navigation. A module exports the component
// `Page`, which gets the parameters and the query of the address.

export const pages = [
  { path: "jobs", title: "Jobs", load: () => import("./pages/list.js") },
  { path: "endpoints", title: "Endpoints", load: () => import("./pages/endpoints.js") },
  { path: "endpoints/:id", load: () => import("./pages/endpoint.js") },
  { path: "pipelines", title: "Pipelines", load: () => import("./pages/pipelines.js") },
  { path: "pipelines/:name", load: () => import("./pages/pipeline.js") },
  { path: "pipelines/:name/:id", load: () => import("./pages/execution.js") },
  { path: "tuning", title: "Tuning", load: () => import("./pages/tuning.js") },
  { path: "tuning/:id", load: () => import("./pages/trials.js") },
  { path: "registry", title: "Registry", load: () => import("./pages/groups.js") },
  { path: "registry/:group", load: () => import("./pages/group.js") },
  { path: "jobs/:type/:id", load: () => import("./pages/resource.js") },
  { path: "metrics/:type/:id", load: () => import("./pages/metrics.js") },
  { path: "logs/:type/:id", load: () => import("./pages/logs.js") },
  { path: "code/:type/:id", load: () => import("./pages/code.js") },
  { path: "compare", title: "Compare", load: () => import("./pages/compare.js") },
  { path: "buckets", title: "Buckets", load: () => import("./pages/buckets.js") },
  { path: "buckets/:bucket", load: () => import("./pages/bucket.js") },
  { path: "buckets/:bucket/:key", load: () => import("./pages/object.js") },
];

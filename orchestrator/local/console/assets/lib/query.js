// Data of a page, which are requested again when a resource changes.

import { onChanges } from "./live.js";
import { useEffect, useRef, useState } from "./ui.js";

const MIN_INTERVAL_MS = 500;
const MIN_POINTS_INTERVAL_MS = 1000;

/** Call an async function, and return its result as `{data, error, isLoading, reload}`.
 *
 * @param load the function; its argument is an AbortSignal.
 * @param keys the function is called again when one of these values changes.
 * @param usesResource returns whether the data depend on a changed resource, `{kind, name, arn, status}`; null if they
 *   depend on no resource.
 * @param usesMetric returns whether the data depend on a metric with new points; the argument is its dimensions; null
 *   if they depend on no metric.
 */
export function useQuery(load, keys, usesResource = null, usesMetric = null) {
  const [state, setState] = useState({ data: null, error: null, isLoading: true });
  const latest = useRef(null);
  latest.current = { load, usesResource: usesResource ?? returnFalse, usesMetric: usesMetric ?? returnFalse };
  const reload = useRef(() => {});
  useEffect(() => {
    const interval = usesMetric ? MIN_POINTS_INTERVAL_MS : MIN_INTERVAL_MS;
    const loop = new LoadLoop((signal) => latest.current.load(signal), setState, interval);
    reload.current = () => loop.request();
    setState((old) => ({ ...old, isLoading: true }));
    loop.request();
    const stop = (usesResource || usesMetric) && onChanges((event) => {
      const { usesResource, usesMetric } = latest.current;
      if (event.isTruncated || event.changes.some(usesResource) || event.metrics.some(usesMetric)) loop.request();
    });
    return () => {
      loop.stop();
      stop?.();
    };
  }, keys);
  return { ...state, reload: () => reload.current() };
}

const returnFalse = () => false;

/** Calls a function on request: one call at a time, with a minimum interval between calls. */
class LoadLoop {
  constructor(load, setState, interval) {
    Object.assign(this, { load, setState, interval });
    this.controller = new AbortController();
    this.isRunning = this.isRequested = false;
  }

  request() {
    this.isRequested = true;
    if (!this.isRunning) this.run();
  }

  stop() {
    this.isRequested = false;
    this.controller.abort();
  }

  async run() {
    this.isRunning = true;
    const { signal } = this.controller;
    while (this.isRequested && !signal.aborted) {
      this.isRequested = false;
      const result = await this.load(signal).then(
        (data) => ({ data, error: null }),
        (error) => ({ error }),
      );
      if (signal.aborted) return;
      this.setState((old) => ({ ...old, ...result, isLoading: false }));
      await new Promise((resolve) => setTimeout(resolve, this.interval));
    }
    this.isRunning = false;
  }
}

// Data of a page: they are requested again when a resource changes.

import { onChanges } from "./live.js";
import { useEffect, useRef, useState } from "./ui.js";

const MIN_INTERVAL = 500;
const MIN_POINTS_INTERVAL = 1000;

/** Return `{data, error, isLoading, reload}` of an async function, which gets an AbortSignal.
 *
 * @param keys the function runs again when one of these values changes.
 * @param isAffected returns whether a changed resource, `{kind, name, arn, status}`, affects the data; null: none does.
 * @param hasPoints returns whether new points of a metric, given by its dimensions, affect the data; null: none do.
 */
export function useQuery(load, keys, isAffected = null, hasPoints = null) {
  const [state, setState] = useState({ data: null, error: null, isLoading: true });
  const latest = useRef(null);
  latest.current = { load, isAffected: isAffected ?? never, hasPoints: hasPoints ?? never };
  const reload = useRef(() => {});
  useEffect(() => {
    const interval = hasPoints ? MIN_POINTS_INTERVAL : MIN_INTERVAL;
    const loop = new Loop((signal) => latest.current.load(signal), setState, interval);
    reload.current = () => loop.request();
    setState((old) => ({ ...old, isLoading: true }));
    loop.request();
    const stop = (isAffected || hasPoints) && onChanges((event) => {
      const { isAffected, hasPoints } = latest.current;
      if (event.many || event.changes.some(isAffected) || event.metrics.some(hasPoints)) loop.request();
    });
    return () => {
      loop.stop();
      stop?.();
    };
  }, keys);
  return { ...state, reload: () => reload.current() };
}

const never = () => false;

/** Runs a function again on request: one call at a time, with a minimum interval. */
class Loop {
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

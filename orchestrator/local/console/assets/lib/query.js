// Data of a page: they are requested again when a resource changes.

import { onChanges } from "./live.js";
import { useEffect, useRef, useState } from "./ui.js";

const MIN_INTERVAL = 500;
const RELOAD_INTERVAL = 2000;

/** Return `{data, error, isLoading, reload}` of an async function, which gets an AbortSignal.
 *
 * @param keys the function runs again when one of these values changes.
 * @param isAffected returns whether a changed resource, `{kind, name, arn, status}`, affects the data; null: nothing does.
 */
export function useQuery(load, keys, isAffected = null) {
  const [state, setState] = useState({ data: null, error: null, isLoading: true });
  const latest = useRef(null);
  latest.current = { load, isAffected };
  const reload = useRef(() => {});
  useEffect(() => {
    const loop = new Loop((signal) => latest.current.load(signal), setState);
    reload.current = () => loop.request();
    setState((old) => ({ ...old, isLoading: true }));
    loop.request();
    const stop = isAffected && onChanges((event) => {
      if (event.many || event.changes.some(latest.current.isAffected)) loop.request();
    });
    return () => {
      loop.stop();
      stop?.();
    };
  }, keys);
  return { ...state, reload: () => reload.current() };
}

/** Load again in intervals, for data whose changes no event reports. */
export function useReload(reload, isNeeded) {
  useEffect(() => {
    const timer = isNeeded && setInterval(() => document.hidden || reload(), RELOAD_INTERVAL);
    return () => clearInterval(timer);
  }, [isNeeded]);
}

/** Runs a function again on request: one call at a time, with a minimum interval. */
class Loop {
  constructor(load, setState) {
    this.load = load;
    this.setState = setState;
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
      await new Promise((resolve) => setTimeout(resolve, MIN_INTERVAL));
    }
    this.isRunning = false;
  }
}

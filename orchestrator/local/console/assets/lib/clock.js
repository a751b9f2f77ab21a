// The current time.

import { useEffect, useState } from "./ui.js";

/** Return the current time in seconds since 1970. The component is drawn again each second while a resource runs. */
export function useNow(isRunning) {
  const [now, setNow] = useState(Date.now() / 1000);
  useEffect(() => {
    const timer = isRunning && setInterval(() => setNow(Date.now() / 1000), 1000);
    return () => clearInterval(timer);
  }, [isRunning]);
  return now;
}

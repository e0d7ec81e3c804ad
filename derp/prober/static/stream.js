// The connection to /events: kept, watched, and made anew whenever it is none any more.

const SILENCE_MS = 25000; // the server says something every 10 s
const FIRST_RETRY_MS = 1000;
const LAST_RETRY_MS = 30000;

export function listen(on) {
  let source = null;
  let watchdog = 0;
  let retry = 0;
  let delay = FIRST_RETRY_MS;

  function heard() {
    clearTimeout(watchdog);
    watchdog = setTimeout(lost, SILENCE_MS);
  }

  function lost() {
    clearTimeout(watchdog);
    clearTimeout(retry);
    if (source) source.close();
    source = null;
    on.lost(delay);
    retry = setTimeout(connect, delay);
    delay = Math.min(delay * 2, LAST_RETRY_MS);
  }

  function connect() {
    clearTimeout(retry);
    if (source) source.close();
    source = new EventSource("/events");
    heard();
    source.onerror = lost;
    for (const kind of ["snapshot", "probes", "tick"]) {
      source.addEventListener(kind, (event) => {
        delay = FIRST_RETRY_MS;
        heard();
        on[kind](JSON.parse(event.data));
      });
    }
  }

  // A laptop that wakes, a phone that finds its network again: do not wait for the timer.
  addEventListener("online", () => { if (!source) connect(); });
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden && !source) connect();
  });
  addEventListener("pagehide", () => { if (source) source.close(); });
  addEventListener("pageshow", (event) => { if (event.persisted) connect(); });
  connect();
}

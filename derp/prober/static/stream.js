// The connection to /events: kept, watched, and made anew whenever it is none any more.
//
// A browser has six connections to one server, for all its tabs together. One that nobody sees
// lets go of its own after a while, and asks now and then, for its title and icon. Where no
// stream gets through (too many listen, a proxy keeps events back) the page asks as well.

const SILENCE_MS = 25000; // the server says something every 10 s
const FIRST_RETRY_MS = 1000;
const LAST_RETRY_MS = 30000;
const HIDDEN_MS = 20000;
const POLL_MS = 60000;

export function listen(on) {
  let source = null;
  let watchdog = 0;
  let retry = 0;
  let delay = FIRST_RETRY_MS;
  let resting = 0;
  let polling = 0;
  let failures = 0; // in a row

  function heard() {
    clearTimeout(watchdog);
    watchdog = setTimeout(lost, SILENCE_MS);
  }

  function lost() {
    clearTimeout(watchdog);
    clearTimeout(retry);
    if (source) source.close();
    source = null;
    failures += 1;
    if (failures > 2) poll(delay);
    else on.lost(delay);
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
        failures = 0;
        heard();
        on[kind](JSON.parse(event.data));
      });
    }
  }

  function rest() {
    clearTimeout(watchdog);
    clearTimeout(retry);
    if (source) source.close();
    source = null;
    polling = setInterval(() => poll(POLL_MS), POLL_MS);
  }

  async function poll(next) {
    try {
      const answer = await fetch("/snapshot.json", { cache: "no-store" });
      on.snapshot(await answer.json());
    } catch (_) {
      on.lost(next);
    }
  }

  // A laptop that wakes, a phone that finds its network again: do not wait for the timer.
  addEventListener("online", () => { if (!source && !polling) connect(); });
  document.addEventListener("visibilitychange", () => {
    clearTimeout(resting);
    if (document.hidden) {
      resting = setTimeout(rest, HIDDEN_MS);
      return;
    }
    clearInterval(polling);
    polling = 0;
    if (!source) connect();
  });
  addEventListener("pagehide", () => { if (source) source.close(); });
  addEventListener("pageshow", (event) => { if (event.persisted) connect(); });
  connect();
}

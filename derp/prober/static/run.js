// Buttons that run probes out of turn, by the pages below /debug/.

import { el, mark, say } from "./dom.js";

const toast = document.getElementById("toast");
let hiding = 0;

function tell(text, state) {
  clearTimeout(hiding);
  mark(toast, "data-state", state);
  toast.replaceChildren(el("p", { text }));
  toast.hidden = false;
  hiding = setTimeout(() => { toast.hidden = true; }, 8000);
}

async function ask(path) {
  const answer = await fetch(path, { headers: { Accept: "application/json" }, cache: "no-store" });
  const text = await answer.text();
  if (answer.status !== 200 && answer.status !== 424) throw new Error(text.trim() || `HTTP ${answer.status}`);
  return { ok: answer.status === 200, data: JSON.parse(text) };
}

async function press(button, act) {
  if (button.getAttribute("aria-disabled") === "true") return;
  const words = button.textContent;
  button.setAttribute("aria-disabled", "true"); // it keeps the focus, unlike with "disabled"
  say(button, "running…");
  try {
    await act();
  } catch (error) {
    tell(`It could not be run: ${error.message}`, "failing");
  }
  button.removeAttribute("aria-disabled");
  say(button, words);
}

export function runButton(name) {
  const button = el("button", {
    type: "button", class: "run", text: "Run", title: `Run ${name} now`, "aria-label": `Run ${name} now`,
  });
  button.addEventListener("click", () => press(button, async () => {
    const { ok, data } = await ask(`/debug/probe-run?name=${encodeURIComponent(name)}`);
    const info = data.ProbeInfo || {};
    if (ok) tell(`${name} succeeded in ${((info.Latency || 0) / 1e6).toFixed(1)} ms`, "ok");
    else tell(`${name} failed: ${info.Error || "no reason was given"}`, "failing");
  }));
  return button;
}

export function runAll(button) {
  if (!button) return;
  button.addEventListener("click", () => press(button, async () => {
    const { data } = await ask("/debug/probe-all");
    const results = Object.values(data.Results || {});
    const failed = results.filter((each) => (each.ProbeInfo || each).Error).length;
    if (failed) tell(`${failed} of ${results.length} probes failed`, "failing");
    else tell(`All ${results.length} probes succeeded`, "ok");
  }));
}

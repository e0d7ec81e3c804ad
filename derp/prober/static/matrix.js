// Who reaches whom in a meshed region: a table whose cells are as warm as the way is slow.

import { el, mark, say } from "./dom.js";
import { ms, rate, symbol, word } from "./format.js";

const STEPS_MS = [20, 50, 120, 300]; // up to 20 ms is the coolest, above 300 ms the warmest

export function matrix(model, open) {
  const cells = new Map(); // probe's name to its cell
  const head = el("tr", {}, el("td", { class: "corner" }, el("span", { text: "from ↓  to →" })));
  for (const to of model.nodes) head.append(el("th", { scope: "col", text: to, title: to }));
  const body = el("tbody");
  for (const from of model.nodes) {
    const row = el("tr", {}, el("th", { scope: "row", text: from, title: from }));
    for (const to of model.nodes) {
      const name = (model.cells[from] || {})[to];
      if (name === undefined) {
        row.append(el("td", { class: "none", text: "·" }));
        continue;
      }
      const button = el("button", { type: "button", class: "cell", on: { click: () => open(name) } });
      cells.set(name, button);
      row.append(el("td", {}, button));
    }
    body.append(row);
  }
  const caption = el("caption", { text: `${model.title} between nodes` });
  const element = el("div", { class: "scroll" },
    el("table", { class: "matrix" }, caption, el("thead", {}, head), body));
  return {
    element,
    names: () => cells.keys(),
    update(view) {
      const cell = cells.get(view.name);
      if (cell) paint(cell, view);
    },
  };
}

function paint(cell, view) {
  const [value, heat] = measured(view);
  mark(cell, "data-state", view.state);
  mark(cell, "data-heat", view.state === "ok" && heat !== null ? String(heat) : null);
  mark(cell, "data-running", view.running && !view.continuous ? "" : null);
  say(cell, view.state === "ok" ? value : symbol(view.state));
  const why = view.state === "failing" ? `: ${view.reason}` : `, ${value}`;
  const text = `${view.title} from ${view.node} to ${view.to}: ${word(view.state)}${why}`;
  mark(cell, "title", text);
  mark(cell, "aria-label", text);
}

// The number that tells most of a pair, and how warm it is (none for what has no scale).
function measured(view) {
  const found = view.findings;
  if (view.class === "derp_bw" && found.mbit_per_second !== undefined) {
    return [rate(Number(found.mbit_per_second)), null];
  }
  let latency = view.p50;
  if (view.class === "derp_mesh" && found.packet_ms !== undefined) latency = Number(found.packet_ms);
  if (view.class === "derp_qd") latency = found.p50_ms === undefined ? null : Number(found.p50_ms);
  if (latency === null) return [view.class === "derp_qd" ? "✓" : "–", null];
  return [ms(latency), STEPS_MS.filter((step) => latency > step).length];
}

// A region's card: its nodes, the probes of each, and who reaches whom.

import { el, mark, say } from "./dom.js";
import { facts } from "./facts.js";
import { count, ms, symbol, word } from "./format.js";
import { matrix } from "./matrix.js";
import { spark } from "./spark.js";

export function regionCard(region, page) {
  const pill = el("span", { class: "pill" });
  const rows = new Map(); // probe's name to what draws it
  const nodes = region.nodes.map((node) => nodeBlock(node, rows, page));
  const matrices = region.matrices.map((model) => matrix(model, page.open));
  for (const each of matrices) for (const name of each.names()) if (!rows.has(name)) rows.set(name, each);
  const element = el("section", {
    class: "card region", "aria-label": `Region ${region.code}`, "data-wide": nodes.length + matrices.length > 2,
  },
    el("header", {},
      el("h2", {},
        el("span", { class: "code", text: region.code || `region ${region.id}` }),
        el("small", { text: `region ${region.id}, ${count(region.nodes.length, "node")}` })),
      pill),
    el("div", { class: "nodes" },
      ...nodes.map((node) => node.element), ...matrices.map((each) => each.element)));
  return {
    element,
    update(views, now, changed) {
      const states = { ok: 0, failing: 0, pending: 0 };
      for (const view of views) {
        states[view.state] += 1;
        if (changed && !changed.has(view.name)) continue;
        for (const drawer of [rows.get(view.name), ...matrices]) if (drawer) drawer.update(view, now);
      }
      for (const node of nodes) node.settle(page.view);
      const state = states.failing ? "failing" : states.ok ? "ok" : "pending";
      mark(element, "data-state", state);
      mark(pill, "data-state", state);
      say(pill, states.failing ? `${symbol(state)} ${states.failing} of ${views.length} failing` : `${symbol(state)} ${word(state)}`);
    },
  };
}

function nodeBlock(node, rows, page) {
  const beacon = el("span", { class: "mark" });
  const list = el("ul", { class: "probes" });
  for (const name of node.probes) {
    const row = probeRow(name, page);
    rows.set(name, row);
    list.append(row.element);
  }
  const host = node.hostname || node.name;
  const element = el("article", { class: "node", "aria-label": `Node ${host}` },
    el("div", { class: "line heads" },
      el("h3", {}, beacon, el("span", { class: "host", text: host, title: host }),
        node.name !== host ? el("small", { text: node.name }) : ""),
      el("span", { text: "median" }), el("span", { text: "95 %" }), el("span", { text: "last run" })),
    list);
  return {
    element,
    settle(view) {
      const states = node.probes.map((name) => view(name)).filter(Boolean).map((each) => each.state);
      const state = states.includes("failing") ? "failing" : states.includes("ok") ? "ok" : "pending";
      mark(element, "data-state", state);
      mark(beacon, "data-state", state);
      say(beacon, symbol(state));
    },
  };
}

function probeRow(name, page) {
  const beacon = el("span", { class: "mark" });
  const title = el("span", { class: "title" });
  const last = figure("last");
  last.element.classList.add("last");
  const median = figure("median");
  const high = figure("95 %");
  const found = el("p", { class: "facts" });
  const reason = el("p", { class: "reason", hidden: true });
  const picture = spark();
  const run = page.mayRun ? page.runButton(name) : null;
  const element = el("li", { class: "probe" },
    el("div", { class: "line" },
      el("span", { class: "name" }, beacon, title), picture.element,
      median.element, high.element, last.element),
    reason, el("div", { class: "below" }, found, run || ""));
  return {
    element,
    update(view, now) {
      mark(element, "data-state", view.state);
      mark(element, "data-running", view.running && !view.continuous ? "" : null);
      mark(beacon, "data-state", view.state);
      mark(beacon, "title", word(view.state));
      mark(element, "title", view.name);
      say(beacon, symbol(view.state));
      say(title, view.title);
      say(last.value, view.state === "failing" ? "failing" : view.continuous ? "running" : ms(view.latency));
      say(median.value, ms(view.p50));
      say(high.value, ms(view.p95));
      say(reason, view.reason);
      reason.hidden = !view.reason;
      if (run) run.hidden = view.continuous;
      picture.draw(view, now, page.bucket());
      tellFacts(found, facts(view));
    },
  };
}

function figure(label) {
  const value = el("b", { class: "number" });
  return { element: el("span", { class: "figure" }, el("i", { text: label }), value), value };
}

function tellFacts(list, told) {
  const key = JSON.stringify(told);
  if (list.dataset.told === key) return;
  list.dataset.told = key;
  list.replaceChildren(...told.map(([text, kind]) => el("span", { class: `fact ${kind}`.trim(), text })));
}

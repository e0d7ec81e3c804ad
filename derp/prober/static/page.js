// The page: what is known, drawn anew as events tell of changes.

import { el, mark, say } from "./dom.js";
import { clock, count, moment, span, symbol } from "./format.js";
import { regionCard } from "./region.js";
import { runAll, runButton } from "./run.js";
import { listen } from "./stream.js";
import { themeButton } from "./theme.js";

const byId = (id) => document.getElementById(id);
const TITLE = "DERP Prober";

const state = {
  probes: new Map(), regions: [], summary: null, failures: [], bucket: 300,
  ahead: 0, // seconds that the server's clock is ahead of ours
  heardAt: 0, lost: false,
};
const now = () => Date.now() / 1000 + state.ahead;

const mayRun = document.body.hasAttribute("data-may-run");
const drawn = byId("drawn");
const trouble = el("section", { class: "trouble", hidden: true, "aria-label": "Failing now" });
const grid = el("div", { class: "grid" });
const history = el("section", { class: "card history", "aria-label": "Last failures" });
drawn.append(trouble, grid, history);

const page = {
  mayRun, runButton,
  bucket: () => state.bucket,
  view: (name) => state.probes.get(name),
  open: (name) => show(state.probes.get(name)),
};
let cards = [];
let arrangement = "";

// -- what comes -----------------------------------------------------------------------------

function heard(data) {
  state.ahead = data.now - Date.now() / 1000;
  state.heardAt = data.now;
  if (state.lost) {
    state.lost = false;
    byId("banner").hidden = true;
    document.body.removeAttribute("data-lost");
  }
  live();
}

function snapshot(data) {
  heard(data);
  state.bucket = data.bucket;
  state.regions = data.regions;
  state.summary = data.summary;
  state.failures = data.failures;
  state.map = data.map;
  state.probes = new Map(Object.entries(data.probes));
  arrange();
  draw();
}

function changes(data) {
  heard(data);
  state.summary = data.summary;
  if (data.failures) state.failures = data.failures;
  for (const view of data.probes) {
    const before = state.probes.get(view.name);
    const oldest = (now() - 6 * 3600) / state.bucket - 1;
    const points = new Map();
    for (const point of [...(before ? before.spark : []), ...view.spark]) {
      if (point[0] > oldest) points.set(point[0], point);
    }
    state.probes.set(view.name, { ...view, spark: [...points.values()] });
  }
  draw(new Set(data.probes.map((view) => view.name)));
}

function lost(delay) {
  state.lost = true;
  document.body.setAttribute("data-lost", "");
  const banner = byId("banner");
  banner.hidden = false;
  const age = state.heardAt ? `What you see is from ${clock(state.heardAt)}. ` : "";
  say(banner, `Connection lost. ${age}Trying again in ${span(delay / 1000)}…`);
  live();
}

// -- what is drawn --------------------------------------------------------------------------

function arrange() {
  const key = JSON.stringify(state.regions.map((region) => [region.code, region.id,
    region.nodes.map((node) => [node.name, node.hostname, node.probes]),
    region.matrices.map((each) => [each.class, each.nodes, each.cells])]));
  if (key === arrangement) return;
  arrangement = key;
  cards = state.regions.map((region) => ({ region, card: regionCard(region, page) }));
  grid.replaceChildren(...cards.map(({ card }) => card.element));
  for (const { card } of cards) sizes.observe(card.element);
}

// Cards are as high as they are: each takes as many of the grid's low rows as it needs.
const sizes = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    const rows = String(Math.ceil((target.offsetHeight + 17) / 8));
    if (target.dataset.rows === rows) continue;
    target.dataset.rows = rows;
    target.style.gridRowEnd = `span ${rows}`;
  }
});

// Everything, or what has changed: of hundreds of probes only a few do within a second.
function draw(changed = null) {
  const views = [...state.probes.values()];
  const members = new Map();
  for (const view of views) {
    const key = JSON.stringify([view.region, view.region_id]);
    if (!members.has(key)) members.set(key, []);
    members.get(key).push(view);
  }
  for (const { region, card } of cards) {
    card.update(members.get(JSON.stringify([region.code, region.id])) || [], now(), changed);
  }
  drawVerdict();
  drawTrouble(views.filter((view) => view.state === "failing"));
  drawFailures();
  byId("plain").hidden = true;
  drawn.hidden = false;
  ages();
}

function drawVerdict() {
  const { total, failing, ok, state: overall } = state.summary;
  let text = "All healthy";
  if (!total) text = "No probes yet";
  else if (failing) text = `${failing} of ${total} failing`;
  else if (!ok) text = "Waiting for first results";
  mark(document.body, "data-state", overall);
  say(byId("headline"), text);
  const nodes = state.regions.reduce((sum, region) => sum + region.nodes.length, 0);
  say(byId("subline"), `${count(total, "probe")}, ${count(nodes, "node")}, ${count(state.regions.length, "region")}`);
  drawMap(state.probes.get(state.map));
  const title = failing ? `${symbol("failing")} ${text} | ${TITLE}` : TITLE;
  if (document.title !== title) document.title = title;
  mark(byId("icon"), "href", `/static/${overall}.svg`);
}

function drawMap(view) {
  const line = byId("map-line");
  line.hidden = !view;
  if (!view) return;
  mark(line, "data-state", view.state);
  say(line.querySelector("b"), `${symbol(view.state)} DERP map`);
  const time = line.querySelector("time");
  time.hidden = view.ended === null;
  mark(time, "data-words", view.state === "failing" ? "tried " : "read ");
  mark(time, "data-at", String(view.ended ?? 0));
}

function place(view) {
  const at = view.to && view.to !== view.node ? `${view.node} → ${view.to}` : view.hostname || view.node;
  return [at, view.region && `(${view.region})`].filter(Boolean).join(" ");
}

function drawTrouble(failing) {
  failing.sort((one, other) => (one.since || 0) - (other.since || 0) || (one.name < other.name ? -1 : 1));
  trouble.hidden = !failing.length;
  const key = JSON.stringify(failing.map((view) => [view.name, view.reason, view.since]));
  if (trouble.dataset.key === key) return;
  trouble.dataset.key = key;
  trouble.replaceChildren(
    el("h2", { text: "Failing now" }),
    el("ul", {}, ...failing.map((view) => el("li", {},
      el("p", { class: "what" }, el("b", { text: view.title }), ` ${place(view)}`,
        view.since ? el("time", { class: "age", "data-at": view.since, "data-words": "for ", title: `since ${moment(view.since)}` }) : ""),
      el("p", { class: "reason", text: view.reason })))));
}

function drawFailures() {
  const key = JSON.stringify(state.failures);
  if (history.dataset.key === key) return;
  history.dataset.key = key;
  const items = state.failures.map((each) => el("li", {},
    el("span", {}, el("time", { class: "age", "data-at": each.at, "data-after": " ago", title: moment(each.at) }),
      each.count > 1 ? el("span", { class: "times", text: ` ×${each.count}`, title: `${each.count} times since ${moment(each.first)}` }) : ""),
    el("span", { class: "what" }, el("b", { text: each.title }), ` ${each.where}`),
    el("span", { class: "why", text: each.reason })));
  history.replaceChildren(
    el("h2", { text: "Last failures" }),
    items.length ? el("ol", {}, ...items) : el("p", { class: "muted", text: "None that anybody here remembers." }));
}

function ages() {
  for (const time of document.querySelectorAll("time.age")) {
    say(time, (time.dataset.words || "") + span(now() - Number(time.dataset.at)) + (time.dataset.after || ""));
  }
  if (state.heardAt) say(byId("as-of"), moment(state.heardAt));
}

function live() {
  const sign = byId("live");
  mark(sign, "data-live", state.lost ? "off" : "on");
  say(sign.querySelector("b"), state.lost ? "offline" : "live");
}

// A cell of a matrix was chosen: its row of figures does not fit there, so say them here.
function show(view) {
  if (!view) return;
  const toast = byId("toast");
  const run = mayRun && !view.continuous ? runButton(view.name) : "";
  const close = el("button", { type: "button", text: "Close", on: { click: () => { toast.hidden = true; } } });
  toast.replaceChildren(
    el("p", {}, el("b", { text: `${view.title} ${place(view)}` })),
    el("p", { text: view.reason || `median ${view.p50 ?? "–"} ms, 95 % within ${view.p95 ?? "–"} ms; ${view.failures} of ${view.runs} runs failed` }),
    el("p", { class: "actions" }, run, close));
  mark(toast, "data-state", view.state);
  toast.hidden = false;
}

// -- what can be pressed --------------------------------------------------------------------

const only = byId("only");
only.addEventListener("click", () => {
  const pressed = only.getAttribute("aria-pressed") !== "true";
  only.setAttribute("aria-pressed", String(pressed));
  document.body.toggleAttribute("data-only-failing", pressed);
});
themeButton(byId("theme"));
if (mayRun) runAll(byId("run-all"));
setInterval(ages, 1000);
listen({ snapshot, probes: changes, tick: heard, lost });

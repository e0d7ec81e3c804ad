// Six hours of one probe as a small picture: median and highest latency, and when it failed.

import { mark, svg } from "./dom.js";
import { ms, percent } from "./format.js";

const WIDTH = 288;
const HEIGHT = 36;
const TOP = 3;
const HOURS = 6;
const HEADROOM = 1.6;

export function spark() {
  const area = svg("path", { class: "spark-high" });
  const line = svg("path", { class: "spark-line", "vector-effect": "non-scaling-stroke" });
  const failures = svg("g", { class: "spark-failures" });
  const title = svg("title");
  const picture = svg(
    "svg",
    { class: "spark", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" },
    title, failures, area, line,
  );
  let drawn = "";
  return {
    element: picture,
    draw(view, now, bucket) {
      const key = JSON.stringify([view.spark, Math.floor(now / bucket), view.p50]);
      if (key === drawn) return;
      drawn = key;
      mark(picture, "data-empty", view.spark.length ? null : "");
      const shape = shapes(view.spark, now, bucket);
      area.setAttribute("d", shape.area);
      line.setAttribute("d", shape.line);
      failures.replaceChildren(...shape.failures);
      title.textContent = words(view);
    },
  };
}

// The scale is that of the medians: a single slow run must not flatten all the rest. A young
// prober shows an hour, and grows to six.
function shapes(points, now, bucket) {
  const newest = Math.floor(now / bucket);
  const oldest = points.length ? points[0][0] : newest;
  const count = Math.min(Math.max(newest - oldest + 1, 3600 / bucket), (HOURS * 3600) / bucket);
  const step = WIDTH / count;
  const first = newest - count + 1;
  const top = Math.max(0.1, ...points.map((point) => point[1] || 0)) * HEADROOM;
  const y = (value) => HEIGHT - 1 - (Math.min(value, top) / top) * (HEIGHT - 1 - TOP);
  const failures = [];
  const runs = []; // of points without a gap between them
  let last = -2;
  for (const [number, median, high, failed, total] of points) {
    const place = number - first;
    if (place < 0 || place >= count) continue;
    const x = place * step;
    if (failed) {
      failures.push(svg("rect", {
        x: x.toFixed(1), y: 0, width: Math.max(step, 2).toFixed(1), height: HEIGHT,
        opacity: (0.3 + 0.6 * Math.min(1, failed / Math.max(1, total))).toFixed(2),
      }));
    }
    if (median === null) continue;
    if (place !== last + 1) runs.push([]);
    runs[runs.length - 1].push([x + step / 2, y(median), y(high)]);
    last = place;
  }
  const at = (x, height) => `${x.toFixed(1)} ${height.toFixed(1)}`;
  let line = "";
  let area = "";
  for (const run of runs) {
    const [begin, end] = [run[0], run[run.length - 1]];
    // Half a step more on both sides, so that a point alone can be seen, too.
    const wide = [[begin[0] - step / 2, begin[1], begin[2]], ...run, [end[0] + step / 2, end[1], end[2]]];
    line += `M${wide.map(([x, middle]) => at(x, middle)).join("L")}`;
    area += `M${at(wide[0][0], HEIGHT)}L${wide.map(([x, , high]) => at(x, high)).join("L")}`;
    area += `L${at(wide[wide.length - 1][0], HEIGHT)}Z`;
  }
  return { line, area, failures };
}

function words(view) {
  const runs = view.runs ? `${percent(view.failures / view.runs)} of ${view.runs} runs failed` : "no run yet";
  if (view.p50 === null) return `Last 6 hours: ${runs}`;
  return `Last 6 hours: median ${ms(view.p50)}, 95 % within ${ms(view.p95)}, 99 % within ${ms(view.p99)}; ${runs}`;
}

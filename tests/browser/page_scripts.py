"""What tests ask the page itself; each is the body of a function in the browser."""

CONTRAST = """
// [[ratio, text, colour, background]...] of every visible text, the worst first (WCAG 2.2, 1.4.3).
const parse = (text) => {
  const numbers = text.match(/[\\d.]+(e-?\\d+)?/g).map(Number);
  if (text.startsWith("color(srgb")) {
    const [r, g, b, a = 1] = numbers;
    return [r * 255, g * 255, b * 255, a];
  }
  const [r, g, b, a = 1] = numbers;
  return [r, g, b, a];
};
const over = (top, below) =>
  [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3])).concat(1);
const luminance = (colour) => {
  const linear = (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  const [r, g, b] = colour.map((c) => linear(c / 255));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ratio = (one, other) => {
  const [high, low] = [luminance(one), luminance(other)].sort((a, b) => b - a);
  return (high + 0.05) / (low + 0.05);
};
const ground = (element) => {
  const layers = [];
  for (let each = element; each; each = each.parentElement) {
    const colour = parse(getComputedStyle(each).backgroundColor);
    layers.unshift(colour);
    if (colour[3] === 1) break;
  }
  return layers.reduce((below, top) => over(top, below), [255, 255, 255, 1]);
};
const found = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const text = walker.currentNode.data.trim();
  const element = walker.currentNode.parentElement;
  const box = element.getBoundingClientRect();
  if (!text || !element.checkVisibility() || !box.width || element.closest("svg, .skip")) continue;
  const below = ground(element);
  const colour = over(parse(getComputedStyle(element).color), below);
  const shown = [colour, below].map((each) => each.map(Math.round).join());
  found.push([ratio(colour, below), text.slice(0, 40), ...shown]);
}
return found.sort((a, b) => a[0] - b[0]).slice(0, 5);
"""

NAMELESS = """
// What can be pressed and has no name for who does not see it.
return [...document.querySelectorAll("button, a, [role=img]")]
  .filter((each) => each.checkVisibility())
  .filter((each) => !(each.getAttribute("aria-label") || each.textContent).trim())
  .map((each) => each.outerHTML);
"""

SMALL = """
// What can be pressed and is smaller than 24 by 24 CSS pixels (WCAG 2.2, 2.5.8), spacing included.
const shown = [...document.querySelectorAll("button, a:not(.skip)")]
  .filter((each) => each.checkVisibility());
const middle = (each) => {
  const box = each.getBoundingClientRect();
  return [box.x + box.width / 2, box.y + box.height / 2];
};
const near = (one, x, y) => Math.hypot(middle(one)[0] - x, middle(one)[1] - y) < 24;
return shown.filter((each) => {
  const box = each.getBoundingClientRect();
  if (box.width >= 24 && box.height >= 24) return false;
  const [x, y] = middle(each);
  return shown.some((other) => other !== each && near(other, x, y));
}).map((each) => each.outerHTML);
"""

COLOUR_OF = """
// The computed colour of the first element there is, as [r, g, b].
const element = document.querySelector(arguments[0]);
return getComputedStyle(element)[arguments[1]].match(/[\\d.]+/g).slice(0, 3).map(Number);
"""

OVERFLOW = """
// How many pixels of the page are beside the screen, and what sticks out.
const wide = document.documentElement.clientWidth;
const out = [...document.querySelectorAll("body *")]
  .filter((each) => !each.closest(".scroll, .skip"))
  .filter((each) => each.getBoundingClientRect().right > wide + 1);
return [Math.max(document.documentElement.scrollWidth, document.body.scrollWidth) - wide,
  out.slice(0, 3).map((each) => each.outerHTML.slice(0, 200))];
"""

CUT = """
// Names of nodes of which not all is seen.
return [...document.querySelectorAll(".node h3 .host, .node h3 small")]
  .filter((each) => each.scrollWidth > each.clientWidth + 1)
  .map((each) => each.textContent);
"""

HURRY = """
// What a page waits for because nobody sees it comes soon.
const [later, often] = [window.setTimeout, window.setInterval];
window.setTimeout = (act, ms, ...more) => later(act, ms === 20000 ? 10 : ms, ...more);
window.setInterval = (act, ms, ...more) => often(act, ms === 60000 ? 50 : ms, ...more);
"""

AT_ONCE = """
// A page that waits longer and longer before it tries again does not wait.
const pause = (ms) => (ms >= 1000 && ms <= 30000 && ms !== 25000 ? 50 : ms);
const later = window.setTimeout;
window.setTimeout = (act, ms, ...more) => later(act, pause(ms), ...more);
"""

HIDE = """
// Be a tab that is seen or not.
Object.defineProperty(document, "hidden", { value: arguments[0], configurable: true });
document.dispatchEvent(new Event("visibilitychange"));
"""

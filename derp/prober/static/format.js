// Numbers and times as people read them.

export function ms(value) {
  if (value === null || value === undefined) return "–";
  if (value >= 10000) return `${(value / 1000).toFixed(0)} s`;
  if (value >= 1000) return `${(value / 1000).toFixed(1)} s`;
  if (value >= 100) return `${value.toFixed(0)} ms`;
  return `${value.toFixed(1)} ms`;
}

export function span(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

export function clock(unix) {
  return new Date(unix * 1000).toLocaleTimeString([], { hour12: false });
}

export function moment(unix) {
  return new Date(unix * 1000).toLocaleString([], { hour12: false });
}

export function rate(megabits) {
  if (megabits >= 1000) return `${(megabits / 1000).toFixed(1)} Gbit/s`;
  return `${megabits.toFixed(megabits >= 100 ? 0 : 1)} Mbit/s`;
}

export function percent(part) {
  const value = part * 100;
  if (value === 0 || value === 100) return `${value} %`;
  return value >= 10 && value <= 90 ? `${value.toFixed(0)} %` : `${value.toFixed(1)} %`;
}

export function count(number, what) {
  return `${number} ${what}${number === 1 ? "" : "s"}`;
}

const SYMBOLS = { ok: "✓", failing: "✕", pending: "…" };
const WORDS = { ok: "OK", failing: "failing", pending: "waiting" };

export const symbol = (state) => SYMBOLS[state] || "?";
export const word = (state) => WORDS[state] || state;

// What a check has found, in a few words each.

import { ms, percent, rate } from "./format.js";

const SOON_DAYS = 14;

const number = (value) => typeof value === "number" && Number.isFinite(value);

// [words, kind]: kind is "", "warn" or "bad".
export function facts(view) {
  const found = view.findings;
  const told = [];
  if (number(found.days_left)) {
    const days = Math.floor(found.days_left);
    const kind = days < 7 ? "bad" : days < SOON_DAYS ? "warn" : "";
    told.push([`certificate ${days} d left`, kind]);
  }
  if (found.tls_version) told.push([/^TLS/.test(found.tls_version) ? found.tls_version : `TLS ${found.tls_version}`, ""]);
  if (found.issuer) told.push([`by ${found.issuer}`, ""]);
  if (found.mapped_address) told.push([`seen as ${found.mapped_address}`, ""]);
  if (number(found.rtt_ms)) told.push([`answer ${ms(found.rtt_ms)}`, ""]);
  if (number(found.packet_ms)) told.push([`packet ${ms(found.packet_ms)}`, ""]);
  if (number(found.mbit_per_second)) told.push([rate(found.mbit_per_second), ""]);
  if (number(found.p50_ms)) told.push([`delay ${ms(found.p50_ms)}`, ""]);
  if (number(found.p99_ms)) told.push([`99 % ${ms(found.p99_ms)}`, ""]);
  if (number(found.loss)) {
    told.push([`${percent(found.loss)} lost`, found.loss >= 0.1 ? "bad" : found.loss > 0.01 ? "warn" : ""]);
  }
  if (view.failures) told.push([`${percent(view.failures / view.runs)} of runs failed`, ""]);
  if (found.revocation) told.push([String(found.revocation), ""]);
  return told;
}

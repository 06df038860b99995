/** The last requests, and where their time went. */

import { make } from "../dom.js";
import * as words from "../words.js";

const { say } = words;
const PHASES = ["queue", "load", "plan", "room", "prompt", "generation"];
const COLUMNS = ["when", "kind", "model", "replica", "state", ...PHASES, "total", "tokens", "reason"];
const NUMBERS = new Set([...PHASES, "total", "tokens"]);

/** A table of the reports of `/api/requests`; where any was answered elsewhere, a column says by whom. */
export function requests(reports) {
  if (!reports.length) return make("p", {}, say("requests.none"));
  const places = reports.some(({ replica }) => replica);
  const columns = COLUMNS.filter((name) => name !== "replica" || places);
  const head = make("tr", {}, columns.map((name) => make("th", { scope: "col", class: NUMBERS.has(name) && "number" }, say(`requests.${name}`))));
  return make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": say("requests") }, make("table", {}, head, reports.map((report) => row(report, places))));
}

function row(report, places) {
  const seconds = (name) => make("td", { class: "number" }, took(report[`${name}_duration`]));
  const tokens = `${words.count(report.prompt_tokens)} (${words.count(report.cached_tokens)}) + ${words.count(report.generated_tokens)}`;
  return make(
    "tr",
    { title: report.id },
    [words.time(report.created_at), say(`requests.kind.${report.kind}`), report.model].map((text) => make("td", {}, text)),
    places && make("td", { title: report.replica_reason }, report.replica ?? ""),
    make("td", {}, say(`requests.state.${report.state}`)),
    PHASES.map(seconds),
    seconds("total"),
    make("td", { class: "number" }, tokens),
    make("td", {}, report.reason),
  );
}

function took(nanoseconds) {
  if (!nanoseconds) return "";
  return nanoseconds < 1e9 ? `${Math.round(nanoseconds / 1e6)} ms` : words.duration(nanoseconds / 1e9);
}

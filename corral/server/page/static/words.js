/** What the page says, in the user's language. Each language is a module in `words/` with the same keys. */

import * as en from "./words/en.js";
import * as zh from "./words/zh.js";

export const choices = [["en", "English"], ["zh", "简体中文"]];
const CHOSEN = "corral.language";

export const language = (() => {
  const wanted = [localStorage.getItem(CHOSEN), ...navigator.languages.map((tag) => tag.split("-")[0])];
  return wanted.find((name) => choices.some(([known]) => known === name)) ?? "en";
})();

const { words } = { en, zh }[language];

/** Takes another language; the page is loaded again, which loses nothing. */
export function choose(name) {
  localStorage.setItem(CHOSEN, name);
  location.reload();
}

/** The text of a key, with `{name}` replaced by the value of that name. */
export function say(key, values = {}) {
  const text = words[key] ?? key;
  return text.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
}

/** The language with the country of the browser, for numbers and times. */
const locale = navigator.languages.find((tag) => tag.split("-")[0] === language) ?? language;
const number = once(() => new Intl.NumberFormat(locale));
const precise = once(() => new Intl.NumberFormat(locale, { maximumFractionDigits: 1 }));
const moment = once(() => new Intl.DateTimeFormat(locale, { dateStyle: "medium", timeStyle: "short" }));
const hour = once(() => new Intl.DateTimeFormat(locale, { timeStyle: "medium" }));

export const count = (value) => number().format(value);
export const decimal = (value) => precise().format(value);
export const time = (value) => hour().format(new Date(value));
export const date = (value) => moment().format(new Date(value));

/** Makes something when it is first wanted: these take longer than all the rest of the start. */
function once(make) {
  let made;
  return () => (made ??= make());
}

/** Bytes with a decimal unit, as the commands show them. */
export function bytes(value) {
  const units = ["B", "KB", "MB", "GB", "TB"];
  let place = 0;
  while (value >= 1000 && place < units.length - 1) {
    value /= 1000;
    place++;
  }
  return `${value >= 100 || place === 0 ? Math.round(value) : decimal(value)} ${units[place]}`;
}

/** Where another server is, by its address: without the scheme. */
export function place(address) {
  return address.replace(/^https?:\/\//, "");
}

/** Seconds, with minutes or hours where there are some. */
export function duration(seconds) {
  if (seconds < 10) return say("time.seconds", { seconds: decimal(seconds) });
  const whole = Math.round(seconds);
  if (whole < 60) return say("time.seconds", { seconds: whole });
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return say("time.minutes", { minutes, seconds: whole % 60 });
  return say("time.hours", { hours: Math.floor(minutes / 60), minutes: minutes % 60 });
}

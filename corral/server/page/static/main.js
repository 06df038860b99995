/** The frame of the page: navigation, theme, language, key; which of the three views is shown. */

import { button, buttons, dialog, field, make, select } from "./dom.js";
import { askAgain, keyFields, signIn } from "./key.js";
import { whenRefused } from "./server.js";
import * as words from "./words.js";

const { say } = words;
const THEME = "corral.theme";

const VIEWS = {
  chat: () => import("./chat/view.js"),
  models: () => import("./models/view.js"),
  server: () => import("./server/view.js"),
};

const place = make("main", { id: "view", tabindex: "-1" });
let leave = () => {};

/** Shows what the address names: `#/chat/ID`, `#/models`, `#/server`. A view gives back what is to be done when it goes. */
async function show() {
  const [name, ...rest] = location.hash.replace(/^#\//, "").split("/");
  const chosen = name in VIEWS ? name : "chat";
  for (const link of document.querySelectorAll("nav.views a")) {
    if (link.dataset.view === chosen) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const view = await VIEWS[chosen]();
  leave();
  place.replaceChildren(make("h1", { class: "unseen" }, say(`view.${chosen}`)));
  place.className = chosen;
  document.title = `${say(`view.${chosen}`)} · Corral`;
  leave = (await view.show(place, rest.map(decodeURIComponent))) ?? (() => {});
}

function paint(theme) {
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
}

function preferences() {
  const theme = localStorage.getItem(THEME) ?? "system";
  const themes = ["system", "light", "dark"].map((name) => [name, say(`theme.${name}`)]);
  const { fields, keep } = keyFields();
  return dialog(say("preferences"), (close) => [
    field(say("language"), select(words.choices, words.language, words.choose)),
    field(say("theme"), select(themes, theme, (name) => (localStorage.setItem(THEME, name), paint(name)))),
    ...fields,
    buttons(button(say("done"), () => (keep(), askAgain(), close()), { class: "main" })),
  ]);
}

function frame() {
  const links = Object.keys(VIEWS).map((name) => make("a", { href: `#/${name}`, "data-view": name }, say(`view.${name}`)));
  document.body.replaceChildren(
    make("a", { class: "skip", href: "#view", onclick: (event) => (event.preventDefault(), place.focus()) }, say("skip")),
    make(
      "header",
      { class: "top" },
      make("span", { class: "name" }, make("img", { src: new URL("icon.svg", import.meta.url), alt: "", width: "22", height: "22" }), "Corral"),
      make("nav", { class: "views", "aria-label": say("views") }, links),
      button(say("preferences"), preferences, { icon: "gear", class: "plain" }),
    ),
    place,
  );
}

document.documentElement.lang = words.language === "zh" ? "zh-Hans" : words.language;
paint(localStorage.getItem(THEME));
frame();
whenRefused(signIn);
addEventListener("hashchange", () => (askAgain(), show()));
await show();

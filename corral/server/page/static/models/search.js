/** Looking for models on the hub that the server is configured for. */

import { button, form, make, submitter } from "../dom.js";
import { ask } from "../server.js";
import { bytes, count, say } from "../words.js";

/** A form that searches, and what it finds; `pull(name)` is called for a choice. */
export function search(pull) {
  const input = make("input", { type: "search", "aria-label": say("models.search"), placeholder: say("models.search") });
  const found = make("div", { "aria-live": "polite" });
  const look = async () => {
    found.replaceChildren(say("models.searching"));
    try {
      const { models } = await ask(`/api/search?q=${encodeURIComponent(input.value.trim())}`);
      found.replaceChildren(models.length ? table(models, pull) : say("models.none.found"));
    } catch (error) {
      found.replaceChildren(make("p", { class: "error" }, error.message));
    }
  };
  return [form(look, { class: "row" }, input, submitter(say("models.search.do"), {})), found];
}

function table(models, pull) {
  const rows = models.flatMap((model) => model.quantizations.map((file) => row(model, file, pull)));
  const head = ["models.name", "models.quantization", "models.bytes", "models.fits", "models.downloads", ""];
  return make("div", { class: "scroll", tabindex: "0" }, make("table", {}, make("tr", {}, head.map((key) => make("th", {}, key && say(key)))), rows));
}

function row(model, file, pull) {
  return make(
    "tr",
    {},
    make("td", {}, model.name),
    make("td", {}, file.quantization_level),
    make("td", { class: "number" }, bytes(file.size)),
    make("td", {}, file.fits ? say(`models.fits.${file.fits}`) : ""),
    make("td", { class: "number" }, count(model.downloads ?? 0)),
    make("td", {}, button(say("models.pull.do"), () => pull(file.name))),
  );
}

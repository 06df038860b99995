/** What a conversation asks of its model: system prompt, options, thinking, format; and sets of these under a name. */

import { button, buttons, dialog, field, form, make, notify, select, submitter } from "../dom.js";
import { say } from "../words.js";
import * as database from "./database.js";

/** Options of a request: name, smallest, largest, step. */
const OPTIONS = [
  ["temperature", 0, 5, 0.05],
  ["top_p", 0, 1, 0.01],
  ["top_k", 0, 1000, 1],
  ["min_p", 0, 1, 0.01],
  ["repeat_penalty", 0, 5, 0.05],
  ["seed", 0, 4294967295, 1],
  ["num_ctx", 16, 10000000, 1],
  ["num_predict", -2, 10000000, 1],
];
const KEPT = ["system", "options", "think", "format", "alternatives"];

/** Lets the user change settings; resolves to the new ones, or `undefined`. */
export async function settings(record, capabilities) {
  const presets = await database.all("presets");
  return dialog(
    say("settings"),
    (close) => {
      const chosen = new Choices(record, capabilities);
      const save = button(say("preset.save"), () => chosen.read(savePreset));
      const act = buttons(save, button(say("cancel"), () => close()), submitter(say("done")));
      return [presetRow(presets, chosen), form(() => chosen.read(close), { class: "settings" }, chosen.fields, act)];
    },
    { class: "broad" },
  );
}

class Choices {
  constructor(record, capabilities) {
    this.system = make("textarea", { rows: "4" });
    this.format = make("textarea", { rows: "3", class: "mono", placeholder: '{"type": "object", …}', spellcheck: "false" });
    const levels = ["", "on", "off", "low", "medium", "high"].map((value) => [value, say(`think.${value || "default"}`)]);
    this.think = select(levels, "", () => {}, { disabled: !capabilities.includes("thinking") });
    this.alternatives = make("input", { type: "checkbox" });
    this.options = OPTIONS.map(([name, min, max, step]) => [name, make("input", { type: "number", min, max, step, placeholder: say("option.default") })]);
    this.problem = make("p", { class: "error", role: "alert" });
    this.fields = [
      field(say("settings.system"), this.system),
      make("div", { class: "grid" }, this.options.map(([name, input]) => field(name, input, say(`option.${name}`)))),
      field(say("settings.think"), this.think),
      field(say("settings.format"), this.format, say("settings.format.hint")),
      make("label", { class: "check" }, this.alternatives, say("settings.alternatives")),
      this.problem,
    ];
    this.show(record);
  }

  show({ system = "", options = {}, think = "", format = "", alternatives = false }) {
    this.system.value = system;
    this.format.value = format;
    this.think.value = think;
    this.alternatives.checked = alternatives;
    for (const [name, input] of this.options) input.value = options[name] ?? "";
  }

  /** Calls `take` with the settings, or says what is wrong. */
  read(take) {
    const format = this.format.value.trim();
    try {
      if (format && format !== "json") JSON.parse(format);
    } catch (error) {
      this.problem.textContent = say("settings.format.wrong", { reason: error.message });
      return;
    }
    const given = this.options.filter(([, input]) => input.value !== "");
    take({
      system: this.system.value.trim(),
      options: Object.fromEntries(given.map(([name, input]) => [name, input.valueAsNumber])),
      think: this.think.value,
      format,
      alternatives: this.alternatives.checked,
    });
  }
}

function presetRow(presets, chosen) {
  if (!presets.length) return "";
  const choices = [["", say("preset.choose")], ...presets.map(({ name }) => [name, name])];
  const chooser = select(choices, "", (name) => {
    const found = presets.find((preset) => preset.name === name);
    if (found) chosen.show(found);
  });
  const drop = async () => {
    if (!chooser.value) return;
    await database.remove("presets", chooser.value);
    chooser.selectedOptions[0].remove();
  };
  return make("div", { class: "row" }, field(say("preset"), chooser), button(say("preset.delete"), drop, { icon: "trash", class: "plain" }));
}

async function savePreset(values) {
  const name = make("input", { maxlength: "60", required: true });
  const wanted = await dialog(say("preset.save"), (close) => [
    form(() => close(name.value.trim()), {}, field(say("preset.name"), name), buttons(submitter(say("preset.save")))),
  ]);
  if (!wanted) return;
  await database.put("presets", { name: wanted, ...Object.fromEntries(KEPT.map((kind) => [kind, values[kind]])) });
  notify(say("preset.saved", { name: wanted }));
}

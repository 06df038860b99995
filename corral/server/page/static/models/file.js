/** A model from a file of this machine: sent to the server, which says its digest, and made of that. */

import { button, buttons, dialog, field, form, make, notify, submitter, takeDrops } from "../dom.js";
import { ask, lines } from "../server.js";
import { say } from "../words.js";

/** A button for choosing a file; dropping one anywhere does the same until `signal` is aborted. `done`: a model was made. */
export function importer(done, signal) {
  const chooser = make("input", { type: "file", accept: ".gguf", hidden: true, onchange: () => take(chooser.files, done).then(() => (chooser.value = "")) });
  takeDrops((files) => take(files, done), signal);
  return make("div", { class: "drop" }, button(say("import.choose"), () => chooser.click()), make("small", {}, say("import.drop")), chooser);
}

async function take([file], done) {
  if (!file) return;
  const input = make("input", { value: file.name.replace(/\.gguf$/i, "").toLowerCase(), required: true });
  const name = await dialog(say("import.title", { name: file.name }), (close) => [
    form(() => close(input.value.trim()), {}, field(say("models.name"), input), buttons(submitter(say("models.make")))),
  ]);
  if (!name) return;
  notify(say("import.sending", { name: file.name }));
  try {
    const { digest } = await ask("/api/blobs", file);
    for await (const [line] of lines("/api/create", { model: name, files: { [file.name]: digest } })) void line;
    notify(say("models.made", { name }));
    done();
  } catch (error) {
    notify(error.message, "error");
  }
}

/** A model from a file of this machine: sent to the server, which says its digest, and made of that. */

import { button, dialog, field, make, notify } from "../dom.js";
import { ask, lines } from "../server.js";
import { say } from "../words.js";

/** A button and a place to drop files; `done` is called when a model was made. */
export function importer(done) {
  const chooser = make("input", { type: "file", accept: ".gguf", hidden: true, onchange: () => take(chooser.files, done).then(() => (chooser.value = "")) });
  const element = make("div", { class: "drop" }, button(say("import.choose"), () => chooser.click()), make("small", {}, say("import.drop")), chooser);
  element.addEventListener("dragover", (event) => event.preventDefault());
  element.addEventListener("drop", (event) => {
    event.preventDefault();
    take(event.dataTransfer.files, done);
  });
  return element;
}

async function take([file], done) {
  if (!file) return;
  const input = make("input", { value: file.name.replace(/\.gguf$/i, "").toLowerCase(), required: true });
  const act = make("div", { class: "row end" }, make("button", { type: "submit", class: "main" }, say("models.make")));
  const name = await dialog(say("import.title", { name: file.name }), (close) => [
    make("form", { onsubmit: (event) => (event.preventDefault(), close(input.value.trim())) }, field(say("models.name"), input), act),
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

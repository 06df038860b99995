/** The key of this browser: where it is kept, and how its user is asked for it. */

import { button, buttons, dialog, field, form, make, submitter } from "./dom.js";
import { key } from "./server.js";
import { say } from "./words.js";

/** A field for the key, and a box that says whether it outlives the tab; `keep` takes what they say. */
export function keyFields() {
  const secret = make("input", { type: "password", autocomplete: "off", value: key.get(), name: "key" });
  const stays = make("input", { type: "checkbox", checked: key.stays() });
  const box = make("label", { class: "check" }, stays, say("key.stays"));
  return { fields: [field(say("key"), secret, say("key.hint")), box], keep: () => key.set(secret.value.trim(), stays.checked) };
}

let asking = null;
let declined = false;

/** Asks for a key, once for all requests that want one; resolves to whether there is another one now. */
export function signIn() {
  if (declined) return Promise.resolve(false);
  asking ??= ask().finally(() => (asking = null));
  return asking;
}

/** Who has said no is asked again in the next view. */
export function askAgain() {
  declined = false;
}

async function ask() {
  const before = key.get();
  const { fields, keep } = keyFields();
  const given = await dialog(say("key.wanted"), (close) => [
    make("p", {}, say(before ? "key.unknown" : "key.how")),
    form(() => (keep(), close(true)), {}, ...fields, buttons(button(say("cancel"), () => close(false)), submitter(say("key.use")))),
  ]);
  declined = !given || !key.get();
  return !declined;
}

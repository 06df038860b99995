/** The tokens of an answer with what the model might have written instead, and going on from another one. */

import { button, buttons, dialog, make } from "../dom.js";
import { decimal, say } from "../words.js";

/** Opens a view of a message's tokens. `goOn(text)` is called with the text up to a chosen alternative. */
export async function tokens(message, goOn) {
  const text = await dialog(say("chat.tokens"), (close) => {
    const others = make("div", { class: "alternatives", "aria-live": "polite" }, say("tokens.hint"));
    const all = message.tokens.map((token, place) => {
      const show = () => others.replaceChildren(...alternatives(message.tokens, place, close));
      return make("button", { type: "button", class: "token", "data-sure": sureness(token), onclick: show }, visible(token.token));
    });
    return [make("div", { class: "tokens" }, all), others, buttons(button(say("done"), () => close()))];
  });
  if (text !== undefined) goOn(text);
}

function alternatives(all, place, close) {
  const before = all.slice(0, place).map(({ token }) => token).join("");
  return (all[place].top_logprobs ?? []).map(({ token, logprob }) =>
    button(`${visible(token)}  ${decimal(Math.exp(logprob) * 100)} %`, () => close(before + token), {
      class: token === all[place].token ? "token taken" : "token",
      title: say("tokens.goOn"),
    }),
  );
}

/** How sure the model was, in four steps, as a colour shows it. */
function sureness({ logprob }) {
  const probability = Math.exp(logprob);
  return probability > 0.9 ? "4" : probability > 0.5 ? "3" : probability > 0.2 ? "2" : "1";
}

function visible(token) {
  return token.replace(/\n/g, "↵\n").replace(/^ /, "·");
}

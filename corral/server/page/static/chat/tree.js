/** A conversation as a tree: a message knows its parent, so that an edited question or a second answer is a branch. */

/** The messages from the first to `leaf`. `messages` is a Map by id. */
export function path(messages, leaf) {
  const found = [];
  for (let message = messages.get(leaf); message; message = messages.get(message.parent)) found.push(message);
  return found.reverse();
}

/** The messages that stand at the same place, the oldest first; `message` is one of them. */
export function siblings(messages, message) {
  return childrenOf(messages, message.parent).filter((other) => other.role === message.role);
}

/** Where one gets to from a message by going on with the newest each time. */
export function newestLeaf(messages, id) {
  for (;;) {
    const next = childrenOf(messages, id).at(-1);
    if (!next) return id;
    id = next.id;
  }
}

/** A message and all that follow it, in every branch. */
export function withAllBelow(messages, id) {
  return [id, ...childrenOf(messages, id).flatMap((child) => withAllBelow(messages, child.id))];
}

function childrenOf(messages, parent) {
  const found = [...messages.values()].filter((message) => message.parent === parent);
  return found.sort((a, b) => a.created - b.created);
}

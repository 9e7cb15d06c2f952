// The address is the state: what is shown follows from it, so that every state can be linked, and back and forward work.

const listeners = new Set();

export const params = () => new URLSearchParams(location.search);

export const address = (query) => {
  const text = query.toString();
  return text ? `/?${text}` : "/";
};

/** Go to a state; `replace` stays at this place of the history, `state` goes with it. */
export function go(query, { replace = false, state = null } = {}) {
  const target = address(query);
  if (replace) history.replaceState(state ?? history.state, "", target);
  else history.pushState(state, "", target);
  for (const listener of listeners) listener({ moved: false });
}

export const onChange = (listener) => listeners.add(listener);

/** Follow the history, and links within the page that are clicked plainly. */
export function start() {
  history.scrollRestoration = "manual";
  addEventListener("popstate", () => { for (const listener of listeners) listener({ moved: true }); });
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[href]");
    if (!link || event.defaultPrevented || event.button || event.metaKey || event.ctrlKey || event.shiftKey) return;
    if (link.origin !== location.origin || link.pathname !== "/" || link.target || link.hash) return;
    event.preventDefault();
    go(new URLSearchParams(link.search));
  });
}

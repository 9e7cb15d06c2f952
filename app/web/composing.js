// Input methods: while characters are being composed, keys belong to the input method and to nothing of the page.

let swallowed = false;

/** Whether a key or an input is part of a composition; Safari tells of the Enter that ends one by its code alone. */
const isComposing = (event) => event.isComposing || event.keyCode === 229;

/** Keep the keys of a composition from every shortcut of the page, and its Enter from sending a form off. */
export function guardComposition() {
  document.addEventListener("keydown", (event) => {
    swallowed = isComposing(event);
    if (swallowed) event.stopPropagation();
  }, true);
  for (const name of ["keyup", "pointerdown", "click"]) document.addEventListener(name, () => { swallowed = false; }, true);
  document.addEventListener("submit", (event) => {
    if (!swallowed) return;
    event.preventDefault();
    event.stopPropagation();
  }, true);
}

/** Call `typed` at every change of a field that is no half of a composition; `isBusy()` says whether one is under way. */
export function whenTyped(field, typed) {
  let composing = false;
  field.addEventListener("compositionstart", () => { composing = true; });
  field.addEventListener("compositionend", () => { composing = false; typed(); });
  field.addEventListener("input", (event) => { if (!composing && !event.isComposing) typed(); });
  return { isBusy: () => composing };
}

// Making and finding elements. Text is set as text, never as HTML.

export const $ = (id) => document.getElementById(id);

/** An element with a class, text and children. */
export function make(tag, className, ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children.filter((child) => child !== null));
  return element;
}

/** A button; `key` says which one it is when it is drawn again. */
export function button(text, className, onClick, key = '') {
  const element = make('button', className, text);
  element.type = 'button';
  if (key) element.dataset.key = key;
  element.addEventListener('click', onClick);
  return element;
}

/** Draws a list anew; whoever had the keyboard's focus there keeps it. */
export function redraw(list, items) {
  const key = list.contains(document.activeElement) ? document.activeElement.dataset.key : '';
  list.replaceChildren(...items);
  if (key) list.querySelector(`[data-key="${CSS.escape(key)}"]`)?.focus({ preventScroll: true });
}

// Keyboard shortcuts for the links and forms of a page, which also work without this file.
"use strict";

const ARROWS = { ArrowRight: "n", ArrowLeft: "p" };
let leaving = false;

function typing(element) {
  return element.matches("input:not([type=checkbox]), select, textarea");
}

function press(key) {
  const target = document.querySelector(`[data-key="${CSS.escape(key)}"]`);
  if (!target) return false;
  if (target.matches("input")) {
    target.focus();
    target.select();
  } else {
    if (!target.disabled) target.click();
    if (target.matches("summary")) target.focus();
  }
  return true;
}

// Select items of a grid by keyboard and mouse; a range goes from the anchor to the current item.
const grid = document.getElementById("grid");
const boxes = grid ? [...grid.querySelectorAll("input[type=checkbox]")] : [];
let anchor = 0;

function showSelection() {
  const count = boxes.filter((box) => box.checked).length;
  const selected = document.getElementById("selected");
  selected.hidden = false;
  selected.textContent = `${count} selected`;
  for (const button of document.querySelectorAll("[data-batch]")) button.disabled = !count;
}

function selectRange(to, checked = true) {
  const [low, high] = [Math.min(anchor, to), Math.max(anchor, to)];
  for (const box of boxes.slice(low, high + 1)) box.checked = checked;
  showSelection();
}

function columns() {
  const top = boxes[0].closest("li").offsetTop;
  const below = boxes.findIndex((box) => box.closest("li").offsetTop > top);
  return below < 0 ? boxes.length : below;
}

function moveInGrid(event) {
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns(), ArrowDown: columns() };
  const at = boxes.indexOf(document.activeElement);
  if (event.key === "Escape" || event.key === "a") {
    for (const box of boxes) box.checked = event.key === "a";
    showSelection();
    return true;
  }
  if (!(event.key in steps)) return false;
  const to = at < 0 ? 0 : at + steps[event.key];
  if (to < 0 || to >= boxes.length) return true;
  if (event.shiftKey) {
    // Leave the range first: it may become smaller.
    selectRange(at, false);
    selectRange(to);
  } else {
    anchor = to;
  }
  boxes[to].focus();
  return true;
}

if (boxes.length) {
  grid.addEventListener("click", (event) => {
    const at = boxes.indexOf(event.target.closest(".tile")?.querySelector("input"));
    if (at < 0) return;
    if (event.shiftKey) {
      event.preventDefault();
      // A checkbox takes its former state back after a click that is prevented.
      setTimeout(() => { selectRange(at); boxes[at].focus(); });
    } else {
      anchor = at;
    }
  });
  // A shift-click selects text.
  grid.addEventListener("mousedown", (event) => { if (event.shiftKey) event.preventDefault(); });
  grid.addEventListener("change", showSelection);
  addEventListener("pageshow", showSelection);
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.isComposing) return;
  if (typing(event.target)) {
    if (event.key === "Escape") {
      event.target.value = event.target.defaultValue ?? "";
      document.getElementById("question")?.focus();
    }
    return;
  }
  if (boxes.length && !leaving && moveInGrid(event)) {
    event.preventDefault();
    return;
  }
  if (event.repeat || leaving) return;
  if (event.target.matches("summary") && event.key.startsWith("Arrow")) return;
  if (press(ARROWS[event.key] ?? event.key)) event.preventDefault();
});

// A key pressed twice before the next page is loaded must not submit two decisions.
document.addEventListener("submit", (event) => {
  if (event.target.method !== "post") return;
  if (leaving) event.preventDefault();
  leaving = true;
});
addEventListener("pageshow", () => { leaving = false; });

// Complete a label in place: the completion is selected, so that typing on replaces it.
for (const input of document.querySelectorAll("[data-complete]")) {
  const labels = [...input.list.options].map((option) => option.value);
  input.addEventListener("input", (event) => {
    if (!(event.inputType ?? "").startsWith("insert") || input.selectionEnd < input.value.length) return;
    const typed = input.value;
    const match = typed.trim() && labels.find((label) => label.startsWith(typed.toLowerCase()));
    if (!match || match.length === typed.length) return;
    input.value = typed + match.slice(typed.length);
    input.setSelectionRange(typed.length, input.value.length);
  });
}

document.getElementById("question")?.focus({ preventScroll: true });
const following = document.getElementById("item")?.dataset.following;
if (following) new Image().src = following;

// Screen readers announce changes of a status, not its initial text.
const message = document.getElementById("message");
if (message?.textContent) {
  const text = message.textContent;
  message.textContent = "";
  setTimeout(() => { message.textContent = text; }, 50);
}

document.querySelector("nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });

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
    target.click();
    if (target.matches("summary")) target.focus();
  }
  return true;
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

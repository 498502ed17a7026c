// Keys for what the page's own links and forms do; all of it works without this file too.
"use strict";

const ARROWS = { ArrowRight: "n", ArrowLeft: "p" };
let leaving = false;

function typing(element) {
  return element.matches("input:not([type=checkbox]), select, textarea");
}

function press(key) {
  const wanted = document.querySelector(`[data-key="${CSS.escape(key)}"]`);
  if (!wanted) return false;
  if (wanted.matches("input")) {
    wanted.focus();
    wanted.select();
  } else {
    wanted.click();
    if (wanted.matches("summary")) wanted.focus();
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

// What is typed twice before the next page is there must not decide twice.
document.addEventListener("submit", (event) => {
  if (event.target.method !== "post") return;
  if (leaving) event.preventDefault();
  leaving = true;
});
addEventListener("pageshow", () => { leaving = false; });

// Completes a label in place: what is added is selected, so that typing on replaces it.
for (const input of document.querySelectorAll("[data-complete]")) {
  const labels = [...input.list.options].map((option) => option.value);
  input.addEventListener("input", (event) => {
    if (!(event.inputType ?? "").startsWith("insert") || input.selectionEnd < input.value.length) return;
    const typed = input.value;
    const found = typed.trim() && labels.find((label) => label.startsWith(typed.toLowerCase()));
    if (!found || found.length === typed.length) return;
    input.value = typed + found.slice(typed.length);
    input.setSelectionRange(typed.length, input.value.length);
  });
}

document.getElementById("question")?.focus({ preventScroll: true });
const following = document.getElementById("item")?.dataset.following;
if (following) new Image().src = following;

// Screen readers tell what changes, and not what was there from the start.
const said = document.getElementById("said");
if (said?.textContent) {
  const text = said.textContent;
  said.textContent = "";
  setTimeout(() => { said.textContent = text; }, 50);
}

document.querySelector("nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });

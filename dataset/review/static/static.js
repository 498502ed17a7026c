// The review page on disk: shows what is in #data, keeps decisions in this browser, saves them as a file.
"use strict";

const told = JSON.parse(document.getElementById("data").textContent);
const STORE = `fashion-tagger-review-${told.page}`;
const ARROWS = { ArrowRight: "n", ArrowLeft: "p" };
const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
let decided = {};
let past = [];
let queue = told.queues.find((one) => one.items.length) ?? told.queues[0];
let at = 0;

try {
  const kept = JSON.parse(localStorage.getItem(STORE) ?? "{}");
  decided = kept.decided ?? {};
  past = kept.past ?? [];
  if (kept.who) $("who").value = kept.who;
} catch { say("This browser keeps nothing for pages from disk: save before you close it.", true); }

function keep() {
  try { localStorage.setItem(STORE, JSON.stringify({ decided, past, who: $("who").value })); }
  catch { say("This browser can't keep decisions: save them now.", true); }
}

function say(text, bad = false) {
  $("said").textContent = text;
  $("said").classList.toggle("bad", bad);
}

// An element; text is text, whatever strangers wrote.
function make(tag, attributes = {}, ...inside) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null) made.setAttribute(name, value);
  }
  made.append(...inside.filter((one) => one !== null && one !== ""));
  return made;
}

function drawn(tag, attributes) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

const nameOf = (item) => `${queue.name}:${item.key}`;
// As in dataset/pages.py: never as certain as it is not.
const percent = (share) => {
  if (share > 0 && share < 0.005) return "under 1 %";
  return share >= 0.995 && share < 1 ? "over 99 %" : `${Math.round(100 * share)} %`;
};

function matches(item) {
  const here = nameOf(item) in decided;
  if ($("show").value === "open" && here) return false;
  if ($("show").value === "decided" && !here) return false;
  const wanted = $("find").value.trim().toLocaleLowerCase();
  if (!wanted) return true;
  const texts = [item.tagged, item.suggested, ...item.choices,
    ...item.photos.flatMap((photo) => [...photo.labels, ...photo.posts.flatMap((post) => [post.title, post.site])])];
  return texts.some((text) => text.toLocaleLowerCase().includes(wanted));
}

function find(from, step) {
  for (let place = from; place >= 0 && place < queue.items.length; place += step) {
    if (matches(queue.items[place])) return place;
  }
  return null;
}

function shot(photo, alt) {
  const image = make("img", { src: `photos/${photo.id}-large.jpg`, width: photo.width, height: photo.height, alt });
  const frame = make("div", { class: "shot" }, image);
  const over = drawn("svg", { viewBox: `0 0 ${photo.width} ${photo.height}`, preserveAspectRatio: "xMinYMin", "aria-hidden": "true" });
  if (photo.crop) {
    const { left, top, width, height } = photo.crop;
    over.append(drawn("path", { class: "outside", "fill-rule": "evenodd",
      d: `M0 0H${photo.width}V${photo.height}H0Z M${left} ${top}h${width}v${height}h${-width}Z` }));
    over.append(drawn("rect", { class: "crop", x: left, y: top, width, height }));
  }
  for (const [x, y, score] of photo.points) {
    over.append(drawn("circle", { class: "point", cx: x, cy: y,
      r: Math.max(photo.width, photo.height) / 120, opacity: Math.min(1, score + 0.3) }));
  }
  frame.append(over);
  return frame;
}

function long(text) {
  if (text.length <= 160) return make("bdi", {}, text);
  return make("details", { class: "long" },
    make("summary", {}, make("bdi", {}, `${text.slice(0, 160)}…`)), make("bdi", {}, text));
}

function fact(name, ...value) {
  return make("div", {}, make("dt", {}, name), make("dd", {}, ...value));
}

function about(photo) {
  const facts = make("dl", { class: "facts" });
  if (photo.labels.length) facts.append(fact("By its hashtags", photo.labels.join(", ")));
  for (const post of photo.posts) {
    const link = post.url && make("a", { href: post.url, target: "_blank", rel: "noopener noreferrer" }, "see the post");
    const more = make("span", { class: "small" }, post.site, post.facts && " · ", post.facts && long(post.facts), link && " · ", link);
    facts.append(fact("Post", long(post.title || "(no title)"), " ", more));
  }
  if (photo.tags.length) {
    const tags = fact("All tags", ...photo.tags.map((tag) => make("span", { class: "tag" }, long(tag))));
    tags.lastChild.className = "tags";
    facts.append(tags);
  }
  if (photo.crop) {
    const reason = photo.crop.reason && ` (${photo.crop.reason})`;
    facts.append(fact("Crop", `${photo.crop.outcome}${reason}, key points sure to ${photo.crop.score.toFixed(2)}`));
  }
  return facts;
}

function button(key, text, act, kind = "") {
  const made = make("button", { type: "button", "data-key": key, class: kind || null }, make("span", {}, text), " ", make("kbd", {}, key));
  made.addEventListener("click", act);
  return made;
}

function relabel(item) {
  const input = make("input", { list: "labels", "data-key": "r", autocomplete: "off", autocapitalize: "none",
    spellcheck: "false", required: true, maxlength: 100, enterkeyhint: "done" });
  const form = make("form", {}, make("label", { class: "relabel" }, "Another label ", make("kbd", {}, "r"), " ", input),
    make("button", {}, "Relabel"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (input.value.trim()) decide(item, "label", input.value.trim());
  });
  complete(input);
  return form;
}

// Completes a label in place: what is added is selected, so that typing on replaces it.
function complete(input) {
  const labels = [...$("labels").options].map((option) => option.value);
  input.addEventListener("input", (event) => {
    if (!(event.inputType ?? "").startsWith("insert") || input.selectionEnd < input.value.length) return;
    const typed = input.value;
    const found = typed.trim() && labels.find((label) => label.startsWith(typed.toLowerCase()));
    if (!found || found.length === typed.length) return;
    input.value = typed + found.slice(typed.length);
    input.setSelectionRange(typed.length, input.value.length);
  });
}

function answers(item) {
  const out = (text) => button("d", text, () => decide(item, "out"), "drop");
  if (queue.name === "duplicates") {
    return [button("f", "One photo: fold them", () => decide(item, "same")),
      button("k", "Two photos: keep them apart", () => decide(item, "apart"))];
  }
  if (queue.name === "crops") {
    return [button("k", "The crop is right", () => decide(item, "right")),
      button("w", "Keep the whole photo", () => decide(item, "whole")), out("Leave the photo out")];
  }
  const made = item.choices.map((label, place) => button(String(place + 1), label, () => decide(item, "label", label)));
  if (item.tagged) made.push(button("k", `Keep ${item.tagged}`, () => decide(item, "label", item.tagged)));
  if (item.suggested && item.suggested !== item.tagged) {
    made.push(button("s", `Take ${item.suggested}`, () => decide(item, "label", item.suggested), "main"));
  }
  return [...made, relabel(item), out("Drop: no use for any label")];
}

const QUESTIONS = { conflicts: "Which of its labels is right?", duplicates: "Are these one photo?", crops: "Is the crop right?" };

function ask(item) {
  const parts = [make("h2", { id: "question", tabindex: -1 }, QUESTIONS[queue.name] ?? `Is this ${item.tagged}?`)];
  if (item.verdict) {
    const suggests = item.suggested && ` It suggests ${item.suggested} at ${percent(item.probability)}. `;
    parts.push(make("p", {}, `Tagged ${item.tagged}, which the model gives ${percent(item.given)}. `, suggests,
      make("span", { class: `verdict ${item.verdict}` }, item.verdict)));
  }
  if (item.likeness !== null) parts.push(make("p", {}, `Their likeness is ${item.likeness.toFixed(3)} of 1.`));
  const mine = decided[nameOf(item)];
  if (mine) parts.push(make("p", { class: "holds" }, `Decided: ${mine.label ?? mine.answer}, by ${mine.who}.`));
  parts.push(make("div", { class: "answers" }, ...answers(item)));
  const moves = make("div", { class: "moves" });
  if (past.length) moves.append(button("u", "Undo", undo));
  if (find(at - 1, -1) !== null) moves.append(button("p", "Previous", () => go(find(at - 1, -1))));
  moves.append(button("n", "Next", () => go(find(at + 1, 1))));
  parts.push(moves);
  if (item.nearest.length) {
    parts.push(make("h3", {}, "What looks most like it in training"));
    parts.push(make("ul", { class: "near" }, ...item.nearest.map((near) => make("li", {},
      near.id === null ? make("span", { class: "gone" }, "not here") : make("img", { src: `photos/${near.id}-small.jpg`, alt: "" }),
      make("bdi", {}, near.label), " ", make("span", { class: "small" }, near.likeness.toFixed(2))))));
  }
  for (const photo of item.photos) parts.push(about(photo));
  return make("section", { class: "ask" }, ...parts);
}

function show() {
  $("queues").replaceChildren(...told.queues.map((one) => {
    const link = make("a", { href: "#", "aria-current": one === queue ? "page" : null }, one.title);
    link.addEventListener("click", (event) => { event.preventDefault(); queue = one; go(find(0, 1)); });
    return link;
  }));
  $("title").textContent = queue.title;
  const done = queue.items.filter((item) => nameOf(item) in decided).length;
  $("bar").max = Math.max(1, queue.items.length);
  $("bar").value = done;
  $("count").textContent = `${done} decided, ${queue.items.length - done} left`;
  const item = at === null ? null : queue.items[at];
  if (item) {
    const alt = (place) => (item.photos.length > 1 ? `Photo ${place + 1} of the pair` : "The photo in question");
    $("item").replaceChildren(make("article", { class: "item", "aria-labelledby": "question" },
      make("div", { class: item.photos.length > 1 ? "photos two" : "photos" }, ...item.photos.map((photo, place) => shot(photo, alt(place)))),
      ask(item)));
  } else {
    const moves = make("div", { class: "moves" });
    if (past.length) moves.append(button("u", "Undo", undo));
    if (find(0, 1) !== null) moves.append(button("n", "From the start", () => go(find(0, 1))));
    $("item").replaceChildren(make("div", { class: "end" },
      make("h2", { id: "question", tabindex: -1 }, find(0, 1) === null ? "Nothing is left here" : "The end of the queue"),
      make("p", {}, "Save decisions, then take them over with review --import FILE."), moves));
  }
}

function go(place) {
  at = place;
  show();
  $("question").focus({ preventScroll: true });
}

function decide(item, answer, label) {
  const who = $("who").value.trim();
  if (!who) { say("Say first whose decisions these are.", true); $("who").focus(); return; }
  const before = decided[nameOf(item)] ?? null;
  decided[nameOf(item)] = { ...item.identity, state: item.state, answer, who, made: new Date().toISOString(),
    ...(label === undefined ? {} : { label }) };
  past.push({ name: nameOf(item), queue: queue.name, key: item.key, before });
  keep();
  say(`Kept in this browser: ${label ?? answer}.`);
  go(find(at + 1, 1));
}

function undo() {
  const last = past.pop();
  if (!last) return;
  if (last.before) decided[last.name] = last.before;
  else delete decided[last.name];
  keep();
  queue = told.queues.find((one) => one.name === last.queue);
  say("Taken back.");
  go(queue.items.findIndex((item) => item.key === last.key));
}

function save() {
  const rows = Object.values(decided);
  if (!rows.length) { say("Nothing is decided yet.", true); return; }
  const text = JSON.stringify({ format: told.format, page: told.page, who: $("who").value.trim(), decisions: rows }, null, 1);
  const link = make("a", { href: URL.createObjectURL(new Blob([text], { type: "application/json" })), download: `decisions-${told.page}.json` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  say(`Saved ${rows.length} decisions as ${link.download}: review --import ${link.download}`);
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.isComposing) return;
  if (event.target.matches("input, select, textarea")) {
    if (event.key === "Escape") $("question").focus();
    return;
  }
  if (event.repeat) return;
  if (event.key === "S") { save(); event.preventDefault(); return; }
  const wanted = document.querySelector(`[data-key="${CSS.escape(ARROWS[event.key] ?? event.key)}"]`);
  if (!wanted) return;
  if (wanted.matches("input")) wanted.select();
  else wanted.click();
  wanted.focus({ preventScroll: true });
  if (!wanted.isConnected) $("question").focus({ preventScroll: true });
  event.preventDefault();
});
$("save").addEventListener("click", save);
$("narrow").addEventListener("submit", (event) => event.preventDefault());
for (const id of ["find", "show"]) $(id).addEventListener("change", () => { at = find(0, 1); show(); });
$("who").addEventListener("change", keep);
at = find(0, 1);
show();

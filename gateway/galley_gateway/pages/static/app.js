// Keeps a page up to date, asks before what cannot be undone, and remembers the theme. Pages work without it.
"use strict";

const root = document.documentElement;
const theme = document.getElementById("theme");
const themes = ["auto", "light", "dark"];

function showTheme(name) {
  if (name === "auto") delete root.dataset.theme; else root.dataset.theme = name;
  theme.textContent = `Theme: ${name}`;
}

theme.hidden = false;
showTheme(themes.includes(localStorage.getItem("theme")) ? localStorage.getItem("theme") : "auto");
theme.addEventListener("click", () => {
  const next = themes[(themes.indexOf(root.dataset.theme || "auto") + 1) % themes.length];
  localStorage.setItem("theme", next);
  showTheme(next);
});

document.addEventListener("submit", (event) => {
  const question = event.target.dataset.confirm;
  if (question && !window.confirm(question)) event.preventDefault();
});

const units = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];

function ago(at, now) {
  const seconds = Math.round((now - at) / 1000), size = Math.abs(seconds);
  if (size < 1) return "now";
  const [length, unit] = units.find(([each]) => size >= each);
  const text = `${Math.floor(size / length)} ${unit}`;
  return seconds > 0 ? `${text} ago` : `in ${text}`;
}

function showTimes() {
  const now = Date.now();
  for (const each of document.querySelectorAll("time")) {
    each.title ||= each.textContent;
    const text = ago(Date.parse(each.dateTime), now);
    if (each.textContent !== text) each.textContent = text;
  }
}

// On a narrow screen the tab of this page may be out of sight.
for (const tab of document.querySelectorAll(".tabs [aria-current]")) tab.parentElement.scrollLeft = tab.offsetLeft - tab.parentElement.offsetLeft - 48;

showTimes();
setInterval(showTimes, 1000);

// Only parts that differ from what the server sent before are replaced: what one reads or types in stays.
const sent = new Map();
for (const part of document.querySelectorAll("[data-part]")) sent.set(part.id, null);

function placeOf(element) {
  if (!element || element === document.body) return null;
  const all = [...document.querySelectorAll("#live a, #live button, #live input, #live summary, #live pre")];
  return all.indexOf(element);
}

function update(html) {
  const fresh = new DOMParser().parseFromString(html, "text/html");
  const focused = document.activeElement, place = placeOf(focused);
  // Replacing moves a part out of its document, so which there are is noted first.
  const parts = [...fresh.querySelectorAll("[data-part]")], names = new Set(parts.map((part) => part.id));
  let last = null;
  for (const part of parts) {
    const before = last;
    last = part.id;
    if (sent.get(part.id) === part.outerHTML) continue;
    const first = sent.get(part.id) === null;
    sent.set(part.id, part.outerHTML);
    const old = document.getElementById(part.id);
    if (!old) { (document.getElementById(before) || document.querySelector("#live > :last-child")).after(part); continue; }
    if (first && old.textContent === part.textContent) continue;
    const open = new Set([...old.querySelectorAll("details")].map((each, at) => each.open ? at : -1));
    const output = old.querySelector(".output"), below = output && output.scrollTop + output.clientHeight >= output.scrollHeight - 4;
    [...part.querySelectorAll("details")].forEach((each, at) => { each.open = open.has(at); });
    old.replaceWith(part);
    const now = part.querySelector(".output");
    if (now) now.scrollTop = below ? now.scrollHeight : output ? output.scrollTop : now.scrollHeight;
  }
  for (const [id] of sent) {
    if (!names.has(id)) { document.getElementById(id)?.remove(); sent.delete(id); }
  }
  if (place !== null && place >= 0 && !document.contains(focused)) {
    document.querySelectorAll("#live a, #live button, #live input, #live summary, #live pre")[place]?.focus({ preventScroll: true });
  }
  showTimes();
}

const live = document.getElementById("live");
const state = document.getElementById("link-state");

function connect() {
  const address = new URL(location.href);
  address.searchParams.delete("done");
  address.searchParams.set("live", "1");
  const source = new EventSource(address);
  source.addEventListener("open", () => { state.hidden = true; });
  source.addEventListener("page", (event) => { state.hidden = true; update(event.data); });
  source.addEventListener("problem", (event) => { state.textContent = JSON.parse(event.data).detail; state.hidden = false; });
  source.addEventListener("login", () => { source.close(); location.reload(); });
  source.addEventListener("error", () => {
    state.textContent = "connection lost";
    state.hidden = false;
    // The browser tries a lost connection again by itself, and a refusal not at all.
    if (source.readyState !== EventSource.CLOSED) return;
    whyRefused(address);
    setTimeout(connect, 5000);
  });
}

// An EventSource does not tell what it was refused with; that is a page of ours.
async function whyRefused(address) {
  const stop = new AbortController();
  try {
    const answer = await fetch(address, { signal: stop.signal });
    if (answer.ok) return;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const said = page.querySelector(".problem");
    if (said) state.textContent = said.textContent;
  } catch { /* the connection is lost */ } finally { stop.abort(); }
}

if (live.dataset.live) connect();

// Tabs, theme, keys; each view is a module of its own.

import { ask_for_key, by_id, get_json, notify } from "./api.js";
import * as adapters from "./adapters.js";
import * as metrics from "./metrics.js";
import * as playground from "./playground.js";

const views = { playground, metrics, adapters };
const names = Object.keys(views);
const tab = (name) => by_id(`tab-${name}`);

function show(name) {
  for (const other of names) {
    const is_shown = other === name;
    by_id(other).hidden = !is_shown;
    tab(other).setAttribute("aria-selected", String(is_shown));
    tab(other).tabIndex = is_shown ? 0 : -1;
    if (is_shown) views[other].show();
    else views[other].hide?.();
  }
  history.replaceState(null, "", name === "playground" ? location.pathname : `#${name}`);
}

for (const [i, name] of names.entries()) {
  tab(name).addEventListener("click", () => show(name));
  tab(name).addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const next = names[(i + step + names.length) % names.length];
    show(next);
    tab(next).focus();
  });
}

const root = document.documentElement;
by_id("theme-button").addEventListener("click", () => {
  const is_dark = root.dataset.theme
    ? root.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = is_dark ? "light" : "dark";
  localStorage.setItem("theme", root.dataset.theme);
});
const theme = localStorage.getItem("theme");
if (theme === "light" || theme === "dark") root.dataset.theme = theme;

by_id("key-button").addEventListener("click", async () => {
  if (await ask_for_key("Sent with everything this page asks of the server.")) start();
});

async function start() {
  try {
    const { data } = await get_json("/v1/models");
    by_id("model-name").textContent = data[0].id;
    playground.set_models(data);
  } catch (error) {
    notify(error.message, true);
  }
}

addEventListener("adapters-changed", start);
show(names.includes(location.hash.slice(1)) ? location.hash.slice(1) : "playground");
start();

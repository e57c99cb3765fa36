// The adapters the server knows: load, unload, pin.

import { by_id, call, element, get_json, notify, post_json } from "./api.js";

const kRefreshMs = 2000;

let timer = 0;
let list = [];

const kTiers = { slot: "in a slot", host: "host memory", disk: "disk" };

function size_of(bytes) {
  const units = ["B", "kB", "MB", "GB"];
  let i = 0;
  for (; bytes >= 1000 && i + 1 < units.length; ++i) bytes /= 1000;
  return `${bytes.toFixed(bytes < 10 && i ? 1 : 0)} ${units[i]}`;
}

async function change(what, act) {
  try {
    await act();
    notify(what);
  } catch (error) {
    notify(error.message, true);
  }
  await refresh();
  dispatchEvent(new Event("adapters-changed"));
}

function row_of(adapter) {
  const path = `/v1/adapters/${encodeURIComponent(adapter.name)}`;
  const pin = element("button", {
    type: "button", textContent: adapter.pinned ? "Unpin" : "Pin", ariaPressed: String(adapter.pinned),
    onclick: () => change(`${adapter.name} is ${adapter.pinned ? "not pinned any more" : "pinned"}.`, () =>
      call(path, { method: "PATCH", body: JSON.stringify({ pinned: !adapter.pinned }), admin: true })),
  });
  const unload = element("button", {
    type: "button", textContent: "Unload",
    onclick: () => change(`${adapter.name} is unloaded.`, () => call(path, { method: "DELETE", admin: true })),
  });
  const title = [adapter.path, adapter.layout, ...(adapter.targets ?? []), ...(adapter.warnings ?? [])]
    .filter(Boolean).join("\n");
  const cell = (text, className = "num") => element("td", { className, textContent: String(text) });
  return element("tr", {},
    element("td", { className: "name", textContent: adapter.name + (adapter.warnings?.length ? " \u26a0" : ""), title }),
    cell(kTiers[adapter.tier] ?? adapter.tier, ""), cell(adapter.rank), cell(size_of(adapter.bytes)),
    cell(adapter.running), cell(adapter.waiting), cell(adapter.generated_tokens),
    element("td", {}, element("div", { className: "actions" }, pin, unload)));
}

function draw() {
  const wanted = by_id("adapter-filter").value.toLowerCase();
  const shown = list.filter((a) => a.name.toLowerCase().includes(wanted));
  // A button that has the focus keeps it.
  const focused = document.activeElement?.closest?.("#adapter-rows tr");
  const at = focused ? [[...focused.parentNode.children].indexOf(focused),
    [...focused.querySelectorAll("button")].indexOf(document.activeElement)] : null;
  by_id("adapter-rows").replaceChildren(...shown.map(row_of));
  if (at) by_id("adapter-rows").children[at[0]]?.querySelectorAll("button")[at[1]]?.focus();
  by_id("no-adapters").hidden = shown.length > 0;
}

async function refresh(options = {}) {
  clearTimeout(timer);
  try {
    list = (await get_json("/v1/adapters", options)).adapters;
    draw();
  } catch (error) {
    notify(error.message, true);
  }
  if (!by_id("adapters").hidden) timer = setTimeout(() => refresh({ silent: true }), kRefreshMs);
}

async function load() {
  const name = by_id("load-name").value.trim();
  const pinned = by_id("load-pinned").checked;
  const files = [...by_id("load-files").files];
  if (!files.length) {
    const response = await post_json("/load_lora_adapter",
      { lora_name: name, lora_path: by_id("load-path").value.trim(), pinned }, { admin: true });
    return response.json();
  }
  const form = new FormData();
  for (const file of files) form.append(file.name, file, file.name);
  if (pinned) form.append("pinned", "true");
  return call(`/v1/adapters/${encodeURIComponent(name)}`, { method: "PUT", body: form, admin: true });
}

by_id("load-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = by_id("load-name").value.trim();
  change(`${name} is loaded.`, async () => {
    await load();
    by_id("load-form").reset();
  });
});
by_id("adapter-filter").addEventListener("input", draw);

export function show() {
  refresh();
}

export function hide() {
  clearTimeout(timer);
}

// Numbers and charts out of /metrics, read once a second while they are looked at.

import { by_id, call, element } from "./api.js";

const kPeriodMs = 1000;
const kSamples = 120;
const kMaxSeries = 5;

// Samples of the text format as {name, labels, value}.
export function parse(text) {
  const samples = [];
  for (const line of text.split("\n")) {
    const match = /^([a-zA-Z_:][\w:]*)(\{(.*)\})? (\S+)$/.exec(line);
    if (!match) continue;
    const labels = {};
    for (const [, key, value] of (match[3] ?? "").matchAll(/([\w]+)="((?:[^"\\]|\\.)*)"/g))
      labels[key] = value.replace(/\\(.)/g, (_, c) => (c === "n" ? "\n" : c));
    samples.push({ name: match[1], labels, value: Number(match[4]) });
  }
  return samples;
}

class Snapshot {
  constructor(samples) {
    this.time = performance.now() / 1000;
    this.of_name = new Map();
    for (const s of samples) {
      if (!this.of_name.has(s.name)) this.of_name.set(s.name, []);
      this.of_name.get(s.name).push(s);
    }
  }
  all(name) {
    return this.of_name.get(name) ?? [];
  }
  sum(name, wanted = {}) {
    return this.all(name)
      .filter((s) => Object.entries(wanted).every(([k, v]) => s.labels[k] === v))
      .reduce((sum, s) => sum + s.value, 0);
  }
  by(name, label) {
    return new Map(this.all(name).map((s) => [s.labels[label], s.value]));
  }
}

// The quantile of what a histogram counted between two snapshots; undefined where it counted none.
function quantile(before, after, name, q) {
  const counts = new Map();
  for (const s of after.all(`${name}_bucket`)) counts.set(s.labels.le, (counts.get(s.labels.le) ?? 0) + s.value);
  for (const s of before.all(`${name}_bucket`)) counts.set(s.labels.le, (counts.get(s.labels.le) ?? 0) - s.value);
  const buckets = [...counts].map(([le, n]) => [le === "+Inf" ? Infinity : Number(le), n]).sort((a, b) => a[0] - b[0]);
  const total = buckets.at(-1)?.[1] ?? 0;
  if (total <= 0) return undefined;
  let low = 0, below = 0;
  for (const [le, n] of buckets) {
    if (n >= q * total) return le === Infinity ? low : low + ((q * total - below) / (n - below)) * (le - low);
    low = le;
    below = n;
  }
  return low;
}

const short = (value) => {
  if (value === undefined || Number.isNaN(value)) return "\u2013";
  const units = ["", "k", "M", "G"];
  let i = 0;
  for (; Math.abs(value) >= 10000 && i + 1 < units.length; ++i) value /= 1000;
  return `${value.toFixed(Math.abs(value) < 10 && value % 1 ? 1 : 0)}${units[i]}`;
};

class Chart {
  constructor(title, unit) {
    this.unit = unit;
    this.series = new Map();  // name -> values, the last one newest
    this.canvas = element("canvas", { role: "img", ariaLabel: title });
    this.legend = element("div", { className: "legend" });
    this.title = title;
    by_id("charts").append(element("div", { className: "card chart" },
      element("h2", { textContent: unit ? `${title}, ${unit}` : title }), this.canvas, this.legend));
  }

  push(values) {
    for (const name of Object.keys(values)) {
      if (!this.series.has(name)) this.series.set(name, Array(kSamples).fill(undefined));
    }
    for (const [name, past] of this.series) {
      past.push(values[name]);
      past.shift();
      if (past.every((v) => v === undefined)) this.series.delete(name);
    }
    this.draw();
  }

  draw() {
    const css = getComputedStyle(document.documentElement);
    const color = (name) => css.getPropertyValue(name).trim();
    const scale = devicePixelRatio || 1;
    const width = this.canvas.clientWidth, height = this.canvas.clientHeight;
    if (!width) return;
    this.canvas.width = width * scale;
    this.canvas.height = height * scale;
    const g = this.canvas.getContext("2d");
    g.scale(scale, scale);
    const left = 38, right = width - 6, top = 8, bottom = height - 16;
    const largest = Math.max(1e-9, ...[...this.series.values()].flat().filter((v) => v !== undefined));
    const step = 10 ** Math.floor(Math.log10(largest));
    const roof = Math.ceil(largest / step) * step;
    g.font = "11px system-ui, sans-serif";
    g.fillStyle = color("--muted");
    g.strokeStyle = color("--line");
    g.textAlign = "right";
    g.textBaseline = "middle";
    for (const share of [0, 0.5, 1]) {
      const y = bottom - share * (bottom - top);
      g.beginPath();
      g.moveTo(left, y);
      g.lineTo(right, y);
      g.stroke();
      g.fillText(short(roof * share), left - 5, y);
    }
    g.textAlign = "left";
    g.fillText(`${kSamples * kPeriodMs / 1000} s ago`, left, height - 5);
    g.textAlign = "right";
    g.fillText("now", right, height - 5);
    g.lineWidth = 1.75;
    g.lineJoin = "round";
    let i = 0;
    const legend = [];
    for (const [name, values] of this.series) {
      const stroke = color(`--c${i++ % 6}`);
      g.strokeStyle = stroke;
      g.beginPath();
      let is_open = false;
      values.forEach((value, k) => {
        if (value === undefined) {
          is_open = false;
          return;
        }
        const x = left + (k / (kSamples - 1)) * (right - left);
        const y = bottom - (value / roof) * (bottom - top);
        if (is_open) g.lineTo(x, y);
        else g.moveTo(x, y);
        is_open = true;
      });
      g.stroke();
      const mark = element("i");
      mark.style.background = stroke;
      legend.push(element("span", {}, mark, `${name} ${short(values.at(-1))}`));
    }
    this.legend.replaceChildren(...legend);
    this.canvas.setAttribute("aria-label", `${this.title}: ${[...this.series].map(([n, v]) => `${n} ${short(v.at(-1))}`).join(", ")}`);
  }
}

let charts = null;
let before = null;
let timer = 0;
let generation = 0;

function make_charts() {
  return {
    tokens: new Chart("Tokens a second", ""),
    requests: new Chart("Requests", ""),
    latency: new Chart("Latency, median", "ms"),
    adapters: new Chart("Generated tokens a second, by adapter", ""),
    kv: new Chart("KV blocks", ""),
    slots: new Chart("Adapters by place", ""),
  };
}

// The largest rates by name, and the rest as one.
function largest_rates(after, seconds) {
  const past = before.by("braid_generated_tokens_total", "adapter");
  const rates = [...after.by("braid_generated_tokens_total", "adapter")]
    .map(([name, value]) => [name || "base", Math.max(0, value - (past.get(name) ?? 0)) / seconds])
    .sort((a, b) => b[1] - a[1]);
  const shown = Object.fromEntries(rates.slice(0, kMaxSeries).filter(([name, rate]) => rate > 0 || charts.adapters.series.has(name)));
  const rest = rates.slice(kMaxSeries).reduce((sum, [, rate]) => sum + rate, 0);
  if (rest > 0) shown.others = rest;
  return shown;
}

function take(after) {
  const numbers = { "Running": after.sum("braid_requests_running"), "Waiting": after.sum("braid_requests_waiting") };
  if (before) {
    const seconds = after.time - before.time;
    const rate = (name) => Math.max(0, after.sum(name) - before.sum(name)) / seconds;
    const ms = (name) => {
      const value = quantile(before, after, name, 0.5);
      return value === undefined ? undefined : value * 1000;
    };
    const generated = rate("braid_generated_tokens_total");
    charts.tokens.push({ generated, prompt: rate("braid_prompt_tokens_total"), cached: rate("braid_cached_tokens_total") });
    charts.latency.push({ "first token": ms("braid_first_token_seconds"), "between tokens": ms("braid_inter_token_seconds") });
    charts.adapters.push(largest_rates(after, seconds));
    numbers["Tokens/s"] = short(generated);
  }
  const blocks = (state) => after.sum("braid_kv_blocks", { state });
  charts.requests.push({ running: numbers.Running, waiting: numbers.Waiting });
  charts.kv.push({ used: blocks("used"), cached: blocks("cached") });
  const tier = (name) => after.sum("braid_adapters", { tier: name });
  charts.slots.push({ slot: tier("slot"), host: tier("host"), disk: tier("disk") });
  numbers["KV in use"] = `${((blocks("used") / Math.max(1, blocks("total"))) * 100).toFixed(0)} %`;
  numbers["Adapters"] = tier("slot") + tier("host") + tier("disk");
  numbers["Requests"] = short(after.sum("braid_requests_total"));
  by_id("numbers").replaceChildren(...Object.entries(numbers).map(([name, value]) =>
    element("div", { className: "number" }, element("b", { textContent: String(value) }),
      element("span", { className: "muted", textContent: name }))));
  before = after;
}

async function read(mine) {
  if (mine !== generation) return;
  if (!document.hidden) {
    try {
      take(new Snapshot(parse(await (await call("/metrics", { silent: true })).text())));
    } catch {
      before = null;  // the server is away: a gap
    }
  }
  if (mine === generation) timer = setTimeout(() => read(mine), kPeriodMs);
}

export function show() {
  charts ??= make_charts();
  clearTimeout(timer);
  read(++generation);
}

export function hide() {
  clearTimeout(timer);
  ++generation;
  before = null;
}

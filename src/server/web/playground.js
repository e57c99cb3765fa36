// One message to one, two or three models side by side.

import { by_id, element, events_of, has_key, notify, post_json } from "./api.js";

const kMaxColumns = 3;

let models = [];
const columns = [];

class Column {
  constructor(model) {
    this.messages = [];
    this.abort = null;
    this.select = element("select", { ariaLabel: "Model or adapter" });
    this.remove = element("button", {
      type: "button", className: "quiet", title: "Remove this column", ariaLabel: "Remove this column",
      textContent: "\u00d7", onclick: () => remove(this),
    });
    this.talk = element("div", { className: "talk", tabIndex: 0, role: "log", ariaLabel: "Conversation" });
    this.footer = element("footer");
    this.root = element("article", { className: "column" },
      element("header", {}, this.select, this.remove), this.talk, this.footer);
    this.fill(model);
  }

  fill(model) {
    const wanted = model ?? this.select.value;
    this.select.replaceChildren(...models.map((m) =>
      element("option", { value: m.id, textContent: m.parent ? m.id : `${m.id} (base)` })));
    if (models.some((m) => m.id === wanted)) this.select.value = wanted;
  }

  clear() {
    this.abort?.abort();
    this.messages = [];
    this.talk.replaceChildren();
    this.footer.replaceChildren();
  }

  say(role, text) {
    const said = element("p", { className: `said ${role}`, textContent: text });
    this.talk.append(said);
    this.talk.scrollTop = this.talk.scrollHeight;
    return said;
  }

  show_figures(figures) {
    this.footer.replaceChildren(...Object.entries(figures).map(([name, value]) =>
      element("span", {}, `${name} `, element("b", { textContent: value }))));
  }

  async send(prompt) {
    this.abort = new AbortController();
    const said = this.say("user", prompt);
    const answer = this.say("assistant waiting", "");
    const begin = performance.now();
    let first = 0, last = 0, tokens = 0, text = "", reason = "";
    const figures = () => {
      const seconds = (last - first) / 1000;
      const shown = {};
      if (first) shown["First token"] = `${(first - begin).toFixed(0)} ms`;
      if (tokens > 1 && seconds > 0) shown["Tokens/s"] = ((tokens - 1) / seconds).toFixed(1);
      if (tokens) shown["Tokens"] = String(tokens);
      if (reason) shown["End"] = reason;
      this.show_figures(shown);
    };
    try {
      const { path, body } = request_of(this, prompt);
      const response = await post_json(path, body, { signal: this.abort.signal });
      for await (const event of events_of(response)) {
        if (event.error) throw new Error(event.error.message);
        const choice = event.choices[0];
        const piece = choice?.delta?.content ?? choice?.text ?? "";
        if (choice && (piece || choice.finish_reason)) {
          last = performance.now();
          if (!first) first = last;
          ++tokens;
        }
        text += piece;
        reason = choice?.finish_reason ?? reason;
        if (event.usage) tokens = event.usage.completion_tokens;
        const was_at_end = this.talk.scrollHeight - this.talk.scrollTop - this.talk.clientHeight < 40;
        answer.textContent = text;
        if (was_at_end) this.talk.scrollTop = this.talk.scrollHeight;
        figures();
      }
      this.messages.push({ role: "user", content: prompt }, { role: "assistant", content: text });
    } catch (error) {
      if (error.name === "AbortError") {
        reason = "stopped";
        this.messages.push({ role: "user", content: prompt }, { role: "assistant", content: text });
        figures();
      } else {
        answer.classList.add("failed");
        answer.textContent = text ? `${text}\n${error.message}` : error.message;
        said.classList.add("failed");
      }
    } finally {
      answer.classList.remove("waiting");
      this.abort = null;
    }
  }
}

function number_of(id) {
  const value = by_id(id).value.trim();
  return value === "" ? undefined : Number(value);
}

function request_of(column, prompt) {
  const is_chat = by_id("mode").value === "chat";
  const body = { model: column.select.value };
  if (is_chat) {
    const system = by_id("system").value.trim();
    body.messages = [
      ...(system ? [{ role: "system", content: system }] : []),
      ...column.messages,
      { role: "user", content: prompt },
    ];
  } else {
    body.prompt = prompt;
  }
  body.max_tokens = number_of("max-tokens");
  body.temperature = number_of("temperature");
  body.top_p = number_of("top-p");
  body.seed = number_of("seed");
  const format = by_id("format").value;
  const grammar = by_id("grammar").value;
  if (format === "json_object") body.response_format = { type: "json_object" };
  if (format === "json_schema") {
    let schema;
    try {
      schema = JSON.parse(grammar);
    } catch (error) {
      throw new Error(`The schema is not JSON: ${error.message}`);
    }
    body.response_format = { type: "json_schema", json_schema: { name: "answer", strict: true, schema } };
  }
  if (format === "regex") body.regex = grammar;
  body.stream = true;
  body.stream_options = { include_usage: true };
  return { path: is_chat ? "/v1/chat/completions" : "/v1/completions", body };
}

function update_buttons() {
  const is_busy = columns.some((c) => c.abort);
  by_id("send").disabled = is_busy || models.length === 0;
  by_id("stop").disabled = !is_busy;
  by_id("add-column").disabled = columns.length >= kMaxColumns || models.length === 0;
  for (const column of columns) column.remove.hidden = columns.length === 1;
}

function add() {
  if (columns.length >= kMaxColumns) return;
  const used = columns.map((c) => c.select.value);
  const next = models.find((m) => !used.includes(m.id)) ?? models[0];
  const column = new Column(next?.id);
  columns.push(column);
  by_id("columns").append(column.root);
  update_buttons();
}

function remove(column) {
  column.abort?.abort();
  columns.splice(columns.indexOf(column), 1);
  column.root.remove();
  update_buttons();
}

async function send() {
  const prompt = by_id("prompt").value;
  if (!prompt.trim() || by_id("send").disabled) return;
  const sending = columns.map((column) => column.send(prompt));
  update_buttons();
  by_id("prompt").value = "";
  await Promise.all(sending);
  update_buttons();
  by_id("prompt").focus();
}

function stop() {
  for (const column of columns) column.abort?.abort();
}

// --- the request as text ---

const shell_quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

function as_curl({ path, body }) {
  return [
    `curl -N ${shell_quoted(location.origin + path)}`,
    "-H 'Content-Type: application/json'",
    ...(has_key() ? ["-H \"Authorization: Bearer $API_KEY\""] : []),
    `-d ${shell_quoted(JSON.stringify(body, null, 2))}`,
  ].join(" \\\n  ");
}

function as_python({ path, body }) {
  const python = (value, indent = "") => {
    if (value === null) return "None";
    if (value === true) return "True";
    if (value === false) return "False";
    if (typeof value !== "object") return JSON.stringify(value);
    const inner = `${indent}    `;
    const parts = Array.isArray(value)
      ? value.map((v) => python(v, inner))
      : Object.entries(value).map(([k, v]) => `${JSON.stringify(k)}: ${python(v, inner)}`);
    const [open, close] = Array.isArray(value) ? "[]" : "{}";
    return parts.length ? `${open}\n${parts.map((p) => `${inner}${p},\n`).join("")}${indent}${close}` : open + close;
  };
  const { regex, stream_options, ...known } = body;
  const arguments_ = Object.entries(known)
    .filter(([, value]) => value !== undefined)
    .map(([name, value]) => `    ${name}=${python(value, "    ")},\n`);
  if (regex !== undefined) arguments_.push(`    extra_body={"regex": ${python(regex)}},\n`);
  const is_chat = path.includes("chat");
  return `import os
from openai import OpenAI

client = OpenAI(base_url=${python(`${location.origin}/v1`)}, api_key=os.environ.get("API_KEY", "none"))
stream = client.${is_chat ? "chat.completions" : "completions"}.create(
${arguments_.join("")})
for event in stream:
    print(event.choices[0].${is_chat ? "delta.content or \"\"" : "text"}, end="", flush=True)
`;
}

async function copy(format) {
  let text;
  try {
    text = format(request_of(columns[0], by_id("prompt").value || "Hello"));
  } catch (error) {
    notify(error.message, true);
    return;
  }
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Without a secure connection there is no clipboard but the old one.
    const area = element("textarea", { value: text, className: "code" });
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  notify("Copied.");
}

by_id("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
by_id("prompt").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) send();
});
addEventListener("keydown", (event) => {
  if (event.key === "Escape") stop();
});
by_id("stop").addEventListener("click", stop);
by_id("add-column").addEventListener("click", add);
by_id("clear").addEventListener("click", () => columns.forEach((column) => column.clear()));
by_id("copy-curl").addEventListener("click", () => copy(as_curl));
by_id("copy-python").addEventListener("click", () => copy(as_python));
by_id("format").addEventListener("change", () => {
  by_id("grammar-label").hidden = !["json_schema", "regex"].includes(by_id("format").value);
});

export function set_models(list) {
  models = list;
  if (columns.length === 0) add();
  for (const column of columns) column.fill();
  update_buttons();
}

export function show() {
  by_id("prompt").focus();
}

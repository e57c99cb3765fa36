// Calls to the server this page came from, and the key it may ask for.

let key = "";

export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export function has_key() {
  return key !== "";
}

// Asks for a key; false when the dialog was left without one.
let asking = null;
export function ask_for_key(text) {
  asking ??= new Promise((resolve) => {
    const dialog = by_id("key-dialog");
    const input = by_id("key-input");
    by_id("key-text").textContent = text;
    input.value = "";
    dialog.returnValue = "";
    dialog.addEventListener("close", () => {
      asking = null;
      if (dialog.returnValue === "ok") key = input.value.trim();
      input.value = "";
      resolve(dialog.returnValue === "ok");
    }, { once: true });
    dialog.showModal();
    input.focus();
  });
  return asking;
}

async function message_of(response) {
  const text = await response.text();
  try {
    const body = JSON.parse(text);
    return body.error?.message ?? body.error_message ?? body.message ?? text;
  } catch {
    return text || `${response.status} ${response.statusText}`;
  }
}

// fetch() with the key; where the server wants another one, asks and tries again. Throws ApiError.
export async function call(path, options = {}) {
  for (let is_first = true; ; is_first = false) {
    const headers = { ...options.headers };
    if (key) headers.Authorization = `Bearer ${key}`;
    const response = await fetch(path, { ...options, headers });
    if (response.ok) return response;
    const may_ask = response.status === 401 && !options.silent;
    const text = options.admin
      ? "This needs the key of the administrator."
      : "This server needs a key.";
    if (may_ask && (await ask_for_key(is_first && !key ? text : `That key was not taken. ${text}`))) continue;
    throw new ApiError(response.status, await message_of(response));
  }
}

export async function get_json(path, options) {
  return (await call(path, options)).json();
}

export function post_json(path, body, options = {}) {
  return call(path, {
    method: "POST",
    body: JSON.stringify(body),
    ...options,
    headers: { "Content-Type": "application/json" },
  });
}

// The data of each event of a stream, parsed; ends at [DONE].
export async function* events_of(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    rest += value;
    let end;
    while ((end = rest.indexOf("\n\n")) >= 0) {
      const event = rest.slice(0, end);
      rest = rest.slice(end + 2);
      if (!event.startsWith("data: ")) continue;
      const data = event.slice(6);
      if (data === "[DONE]") return;
      yield JSON.parse(data);
    }
  }
}

export const by_id = (id) => document.getElementById(id);

let notice_timer = 0;
export function notify(text, is_bad = false) {
  const notice = by_id("notice");
  notice.textContent = text;
  notice.classList.toggle("bad", is_bad);
  notice.hidden = !text;
  clearTimeout(notice_timer);
  notice_timer = setTimeout(() => { notice.hidden = true; }, is_bad ? 12000 : 4000);
}

export function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name in node) node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

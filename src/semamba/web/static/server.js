/** The API of the server that this page came from. */
import { $ } from "./dom.js";
import { parseSafetensors } from "./engine/safetensors.js";

let token = sessionStorage.getItem("token");

export const currentToken = () => token;

/** fetch() with the token, asked for when the server wants one; errors carry the server's own words. */
export async function call(path, options = {}) {
  for (;;) {
    const headers = token ? { Authorization: `Bearer ${token}` } : {};
    const answer = await fetch(path, { ...options, headers });
    if (answer.ok) return answer;
    if (answer.status === 401) {
      await askForToken();
      continue;
    }
    throw Object.assign(new Error(await wordsOf(answer)), { status: answer.status });
  }
}

async function wordsOf(answer) {
  const wait = answer.headers.get("retry-after");
  try {
    const { error } = await answer.json();
    if (error) return error[0].toUpperCase() + error.slice(1) + (/[.!?]$/.test(error) ? "" : ".");
  } catch {
    // A proxy in between may answer in HTML.
  }
  return `The server answered ${answer.status}${wait ? `; try again in ${wait} s` : ""}.`;
}

let asking = null;

/** Ask in a dialog, once for all who wait; rejects when it is closed without an answer. */
export function askForToken() {
  asking ??= ask().finally(() => (asking = null));
  return asking;
}

function ask() {
  const dialog = $("ask");
  $("ask-again").hidden = !token;
  return new Promise((resolve, reject) => {
    const done = (given) => {
      if (!dialog.open) return;
      dialog.close();
      $("ask-form").onsubmit = $("token-cancel").onclick = dialog.oncancel = null;
      if (!given) return reject(new Error("Without the token this server does nothing; reload the page to enter it."));
      token = given;
      sessionStorage.setItem("token", given);
      resolve();
    };
    $("token").value = "";
    $("ask-form").onsubmit = (event) => {
      event.preventDefault();
      done($("token").value.trim());
    };
    $("token-cancel").onclick = () => done("");
    dialog.oncancel = (event) => {
      event.preventDefault();
      done("");
    };
    dialog.showModal();
  });
}

/**
 * @param {Blob} blob @param {string} name @param {object} fields options of POST /v1/enhance
 * @param {{signal?: AbortSignal, onProgress?: (share: number) => void}} more
 * @returns {Promise<ArrayBuffer>} the body of the answer
 */
export async function enhanceOnServer(blob, name, fields, { signal, onProgress } = {}) {
  const form = new FormData();
  for (const [key, value] of Object.entries(fields)) if (value !== null && value !== undefined) form.append(key, value);
  form.append("file", blob, name);
  const answer = await call("v1/enhance", { method: "POST", body: form, signal });
  const total = Number(answer.headers.get("content-length"));
  const pieces = [];
  let size = 0;
  for (const reader = answer.body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) break;
    pieces.push(value);
    size += value.length;
    if (total && onProgress) onProgress(size / total);
  }
  return new Blob(pieces).arrayBuffer();
}

const weights = new Map();

/** config and tensors of a model, fetched once. */
export function fetchModel(name) {
  if (!weights.has(name)) {
    const folder = `models/${encodeURIComponent(name)}`;
    const both = Promise.all([call(`${folder}/config.json`), call(`${folder}/model.safetensors`)]).then(
      async ([config, tensors]) => ({ config: await config.json(), tensors: parseSafetensors(await tensors.arrayBuffer()) }),
    );
    both.catch(() => weights.delete(name));
    weights.set(name, both);
  }
  return weights.get(name);
}

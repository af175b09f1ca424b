/** The panel on the right: what is asked for, and who wants to know when it changes. */
import { $, fill, radioGroup } from "./dom.js";

const NO_LIMIT = 41; // the right end of the slider

const listeners = { mix: [], run: [] };
let models = [];
let locked = false;

/** `what`: "mix" when only the share of the result changed, "run" when the work has to be done again. */
export function onSetting(what, listener) {
  listeners[what].push(listener);
}

export const settings = {
  get where() {
    return $("at-browser").getAttribute("aria-checked") === "true" ? "browser" : "server";
  },
  get model() {
    return $("model").value;
  },
  get pcs() {
    return $("pcs").checked && this.where === "server";
  },
  /** Share of the enhanced signal: strength and limit taken together, as in `Options.wet`. */
  get wet() {
    const limit = Number($("limit").value);
    return (Number($("strength").value) / 100) * (limit >= NO_LIMIT ? 1 : 1 - 10 ** (-limit / 20));
  },
};

/** @param {object[]} rows from GET /v1/models */
export function showModels(rows) {
  models = rows;
  const select = $("model");
  select.replaceChildren(
    ...rows.map((row) => {
      const size = row.parameters >= 1e6 ? `${(row.parameters / 1e6).toFixed(1)} M` : `${Math.round(row.parameters / 1e3)} k`;
      const option = new Option(`${row.name} (${size})`, row.name, row.default, row.default);
      option.title = `${size} weights`;
      option.dataset.live = row.live;
      return option;
    }),
  );
  apply();
}

export const chosenModel = () => models.find((row) => row.name === $("model").value);

/** @throws {Error} when "This browser" is chosen and cannot run the model: where sound goes is not changed by itself */
export function checkPlace() {
  const row = chosenModel();
  if (settings.where === "browser" && row && !row.browser) throw new Error(`${row.name} runs on the server only; choose "Server", or another model.`);
}

/** During a live session the model and the place stay as they are. */
export function lockSettings(on) {
  locked = on;
  for (const id of ["model", "at-server", "at-browser"]) $(id).disabled = on;
  apply();
}

export function startSettings() {
  radioGroup([$("at-server"), $("at-browser")], () => tell("run"));
  $("model").addEventListener("change", () => tell("run"));
  $("pcs").addEventListener("change", () => tell("run"));
  for (const id of ["strength", "limit"]) $(id).addEventListener("input", () => tell("mix"));
  $("where-note").textContent = "";
  apply();
}

function tell(what) {
  apply();
  for (const listener of listeners[what]) listener();
}

function apply() {
  const local = ["localhost", "127.0.0.1", "[::1]"].includes(location.hostname);
  const row = chosenModel();
  $("strength-words").textContent = `${$("strength").value} %`;
  const limit = Number($("limit").value);
  $("limit-words").textContent = limit >= NO_LIMIT ? "no limit" : `${limit} dB`;
  $("limit").setAttribute("aria-valuetext", $("limit-words").textContent);
  fill($("strength"));
  fill($("limit"));
  if (!locked) $("at-browser").disabled = row !== undefined && !row.browser;
  const browser = settings.where === "browser";
  $("pcs").disabled = browser || locked;
  const server = local ? "The semamba server on this computer." : `The sound is sent to ${location.host}.`;
  $("at-words").textContent = browser ? "The sound never leaves this browser." : server;
  $("where-note").textContent = browser
    ? "Everything happens in this browser; the sound never leaves it."
    : local
      ? "The server on this computer does the work; nothing goes to the internet."
      : `Files are sent to ${location.host} and deleted there when they are done.`;
}

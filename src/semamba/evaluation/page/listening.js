/** A listening test: stimuli in random order, switched while they play, answers saved as CSV. */
import { element, one } from "./dom.js";

const data = JSON.parse(one("#data").textContent);
const mushra = data.method === "mushra";
const FADE = 0.006; // seconds, time constant
const GRADES = ["bad", "poor", "fair", "good", "excellent"];
const INSTRUCTIONS = mushra
  ? ["In each trial you hear one recording in several versions. Rate how good each sounds beside the reference, from 0 (bad) to 100 (excellent).",
     "One of the versions is the reference itself: find it and give it 100. Listen as often as you like, and switch while it plays. Use headphones."]
  : ["In each trial you hear two versions of one recording. Choose the one that you would rather listen to, or say that you hear no difference.",
     "Listen as often as you like, and switch while it plays. Use headphones."];

const random = shuffler();
const screens = data.trials.flatMap((trial) => (mushra ? [{ trial, shown: random(Object.keys(trial.stimuli)) }] : trial.pairs.map((pair) => ({ trial, shown: random(pair) }))));
const order = random(screens);
const answers = new Map(); // screen -> Map(stimulus -> score)
let place = 0;
let player = null;

/** Fisher-Yates with the browser's own randomness: another order for every listener. */
function shuffler() {
  const below = (n) => crypto.getRandomValues(new Uint32Array(1))[0] % n;
  return (list) => {
    const mixed = [...list];
    for (let i = mixed.length - 1; i > 0; i--) { const j = below(i + 1); [mixed[i], mixed[j]] = [mixed[j], mixed[i]]; }
    return mixed;
  };
}

/** All versions of a trial in step; which one is heard changes without a click. */
class Player {
  static async open(context, clips) {
    const decoded = await Promise.all(clips.map((clip) => context.decodeAudioData(Uint8Array.from(atob(clip), (letter) => letter.charCodeAt(0)).buffer)));
    return new Player(context, decoded);
  }

  constructor(context, buffers) {
    this.context = context;
    this.nodes = buffers.map((buffer) => {
      const source = new AudioBufferSourceNode(context, { buffer, loop: true });
      const gain = new GainNode(context, { gain: 0 });
      source.connect(gain).connect(context.destination);
      return { source, gain };
    });
    this.heard = -1;
  }

  choose(index) {
    if (!this.started) {
      const start = this.context.currentTime + 0.02;
      this.nodes.forEach(({ source }) => source.start(start));
      this.started = true;
    }
    this.context.resume();
    this.heard = this.heard === index ? -1 : index;
    this.nodes.forEach(({ gain }, i) => gain.gain.setTargetAtTime(i === this.heard ? 1 : 0, this.context.currentTime, FADE));
  }

  close() {
    if (this.started) this.nodes.forEach(({ source }) => source.stop());
  }
}

let context = null;
const audioContext = () => (context ??= new AudioContext());

async function open(index) {
  player?.close();
  player = null;
  place = index;
  const screen = order[index];
  const score = answers.get(screen) ?? new Map();
  answers.set(screen, score);
  one("#where").textContent = `Trial ${index + 1} of ${order.length}`;
  one("#done").value = index / order.length;
  one("#back").disabled = one("#next").disabled = true; // until the sounds are there: a second click would skip a trial
  one("#stimuli").replaceChildren();
  one("#next").textContent = index + 1 < order.length ? "Next" : "Finish";
  const opened = await Player.open(audioContext(), [screen.trial.reference, ...screen.shown.map((id) => screen.trial.stimuli[id])]);
  if (place !== index) return;
  player = opened;
  one("#back").disabled = index === 0;
  one("#stimuli").replaceChildren(...(mushra ? mushraRows(screen, score) : abRows(screen, score)));
  one("#keys").textContent = mushra ? "keys: 0 reference, 1 to 9 versions, arrows move a slider" : "keys: A, B";
  ready();
}

function listen(index) {
  player.choose(index);
  for (const button of document.querySelectorAll("[data-player]")) {
    const heard = Number(button.dataset.player) === player.heard;
    button.setAttribute("aria-pressed", String(heard));
    button.closest(".stimulus")?.classList.toggle("heard", heard);
  }
}

const playButton = (index, text) => element("button", { type: "button", "data-player": index, "aria-pressed": "false", onclick: () => listen(index) }, text);

function mushraRows(screen, score) {
  const rows = screen.shown.map((id, i) => {
    const output = element("output", {}, score.has(id) ? String(score.get(id)) : "–");
    const row = element("div", { class: score.has(id) ? "stimulus" : "stimulus untouched" });
    const slider = element("input", { type: "range", min: 0, max: 100, step: 1, value: score.get(id) ?? 50, "aria-label": `Quality of version ${i + 1}`, "data-stimulus": id, oninput: () => {
      score.set(id, Number(slider.value));
      output.textContent = slider.value;
      slider.style.setProperty("--done", `${slider.value}%`);
      row.classList.remove("untouched");
      ready();
    } });
    slider.style.setProperty("--done", `${score.get(id) ?? 50}%`);
    row.append(playButton(i + 1, `Version ${i + 1}`), slider, output);
    return row;
  });
  const reference = element("div", { class: "stimulus" }, playButton(0, "Reference"), element("span", { class: "quiet" }, "what it should sound like"));
  return [reference, element("div", { class: "scale", "aria-hidden": "true" }, ...GRADES.map((grade) => element("span", {}, grade))), ...rows];
}

function abRows(screen, score) {
  const [a, b] = screen.shown;
  const pick = (text, first) => element("button", { type: "button", "data-choice": first, "aria-pressed": String(score.get(a) === first), onclick: (event) => {
    score.set(a, first).set(b, 100 - first);
    for (const other of document.querySelectorAll("[data-choice]")) other.setAttribute("aria-pressed", String(other === event.currentTarget));
    ready();
  } }, text);
  return [
    element("div", { class: "stimulus choice" }, element("div", { class: "row" }, playButton(1, "Play A"), playButton(2, "Play B"))),
    element("div", { class: "stimulus choice" }, element("div", { class: "row" }, pick("A is better", 100), pick("no difference", 50), pick("B is better", 0))),
  ];
}

/** Whether the trial is answered; says what is missing. */
function ready() {
  const screen = order[place];
  const missing = screen.shown.length - answers.get(screen).size;
  one("#next").disabled = missing > 0;
  one("#hint").textContent = missing === 0 ? "" : mushra ? `${missing} ${missing === 1 ? "version is" : "versions are"} not rated yet.` : "Choose one of the three.";
}

function csv() {
  const listener = one("#listener").value.trim().replaceAll('"', "'");
  const rows = order.flatMap((screen) => screen.shown.map((id) => [`"${listener}"`, data.method, data.test, screen.trial.id, id, answers.get(screen).get(id)].join(",")));
  return [data.columns.join(","), ...rows].join("\r\n") + "\r\n";
}

function finish() {
  player?.close();
  one("#trial").hidden = true;
  one("#end").hidden = false;
  const link = one("#save");
  link.href = URL.createObjectURL(new Blob([csv()], { type: "text/csv" }));
  link.download = `ratings-${data.test}-${one("#listener").value.trim().replace(/[^\w-]+/g, "_") || "listener"}.csv`;
  link.onclick = () => (window.onbeforeunload = null);
  link.focus();
}

one("#instructions").append(...INSTRUCTIONS.map((text) => element("p", {}, text)), element("p", { class: "quiet" }, `${order.length} trials. Your answers stay on this computer until you send them.`));
one("#probe").addEventListener("click", async () => {
  if (player) { player.close(); player = null; one("#probe").textContent = "Test the loudness"; return; }
  player = await Player.open(audioContext(), [data.trials[0].reference]);
  player.choose(0);
  one("#probe").textContent = "Stop";
});
one("#begin").addEventListener("click", () => {
  if (!one("#listener").reportValidity()) return;
  one("#welcome").hidden = true;
  one("#trial").hidden = false;
  window.onbeforeunload = () => "Your answers are not saved yet.";
  open(0);
});
one("#back").addEventListener("click", () => open(place - 1));
one("#next").addEventListener("click", () => (place + 1 < order.length ? open(place + 1) : finish()));
document.addEventListener("keydown", (event) => {
  if (one("#trial").hidden || !player || event.ctrlKey || event.metaKey || event.altKey) return;
  const index = mushra ? Number(event.key) : { a: 1, b: 2 }[event.key.toLowerCase()];
  if (Number.isInteger(index) && event.key !== " " && index < player.nodes.length) listen(index);
});
document.documentElement.dataset.theme = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";

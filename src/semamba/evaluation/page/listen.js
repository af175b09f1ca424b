/** Versions of one recording, played in step at equal loudness, over their spectrograms. */
import { one, element, fill } from "./dom.js";
import { analyse, paint } from "./spectrogram.js";

const FADE = 0.008; // seconds, time constant
const COLUMNS = 360;
const FIRST = ["clean", "noisy"];

export class Listening {
  /** @param data of the report */
  constructor(data) {
    this.data = data;
    this.files = data.sets.flatMap((set) => Object.entries(set.audio).map(([file, clips]) => ({ set: set.name, file, clips })));
    if (!this.files.length) return;
    one("#listen").hidden = false;
    fill(one("#clip"), this.files.map((entry, i) => [String(i), `${entry.set}: ${entry.file}`]), "0");
    one("#clip").addEventListener("change", () => this.open(Number(one("#clip").value)));
    one("#play").addEventListener("click", () => this.toggle());
    document.addEventListener("keydown", (event) => this.key(event));
    new IntersectionObserver((entries, observer) => { if (entries.some((e) => e.isIntersecting)) { observer.disconnect(); this.open(0); } }).observe(one("#listen"));
  }

  find(set, file) {
    return this.files.findIndex((entry) => entry.set === set && entry.file === file);
  }

  async open(index) {
    this.stop();
    this.index = index;
    one("#clip").value = String(index);
    const { clips } = this.files[index];
    const names = Object.keys(clips).sort((a, b) => rank(a) - rank(b));
    this.context ??= new AudioContext();
    const buffers = await Promise.all(names.map((name) => this.context.decodeAudioData(bytes(this.data.clips[clips[name]]))));
    if (this.index !== index) return;
    const levels = buffers.map((b) => activeLevel(b.getChannelData(0)));
    const target = Math.min(...levels.map((level, i) => (0.99 * level) / peak(buffers[i].getChannelData(0))), levels[0]);
    this.versions = names.map((name, i) => ({ name, buffer: buffers[i], gain: target / levels[i] }));
    this.offset = 0;
    this.heard = Math.max(0, names.findIndex((name) => !FIRST.includes(name)));
    this.show();
  }

  show() {
    one("#versions").replaceChildren(...this.versions.map(({ name }, i) => element("button", { type: "button", role: "radio", "aria-checked": String(i === this.heard), onclick: () => this.choose(i) }, name)));
    one("#pictures").replaceChildren(...this.versions.map(({ name, buffer }, i) => {
      const canvas = element("canvas", { role: "img", "aria-label": `Spectrogram of ${name}` });
      const figure = element("figure", { onclick: (event) => { this.choose(i); this.seek(((event.clientX - canvas.getBoundingClientRect().left) / canvas.clientWidth) * buffer.duration); } }, canvas, element("figcaption", {}, name));
      queueMicrotask(() => paint(canvas, analyse(buffer.getChannelData(0), buffer.sampleRate, COLUMNS), null, 0));
      return figure;
    }));
    this.mark();
  }

  mark() {
    [...one("#versions").children].forEach((button, i) => button.setAttribute("aria-checked", String(i === this.heard)));
    [...one("#pictures").children].forEach((figure, i) => figure.classList.toggle("heard", i === this.heard));
    one("#play").textContent = this.playing ? "Pause" : "Play";
  }

  choose(index) {
    this.heard = index;
    this.nodes?.forEach(({ gain }, i) => gain.gain.setTargetAtTime(i === index ? this.versions[i].gain : 0, this.context.currentTime, FADE));
    this.mark();
  }

  toggle() {
    if (!this.versions) return;
    if (this.playing) { this.stop(); return; }
    this.context.resume();
    const start = this.context.currentTime + 0.03;
    this.nodes = this.versions.map(({ buffer, gain }, i) => {
      const source = new AudioBufferSourceNode(this.context, { buffer });
      const node = new GainNode(this.context, { gain: i === this.heard ? gain : 0 });
      source.connect(node).connect(this.context.destination);
      source.start(start, this.offset);
      return { source, gain: node };
    });
    this.nodes[0].source.onended = () => { this.stop(); this.offset = 0; };
    this.startedAt = start - this.offset;
    this.playing = true;
    this.mark();
    this.tick();
  }

  tick() {
    if (!this.playing) return;
    one("#clock").textContent = `${Math.max(0, this.context.currentTime - this.startedAt).toFixed(1)} of ${this.versions[0].buffer.duration.toFixed(1)} s`;
    requestAnimationFrame(() => this.tick());
  }

  stop() {
    if (!this.playing) return;
    this.offset = Math.max(0, this.context.currentTime - this.startedAt);
    for (const { source } of this.nodes) { source.onended = null; source.stop(); }
    this.nodes = null;
    this.playing = false;
    this.mark();
  }

  seek(seconds) {
    const playing = this.playing;
    this.stop();
    this.offset = Math.max(0, seconds);
    if (playing) this.toggle();
  }

  key(event) {
    if (event.target.closest?.("select, input, textarea, [contenteditable]") || event.ctrlKey || event.metaKey || event.altKey || !this.versions) return;
    const group = event.target.closest?.(".scroll, [role=radiogroup]");
    if (group && event.key.startsWith("Arrow")) return group.role === "radiogroup" && choiceBeside(group, event);
    if (event.key === " " && !event.target.closest?.("button, summary, a")) this.toggle();
    else if (event.key >= "1" && event.key <= "9" && this.versions[event.key - 1]) this.choose(Number(event.key) - 1);
    else if (event.key === "ArrowRight" && this.index + 1 < this.files.length) this.open(this.index + 1);
    else if (event.key === "ArrowLeft" && this.index > 0) this.open(this.index - 1);
    else return;
    event.preventDefault();
  }
}

/** Arrow keys within a group of buttons of which one is chosen; choosing may make its buttons anew. */
function choiceBeside(group, event) {
  event.preventDefault();
  const buttons = [...group.children];
  const step = event.key === "ArrowRight" || event.key === "ArrowDown" ? 1 : -1;
  const index = (buttons.indexOf(event.target) + step + buttons.length) % buttons.length;
  buttons[index].click();
  group.children[index].focus();
}

const rank = (name) => (name === "noisy" ? 0 : name === "clean" ? 2 : 1);

function bytes(text) {
  const binary = atob(text);
  return Uint8Array.from(binary, (letter) => letter.charCodeAt(0)).buffer;
}

const peak = (wave) => wave.reduce((most, v) => Math.max(most, Math.abs(v)), 1e-4);

/** RMS of the 20-ms blocks within 20 dB of the loudest: how loud somebody speaks, whatever is between the words. */
function activeLevel(wave) {
  const size = 320;
  const energies = [];
  for (let start = 0; start + size <= wave.length; start += size) {
    let sum = 0;
    for (let i = start; i < start + size; i++) sum += wave[i] * wave[i];
    energies.push(sum / size);
  }
  const loudest = Math.max(1e-10, ...energies);
  const active = energies.filter((e) => e > loudest / 100);
  return Math.sqrt(active.reduce((sum, e) => sum + e, 0) / Math.max(1, active.length)) || 1e-5;
}

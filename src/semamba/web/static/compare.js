/** Before and after, seen and heard: pictures, the transport under them, and the download. */
import { $, clock, fill, radioGroup } from "./dom.js";
import { Loudness } from "./loudness.js";
import { Player } from "./player.js";
import { settings } from "./settings.js";
import { analyse, paint } from "./spectrogram.js";
import { encodeWav } from "./wav.js";
import { drawWave, toMono } from "./waveform.js";

const MAX_COLUMNS = 1600;

let sound = null; // decode.Sound
let wet = null; // Float32Array[], the enhanced channels
let heard = "after";
let pictures = {}; // mono signals, their spectra
let loudness = null;
let chooseHeard;

const player = new Player(showPlaying);

/** @param {import("./decode.js").Sound} given shown at once, still without its enhanced half */
export function showSound(given) {
  sound = given;
  $("name").textContent = sound.name;
  const seconds = sound.channels[0].length / sound.rate;
  const channels = sound.channels.length === 1 ? "mono" : sound.channels.length === 2 ? "stereo" : `${sound.channels.length} channels`;
  $("facts").textContent = `${clock(seconds)} · ${sound.rate / 1000} kHz · ${channels}`;
  dropResult();
}

/** The enhanced half is not there (yet, or no longer). */
export function dropResult() {
  wet = loudness = null;
  player.load(sound.rate, sound.channels, null);
  pictures = { dry: toMono(sound.channels) };
  $("download").disabled = $("hear-after").disabled = true;
  $("level-before").textContent = $("level-after").textContent = "";
  redraw();
  applyGains();
  showPlaying();
}

/** @param {Float32Array[]} channels as many and as long as those of the sound */
export function showResult(channels) {
  wet = channels;
  pictures.wet = toMono(wet);
  loudness = new Loudness(sound.channels, wet, sound.rate);
  player.load(sound.rate, sound.channels, wet);
  $("download").disabled = $("hear-after").disabled = false;
  redraw();
  mixChanged();
}

export function closeSound() {
  player.unload();
  sound = wet = loudness = null;
}

/** Strength or limit moved: pictures, levels and what is heard follow at once. */
export function mixChanged() {
  if (!sound) return;
  applyGains();
  if (!wet) return;
  paintAfter();
  $("level-before").textContent = `${loudness.level(0).toFixed(0)} LUFS`;
  const quieter = Math.round(loudness.quieter(settings.wet));
  const noise = quieter > 0 ? ` · background ${quieter} dB lower` : "";
  $("level-after").textContent = `${loudness.level(settings.wet).toFixed(0)} LUFS${noise}`;
}

/** After a change of size or colours. */
export function redraw() {
  if (!sound || $("result").hidden) return;
  const ratio = Math.min(2, devicePixelRatio || 1);
  const columns = Math.min(MAX_COLUMNS, Math.max(64, Math.round($("spectrum-before").clientWidth * ratio)));
  pictures.drySpectrum = analyse(pictures.dry, sound.rate, columns);
  pictures.wetSpectrum = pictures.wet && analyse(pictures.wet, sound.rate, columns);
  paint($("spectrum-before"), pictures.drySpectrum, null, 0);
  drawWave($("wave-before"), pictures.dry, null, 0, colour("--before"));
  paintAfter();
}

let waiting = false;

function paintAfter() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    if (!sound) return;
    if (!pictures.wetSpectrum) {
      for (const canvas of [$("spectrum-after"), $("wave-after")]) canvas.width = canvas.clientWidth || 1;
      return;
    }
    paint($("spectrum-after"), pictures.drySpectrum, pictures.wetSpectrum, settings.wet);
    drawWave($("wave-after"), pictures.dry, pictures.wet, settings.wet, colour("--after"));
  });
}

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function applyGains() {
  const after = heard === "after" && wet;
  const share = settings.wet;
  const [before, behind] = loudness ? loudness.gains(share, $("match").checked) : [1, 1];
  player.setGains(after ? behind * (1 - share) : before, after ? behind * share : 0);
  $("track-before").classList.toggle("heard", !after);
  $("track-after").classList.toggle("heard", Boolean(after));
}

export function hear(which) {
  if (which === "after" && !wet) return;
  chooseHeard($(`hear-${which}`));
}

export const switchHeard = () => hear(heard === "after" && wet ? "before" : "after");
export const togglePlaying = () => (player.playing ? player.pause() : player.play());
export const skip = (seconds) => player.seek(player.position + seconds);
export const pausePlaying = () => player.pause();

export function toggleLoop() {
  $("loop").checked = !$("loop").checked;
  player.setLoop($("loop").checked);
}

/** What is heard as "after", without the matching of levels, as a WAV file. */
export function download() {
  if (!wet) return;
  const share = settings.wet;
  const mixed = wet.map((channel, c) => channel.map((value, i) => share * value + (1 - share) * sound.channels[c][i]));
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([encodeWav(mixed, sound.rate, sound.narrow)], { type: "audio/wav" }));
  link.download = `${sound.name.replace(/\.[^.]*$/, "")}.enhanced.wav`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

function showPlaying() {
  $("play").classList.toggle("playing", player.playing);
  $("play").setAttribute("aria-label", player.playing ? "Pause" : "Play");
  follow();
}

let frame = 0; // the one that is asked for: each seek begins anew, and must not add to it

function follow() {
  cancelAnimationFrame(frame);
  showPosition();
  if (player.playing) frame = requestAnimationFrame(follow);
}

function showPosition() {
  const share = player.duration ? player.position / player.duration : 0;
  const words = `${clock(player.position)} / ${clock(player.duration)}`;
  if ($("time").textContent !== words) $("time").textContent = words;
  for (const head of document.querySelectorAll(".playhead")) head.style.left = `${100 * share}%`;
  $("seek").value = share;
  $("seek").setAttribute("aria-valuetext", words);
  fill($("seek"));
}

export function startCompare() {
  chooseHeard = radioGroup([$("hear-before"), $("hear-after")], (button) => {
    heard = button.id === "hear-after" ? "after" : "before";
    applyGains();
  });
  $("play").addEventListener("click", togglePlaying);
  $("match").addEventListener("change", applyGains);
  $("loop").addEventListener("change", () => player.setLoop($("loop").checked));
  $("download").addEventListener("click", download);
  $("seek").addEventListener("input", () => player.seek(Number($("seek").value) * player.duration));
  for (const which of ["before", "after"]) {
    for (const kind of ["wave", "spectrum"]) {
      $(`${kind}-${which}`).addEventListener("click", (event) => {
        const box = event.currentTarget.getBoundingClientRect();
        hear(which);
        player.seek(((event.clientX - box.left) / box.width) * player.duration);
      });
    }
  }
  let late = 0;
  new ResizeObserver(() => {
    clearTimeout(late);
    late = setTimeout(redraw, 150);
  }).observe($("view-file"));
}

/**
 * What lies above the model's 8 kHz: kept, and turned down as the model turns down the band just below.
 * The same as semamba/inference/bands.py.
 */
import { RealFft } from "./engine/fft.js";

const SIZE = 512; // samples at 16 kHz
const HOP = 256;
const FIRST = Math.floor((4000 * SIZE) / 16000);
const LAST = Math.floor((7200 * SIZE) / 16000);
const FLOOR = 1e-9;

/**
 * Gain of `enhanced` over `noisy` (both at 16 kHz) between 4 and 7.2 kHz, never above 1; gain t at sample t * HOP.
 * @returns {Float64Array}
 */
export function gainTrack(noisy, enhanced) {
  const frames = Math.ceil(noisy.length / HOP) + 2;
  const before = energies(noisy, frames + 1);
  const after = energies(enhanced, frames + 1);
  const gains = new Float64Array(frames);
  for (let t = 0; t < frames; t++) {
    const smooth = (e) => 0.25 * e[Math.max(0, t - 1)] + 0.5 * e[t] + 0.25 * e[t + 1] + FLOOR;
    gains[t] = Math.min(1, Math.sqrt(smooth(after) / smooth(before)));
  }
  return gains;
}

/** Gain at every sample of a signal at `rate`, by straight lines between frames: calls `use(i, gain)`. */
export function eachGain(gains, rate, count, use) {
  const step = 16000 / rate / HOP;
  for (let i = 0; i < count; i++) {
    const at = i * step;
    const t = Math.min(Math.floor(at), gains.length - 2);
    const share = Math.min(1, at - t);
    use(i, gains[t] * (1 - share) + gains[t + 1] * share);
  }
}

function energies(wave, frames) {
  const fft = new RealFft(SIZE);
  const frame = new Float64Array(SIZE);
  const spectrum = new Float64Array(2 * fft.bins);
  const window = Float64Array.from({ length: SIZE }, (_, i) => 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / SIZE));
  return Float64Array.from({ length: frames }, (_, t) => {
    const start = t * HOP - SIZE / 2;
    for (let i = 0; i < SIZE; i++) frame[i] = (wave[start + i] ?? 0) * window[i];
    fft.forward(frame, spectrum);
    let sum = 0;
    for (let k = 2 * FIRST; k <= 2 * LAST + 1; k++) sum += spectrum[k] ** 2;
    return sum;
  });
}

/** Spectrograms: analysed once, painted for any mix of two signals without another transform. */
import { RealFft } from "./engine/fft.js";

const RANGE = 75; // dB from the brightest to black
const MARKS = [250, 500, 1000, 2000, 4000, 8000, 16000]; // Hz

/** Frames of about 32 ms, a power of two. */
export const frameSize = (rate) => 2 ** Math.round(Math.log2(rate * 0.032));

/** Transforms frames of one size; allocates nothing after construction. */
export class Analyser {
  constructor(rate) {
    this.rate = rate;
    this.size = frameSize(rate);
    this.fft = new RealFft(this.size);
    this.bins = this.fft.bins;
    this.frame = new Float64Array(this.size);
    this.spectrum = new Float64Array(2 * this.bins);
    this.window = Float64Array.from({ length: this.size }, (_, i) => 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / this.size));
  }

  /** Spectrum (re, im ...) of the frame that starts at `start`; samples outside count as 0. */
  at(wave, start) {
    for (let i = 0; i < this.size; i++) this.frame[i] = (wave[start + i] ?? 0) * this.window[i];
    this.fft.forward(this.frame, this.spectrum);
    return this.spectrum;
  }
}

/** @returns {{columns: number, bins: number, rate: number, values: Float32Array, peak: number}} */
export function analyse(wave, rate, columns) {
  const analyser = new Analyser(rate);
  const width = 2 * analyser.bins;
  const values = new Float32Array(columns * width);
  let peak = 1e-9;
  for (let x = 0; x < columns; x++) {
    const centre = Math.round(((x + 0.5) * wave.length) / columns);
    values.set(analyser.at(wave, centre - analyser.size / 2), x * width);
    for (let k = x * width; k < (x + 1) * width; k += 2) peak = Math.max(peak, values[k] ** 2 + values[k + 1] ** 2);
  }
  return { columns, bins: analyser.bins, rate, values, peak };
}

/** Paint (1 - share) * dry + share * wet; `wet` may be null. Both analysed with the same number of columns. */
export function paint(canvas, dry, wet, share) {
  const { columns, bins, rate } = dry;
  const height = fit(canvas, columns);
  const context = canvas.getContext("2d");
  const image = context.createImageData(columns, height);
  const pixels = new Uint32Array(image.data.buffer);
  const rows = rowsOf(height, bins, rate);
  const power = new Float32Array(bins);
  const [a, b] = wet ? [1 - share, share] : [1, 0];
  for (let x = 0; x < columns; x++) {
    const offset = 2 * bins * x;
    for (let k = 0; k < bins; k++) {
      const i = offset + 2 * k;
      const re = a * dry.values[i] + (b ? b * wet.values[i] : 0);
      const im = a * dry.values[i + 1] + (b ? b * wet.values[i + 1] : 0);
      power[k] = re * re + im * im;
    }
    column(pixels, columns, x, power, rows, dry.peak);
  }
  context.putImageData(image, 0, 0);
  label(context, height, rate);
}

/** A spectrogram that scrolls: `push(samples)` draws a new column for each half frame. */
export class Scroller {
  constructor(canvas, rate) {
    this.canvas = canvas;
    this.analyser = new Analyser(rate);
    this.hop = this.analyser.size / 2;
    this.waiting = new Float32Array(0);
    this.power = new Float32Array(this.analyser.bins);
    this.peak = (0.12 * this.analyser.size) ** 2; // a loud voice
    const ratio = Math.min(2, devicePixelRatio || 1);
    this.height = fit(canvas, Math.max(64, Math.round(canvas.clientWidth * ratio)));
    this.context = canvas.getContext("2d", { willReadFrequently: true });
    this.context.fillStyle = "#05060f";
    this.context.fillRect(0, 0, canvas.width, canvas.height);
    this.rows = rowsOf(this.height, this.analyser.bins, rate);
  }

  push(samples) {
    const wave = new Float32Array(this.waiting.length + samples.length);
    wave.set(this.waiting);
    wave.set(samples, this.waiting.length);
    const count = Math.max(0, Math.floor((wave.length - this.analyser.size) / this.hop) + 1);
    this.waiting = wave.slice(count * this.hop);
    if (!count) return;
    const image = this.context.createImageData(count, this.height);
    const pixels = new Uint32Array(image.data.buffer);
    for (let x = 0; x < count; x++) {
      const spectrum = this.analyser.at(wave, x * this.hop);
      for (let k = 0; k < this.power.length; k++) this.power[k] = spectrum[2 * k] ** 2 + spectrum[2 * k + 1] ** 2;
      column(pixels, count, x, this.power, this.rows, this.peak);
    }
    this.context.drawImage(this.canvas, -count, 0);
    this.context.putImageData(image, this.canvas.width - count, 0);
  }
}

function fit(canvas, columns) {
  const ratio = Math.min(2, devicePixelRatio || 1);
  canvas.width = columns;
  canvas.height = Math.max(32, Math.round((canvas.clientHeight || 150) * ratio));
  return canvas.height;
}

/** Frequency at a share of the height, 0 below: like pitch for the ear, with room for the low end. */
const CURVE = 700;
const frequencyAt = (share, top) => CURVE * ((1 + top / CURVE) ** share - 1);
const shareOf = (frequency, top) => Math.log1p(frequency / CURVE) / Math.log1p(top / CURVE);

/** For each pixel row from the top: the first bin and the one after its last. */
function rowsOf(height, bins, rate) {
  const top = Math.min(rate / 2, 16000);
  const perBin = rate / 2 / (bins - 1);
  return Array.from({ length: height }, (_, y) => {
    const low = frequencyAt(1 - (y + 1) / height, top) / perBin;
    const high = frequencyAt(1 - y / height, top) / perBin;
    const first = Math.min(bins - 1, Math.round(low));
    return [first, Math.min(bins, Math.max(first + 1, Math.round(high)))];
  });
}

function column(pixels, stride, x, power, rows, peak) {
  for (let y = 0; y < rows.length; y++) {
    let most = 0;
    for (let k = rows[y][0]; k < rows[y][1]; k++) if (power[k] > most) most = power[k];
    const level = 1 + (10 * Math.log10(most / peak + 1e-12)) / RANGE;
    pixels[y * stride + x] = COLOURS[level <= 0 ? 0 : level >= 1 ? 255 : Math.floor(level * 255)];
  }
}

function label(context, height, rate) {
  const top = Math.min(rate / 2, 16000);
  const ratio = Math.min(2, devicePixelRatio || 1);
  context.font = `${Math.round(10 * ratio)}px system-ui, sans-serif`;
  context.textBaseline = "middle";
  let below = height + 1;
  for (const mark of MARKS.filter((frequency) => frequency < 0.93 * top)) {
    const y = height * (1 - shareOf(mark, top));
    if (below - y < 16 * ratio) continue;
    below = y;
    context.fillStyle = "rgb(255 255 255 / 16%)";
    context.fillRect(0, Math.round(y), context.canvas.width, 1);
    context.fillStyle = "rgb(255 255 255 / 75%)";
    context.fillText(mark < 1000 ? `${mark}` : `${mark / 1000}k`, 5 * ratio, y - 6 * ratio);
  }
}

/** Dark blue over purple and orange to pale yellow, equal steps to the eye; little-endian RGBA. */
const COLOURS = (() => {
  const stops = [
    [5, 6, 15], [28, 17, 68], [79, 18, 123], [129, 37, 129], [181, 54, 122], [229, 80, 100], [251, 135, 97], [254, 194, 135], [252, 253, 191],
  ];
  return Uint32Array.from({ length: 256 }, (_, i) => {
    const at = (i / 255) * (stops.length - 1);
    const k = Math.min(stops.length - 2, Math.floor(at));
    const [r, g, b] = stops[k].map((low, c) => Math.round(low + (at - k) * (stops[k + 1][c] - low)));
    return ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0;
  });
})();

/**
 * Waveform in, waveform out, at 16 kHz, one channel; equal to semamba.Enhancer of the same model (to 1e-4).
 *
 *   const { config, tensors } = await loadModel("models/causal-small/");
 *   const enhancer = new Enhancer(config, tensors);
 *   const better = enhancer.enhance(noisy);        // a whole recording, same length, nothing late
 *   const block = enhancer.process(samples);       // live: any number in, as many out, `latency` samples later
 *
 * Framing, window and compression are those of semamba/spectrum.py (causal framing, weighted overlap-add).
 */
import { CausalModel } from "./causal.js";
import { RealFft } from "./fft.js";
import { parseSafetensors } from "./safetensors.js";

export const SAMPLE_RATE = 16000;

/**
 * Fetch config.json and model.safetensors from a folder.
 * @param {string} url of the folder, ending in "/"
 * @returns {Promise<{config: object, tensors: object}>} what `Enhancer` takes; both can be posted to a worklet
 */
export async function loadModel(url) {
  const get = async (name) => {
    const answer = await fetch(new URL(name, new URL(url, globalThis.location?.href)));
    if (!answer.ok) throw new Error(`${name}: the server answered ${answer.status}`);
    return answer;
  };
  const [config, weights] = await Promise.all([get("config.json"), get("model.safetensors")]);
  return { config: await config.json(), tensors: parseSafetensors(await weights.arrayBuffer()) };
}

export class Enhancer {
  /**
   * @param {object} config content of config.json, or its "model" part
   * @param {object} tensors from `parseSafetensors`
   * @param {{wasm?: boolean}} options wasm: false keeps to JavaScript
   * @throws {Error} when the model is not of the causal family or its tensors do not fit
   */
  constructor(config, tensors, { wasm = true } = {}) {
    const model = config.model ?? config;
    const { n_fft: size, hop_length: hop, framing } = model.stft;
    if (framing !== "causal") throw new Error(`framing '${framing}' cannot stream`);
    this.model = new CausalModel(model, tensors, wasm);
    this.kind = this.model.heap.kernels.kind; // "wasm" or "js"
    this.sampleRate = SAMPLE_RATE;
    this.size = size;
    this.hop = hop;
    this.overlap = size - hop;
    this.compress = compressor(model.stft);
    this.decompress = decompressor(model.stft);
    this.fft = new RealFft(size);
    [this.window, this.synthesisWindow] = windows(model.stft);
    this.history = new Float32Array(size); // the last samples in
    this.frame = new Float64Array(size);
    this.spectrum = new Float64Array(2 * this.fft.bins);
    this.sums = new Float32Array(size); // overlapping results; the first hop of them is finished after a step
    this.finished = this.sums.subarray(0, hop);
    this.ready = new Float32Array(hop);
    this.replaced = 0;
    this.reset();
  }

  /** Samples by which `process` is late: what the overlap needs, and the wait for a whole hop. */
  get latency() {
    return this.overlap + this.hop - 1;
  }

  /** Forget the past. */
  reset() {
    this.model.reset();
    this.history.fill(0);
    this.sums.fill(0);
    this.ready.fill(0);
    this.filled = 0; // samples of the current hop
    this.early = this.overlap / this.hop; // hops whose result belongs to the silence before the start
  }

  /**
   * The next samples of a stream; samples that are no finite number count as 0.
   * @param {Float32Array} block any length
   * @param {Float32Array} [out] where to put the result, at least as long; made when left out
   * @returns {Float32Array} as many samples, `latency` later
   */
  process(block, out = new Float32Array(block.length)) {
    const { hop, overlap, history, ready } = this;
    for (let i = 0; i < block.length; i++) {
      const value = block[i];
      history[overlap + this.filled] = value - value === 0 ? value : 0;
      this.filled++;
      if (this.filled === hop) {
        this.step();
        this.filled = 0;
      }
      out[i] = ready[this.filled];
    }
    return out;
  }

  /**
   * A whole recording, from a fresh start. `onProgress` gets the share done, about a hundred times.
   * @param {Float32Array} wave
   * @returns {Float32Array} the same length, aligned with the input
   */
  enhance(wave, onProgress = null) {
    this.reset();
    const { hop, latency } = this;
    const result = new Float32Array(wave.length);
    const piece = Math.max(hop, Math.ceil(wave.length / 100));
    const buffer = new Float32Array(piece);
    const silence = new Float32Array(piece);
    for (let start = 0; start < wave.length + latency; start += piece) {
      const stop = Math.min(start + piece, wave.length + latency);
      for (let from = start; from < stop; ) {
        const sound = from < wave.length;
        const to = sound ? Math.min(stop, wave.length) : stop;
        const input = sound ? wave.subarray(from, to) : silence.subarray(0, to - from);
        const output = this.process(input, buffer.subarray(0, to - from));
        const skip = Math.max(0, latency - from);
        if (skip < output.length) result.set(output.subarray(skip), from + skip - latency);
        from = to;
      }
      if (onProgress) onProgress(Math.min(1, stop / (wave.length + latency)));
    }
    this.reset();
    return result;
  }

  /** One hop: analyse, enhance, synthesise; leaves the next finished hop in `ready`. */
  step() {
    const { size, hop, overlap, history, frame, spectrum, window, synthesisWindow, sums, ready } = this;
    for (let i = 0; i < size; i++) frame[i] = history[i] * window[i];
    this.fft.forward(frame, spectrum);
    this.compress(spectrum);
    this.model.step(spectrum);
    this.decompress(spectrum);
    this.fft.inverse(spectrum, frame);
    sums.copyWithin(0, hop);
    sums.fill(0, overlap);
    let check = 0;
    for (let i = 0; i < size; i++) {
      sums[i] += frame[i] * synthesisWindow[i];
      check += sums[i];
    }
    if (check - check !== 0) this.recover(); // a state that holds a NaN keeps it for ever
    else if (this.early > 0) this.early--;
    else ready.set(this.finished);
    history.copyWithin(0, hop);
  }

  /** Keep this input as it is and start again. */
  recover() {
    this.replaced += this.hop;
    this.ready.set(this.history.subarray(0, this.hop)); // the input as late as the output
    this.sums.fill(0);
    this.model.reset();
  }
}

/** Analysis and synthesis window; with both, overlap-add gives the input back. */
function windows({ n_fft: size, hop_length: hop, window: name }) {
  const window = new Float64Array(size);
  for (let i = 0; i < size; i++) {
    const hann = 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / size);
    window[i] = name === "sqrt_hann" ? Math.sqrt(hann) : hann;
  }
  const total = new Float64Array(hop);
  for (let i = 0; i < size; i++) total[i % hop] += window[i] ** 2;
  return [window, window.map((value, i) => value / total[i % hop])];
}

/** In place on re, im ...: the magnitude compressed, the phase kept. Each a loop of its own: no call for every bin. */
function compressor({ compression, power }) {
  const exponent = (power - 1) / 2;
  if (compression === "power") return (spectrum) => raise(spectrum, exponent, 1e-9);
  if (compression === "log1p") {
    return (spectrum) => {
      for (let i = 0; i < spectrum.length; i += 2) {
        const size = Math.sqrt(spectrum[i] ** 2 + spectrum[i + 1] ** 2 + 1e-9);
        const scale = Math.log1p(size) / size;
        spectrum[i] *= scale;
        spectrum[i + 1] *= scale;
      }
    };
  }
  return () => {};
}

function decompressor({ compression, power }) {
  const exponent = (1 / power - 1) / 2;
  if (compression === "power") return (spectrum) => raise(spectrum, exponent, 1e-20);
  if (compression === "log1p") {
    return (spectrum) => {
      for (let i = 0; i < spectrum.length; i += 2) {
        const size = Math.sqrt(spectrum[i] ** 2 + spectrum[i + 1] ** 2 + 1e-9);
        const scale = Math.expm1(size) / size;
        spectrum[i] *= scale;
        spectrum[i + 1] *= scale;
      }
    };
  }
  return () => {};
}

function raise(spectrum, exponent, floor) {
  for (let i = 0; i < spectrum.length; i += 2) {
    const scale = (spectrum[i] ** 2 + spectrum[i + 1] ** 2 + floor) ** exponent;
    spectrum[i] *= scale;
    spectrum[i + 1] *= scale;
  }
}

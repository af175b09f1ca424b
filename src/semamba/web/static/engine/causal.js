/**
 * The causal family (semamba/models/causal.py), one frame at a time, with its state.
 *
 * Letters: F bins, S bands, G sub-bands, C codec channels, d block channels. Everything lives on one heap; features are
 * (bands, channels), rows one after the other.
 */
import { Attention } from "./attention.js";
import { Heap } from "./heap.js";
import { Mamba, Workspace } from "./mamba.js";
import { Source, readLinear } from "./weights.js";

const LEVEL_FLOOR = 0.02; // as in causal.py: below it a frame is silence and is not amplified
const SAMPLE_RATE = 16000;
const PARTS = { complex_mask: 2, real_mask: 1, mapping: 2 }; // numbers for every bin that come out of the last layer

export class CausalModel {
  /**
   * @param {object} config the "model" part of config.json
   * @param {Object<string, {shape: number[], data: Float32Array}>} tensors see safetensors.js
   * @param {boolean} wasm false keeps to JavaScript
   * @throws {Error} for another family of models, or when tensors and config do not fit
   */
  constructor(config, tensors, wasm = true) {
    if (config.kind !== "causal") throw new Error(`a model of kind '${config.kind}' cannot run here, only 'causal'`);
    const { channels, stride, layers, sub_bands: subBands, d_model: width, d_state: stateSize } = config;
    const bins = config.stft.n_fft / 2 + 1;
    const bands = Math.floor((bins - 1) / stride);
    const inner = config.expand * width;
    const rank = Math.ceil(width / 16);
    const size = { bins, bands, channels, stride, subBands, width, inner, rank, stateSize, heads: config.heads };
    const heap = new Heap();
    const source = new Source(tensors);
    const workspace = new Workspace(heap, size);
    const framesPerSecond = SAMPLE_RATE / config.stft.hop_length;
    this.size = size;
    this.heap = heap;
    this.output = config.output ?? "complex_mask";
    this.parts = PARTS[this.output];
    this.decay = Math.exp(-1 / (config.level_seconds * framesPerSecond));
    this.level = new Float64Array(2); // decayed sum of frame magnitudes, decayed count of frames

    this.encodeIn = readLinear(heap, source, "encode_in", channels, 6 * stride);
    this.bandBias = heap.put(source.take("band_bias", bands, channels));
    this.encoder = range(layers).map((i) => readConvolution(heap, source, `encoder.${i}`, channels));
    this.down = readMap(heap, source, "down", [bands, subBands], [channels, width]);
    this.subBandBias = heap.put(source.take("sub_band_bias", subBands, width));
    this.blocks = range(config.blocks).map((i) => new Block(heap, source, `blocks.${i}`, size, workspace, config));
    this.up = readMap(heap, source, "up", [subBands, bands], [width, channels]);
    this.decoder = range(layers).map((i) => readConvolution(heap, source, `decoder.${i}`, channels));
    this.decodeNorm = heap.put(source.take("decode_norm.weight", channels));
    this.decodeOut = readLinear(heap, source, "decode_out", 2 * stride * this.parts, channels);
    source.finish();

    this.at = {
      bins: heap.zeros((bands + 1) * stride * 3),
      skip: heap.zeros(bands * channels),
      x: heap.zeros(bands * channels),
      padded: heap.zeros((bands + 2) * channels), // a row of zeros before and after
      mapped: heap.zeros(Math.max(subBands * channels, bands * width)),
      features: heap.zeros(subBands * width),
      output: heap.zeros(bands * 2 * stride * this.parts),
    };
    heap.open(wasm);
    this.reset();
  }

  /** Forget the past. */
  reset() {
    this.level.fill(0);
    for (const block of this.blocks) block.time.reset();
  }

  /** Compressed spectrum of the next frame (2 F as re, im ...), enhanced in place. */
  step(spectrum) {
    const { bands, channels, subBands, width } = this.size;
    const { heap, at } = this;
    this.encode(spectrum);
    heap.floats.copyWithin(at.skip, at.x, at.x + bands * channels);
    this.map(this.down, at.features, at.x);
    heap.add(at.features, this.subBandBias, subBands * width);
    for (const block of this.blocks) block.mix(at.features);
    this.map(this.up, at.x, at.features);
    heap.add(at.x, at.skip, bands * channels);
    this.decode(spectrum);
  }

  /** y (to, out) = channels(bands x) */
  map({ bands, from, to, none, channels }, y, x) {
    const mapped = this.at.mapped;
    this.heap.kernels.matmul(mapped, channels.k, bands, from, x, none, to, from, channels.k, 0);
    this.heap.linear(channels, y, mapped, to);
  }

  /** Spectrum over running level -> at.x (S, C). The bin at 0 Hz is left out. */
  encode(spectrum) {
    const { bins, bands, channels, stride } = this.size;
    const { heap, at } = this;
    const { floats } = heap;
    this.scale = this.runningLevel(spectrum);
    const scale = 1 / this.scale;
    for (let i = 1, to = at.bins + 3 * (stride >> 1); i < bins; i++, to += 3) {
      const re = spectrum[2 * i] * scale;
      const im = spectrum[2 * i + 1] * scale;
      floats[to] = re;
      floats[to + 1] = im;
      floats[to + 2] = Math.sqrt(re * re + im * im + 1e-12);
    }
    // A kernel spans two strides, so its rows overlap in memory.
    const { w, bias, k, n } = this.encodeIn;
    heap.kernels.matmul(at.x, channels, at.bins, 3 * stride, w, bias, bands, k, n, 0);
    heap.add(at.x, this.bandBias, bands * channels);
    for (const layer of this.encoder) this.convolve(layer);
  }

  /** Exponentially decayed mean magnitude of the frames so far, this one included. */
  runningLevel(spectrum) {
    const { bins } = this.size;
    const { level, decay } = this;
    let sum = 0;
    for (let i = 0; i < 2 * bins; i += 2) sum += Math.sqrt(spectrum[i] ** 2 + spectrum[i + 1] ** 2 + 1e-12);
    level[0] = decay * level[0] + sum / bins;
    level[1] = decay * level[1] + 1;
    return Math.max(level[0] / level[1], LEVEL_FLOOR);
  }

  /** at.x += convolution (k = 3 along frequency) of silu(norm(at.x)) */
  convolve({ norm, conv }) {
    const { bands, channels } = this.size;
    const { heap, at } = this;
    const rows = at.padded + channels;
    heap.normalise(rows, at.x, norm, bands, channels);
    heap.kernels.silu(rows, bands * channels);
    heap.kernels.matmul(at.x, channels, at.padded, channels, conv.w, conv.bias, bands, conv.k, conv.n, 1);
  }

  /** at.x (S, C) -> mask or mapping, applied to `spectrum`; the transposed convolution that mirrors `encode` */
  decode(spectrum) {
    const { bins, bands, channels, stride } = this.size;
    const { heap, at, parts } = this;
    const { floats } = heap;
    const mapping = this.output === "mapping";
    const level = this.scale > LEVEL_FLOOR ? this.scale : 0;
    for (const layer of this.decoder) this.convolve(layer);
    const rows = at.padded + channels;
    heap.normalise(rows, at.x, this.decodeNorm, bands, channels);
    heap.kernels.silu(rows, bands * channels);
    heap.linear(this.decodeOut, at.output, rows, bands);
    for (let i = 0; i < bins; i++) {
      const position = Math.max(i - 1, 0) + (stride >> 1); // the bin at 0 Hz takes what the next one has
      const band = Math.floor(position / stride);
      const own = at.output + (band * 2 * stride + (position % stride)) * parts; // first half of this band's kernel
      const other = own - stride * parts; // second half of the kernel of the band below
      const re = (band < bands ? floats[own] : 0) + (band > 0 ? floats[other] : 0);
      const im = parts < 2 ? 0 : (band < bands ? floats[own + 1] : 0) + (band > 0 ? floats[other + 1] : 0);
      const a = mapping ? level : spectrum[2 * i];
      const b = mapping ? 0 : spectrum[2 * i + 1];
      spectrum[2 * i] = a * re - b * im;
      spectrum[2 * i + 1] = a * im + b * re;
    }
  }
}

/** Mamba along time in every sub-band, then attention or Mamba along frequency; both pre-norm, residual. */
class Block {
  constructor(heap, source, name, size, workspace, config) {
    this.heap = heap;
    this.size = size;
    this.normed = workspace.normed;
    this.timeNorm = heap.put(source.take(`${name}.time_norm.weight`, size.width));
    this.time = new Mamba(heap, source, `${name}.time`, size, workspace, true);
    this.frequencyNorm = heap.put(source.take(`${name}.frequency_norm.weight`, size.width));
    if (config.frequency === "attention") {
      this.attention = new Attention(heap, source, `${name}.frequency`, size);
    } else {
      this.upwards = new Mamba(heap, source, `${name}.frequency.up`, size, workspace, false);
      this.downwards = new Mamba(heap, source, `${name}.frequency.down`, size, workspace, false);
    }
  }

  /** features (G, d), in place */
  mix(features) {
    const { subBands, width } = this.size;
    const { heap, normed } = this;
    heap.normalise(normed, features, this.timeNorm, subBands, width);
    this.time.advance(features);
    heap.normalise(normed, features, this.frequencyNorm, subBands, width);
    if (this.attention) {
      this.attention.mix(features, normed);
    } else {
      this.upwards.sweep(features, false);
      this.downwards.sweep(features, true);
    }
  }
}

function readConvolution(heap, source, name, channels) {
  return {
    norm: heap.put(source.take(`${name}.norm.weight`, channels)),
    conv: readLinear(heap, source, `${name}.conv`, channels, 3 * channels),
  };
}

function readMap(heap, source, name, [from, to], [columnsIn, columnsOut]) {
  return {
    from,
    to,
    bands: heap.put(source.take(`${name}.bands`, to, from)),
    channels: readLinear(heap, source, `${name}.channels`, columnsOut, columnsIn),
    none: heap.zeros(columnsIn), // no bias
  };
}

function range(count) {
  return [...Array(count).keys()];
}

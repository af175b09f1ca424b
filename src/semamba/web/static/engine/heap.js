/**
 * One block of float32 for weights and features, and what is computed on it. Offsets are in floats.
 * Tensors and buffers are collected first; `open` then builds the memory, and nothing can be added any more.
 */
import { javascriptKernels, webassemblyKernels } from "./kernels.js";

const NORM_EPS = 1e-5;

export class Heap {
  constructor() {
    this.length = 0;
    this.contents = [];
    this.floats = null;
    this.kernels = null;
  }

  /** Offset of `count` zeros. */
  zeros(count) {
    const offset = this.length;
    this.length += (count + 3) & ~3; // vectors of four
    return offset;
  }

  /** Offset of a copy of `values`. */
  put(values) {
    const offset = this.zeros(values.length);
    this.contents.push([offset, values]);
    return offset;
  }

  /** @param {boolean} wasm false keeps to JavaScript, which also serves where WebAssembly is missing or forbidden */
  open(wasm) {
    if (wasm) {
      try {
        const memory = new WebAssembly.Memory({ initial: Math.ceil((this.length * 4) / 65536) });
        this.floats = new Float32Array(memory.buffer);
        this.kernels = webassemblyKernels(memory, this.floats);
      } catch {
        this.kernels = null;
      }
    }
    if (!this.kernels) {
      this.floats = new Float32Array(this.length);
      this.kernels = javascriptKernels(this.floats);
    }
    for (const [offset, values] of this.contents) this.floats.set(values, offset);
    this.contents = [];
  }

  /** y (rows, n) = [y when keep] + layer of x (rows, k) */
  linear({ w, bias, k, n }, y, x, rows, keep = 0) {
    this.kernels.matmul(y, n, x, k, w, bias, rows, k, n, keep);
  }

  /** y += x */
  add(y, x, count) {
    const { floats } = this;
    for (let i = 0; i < count; i++) floats[y + i] += floats[x + i];
  }

  /** y = x / rms(x) * weight for each row */
  normalise(y, x, weight, rows, columns) {
    const { floats } = this;
    for (let from = x, to = y; from < x + rows * columns; from += columns, to += columns) {
      let sum = 0;
      for (let i = 0; i < columns; i++) sum += floats[from + i] * floats[from + i];
      const scale = 1 / Math.sqrt(sum / columns + NORM_EPS);
      for (let i = 0; i < columns; i++) floats[to + i] = floats[from + i] * scale * floats[weight + i];
    }
  }
}

/**
 * The three loops in which the time goes, over the floats of a heap: in WebAssembly SIMD (wasm.js), and in JavaScript,
 * which says what each computes. Offsets and strides are in floats.
 */
import { assemble } from "./wasm.js";

/**
 * @param {WebAssembly.Memory} memory
 * @param {Float32Array} floats the same memory
 * @throws {Error} where WebAssembly or its vectors are missing or forbidden
 */
export function webassemblyKernels(memory, floats) {
  const native = new WebAssembly.Instance(new WebAssembly.Module(assemble()), { heap: { memory } }).exports;
  const plain = javascriptKernels(floats);
  return {
    kind: "wasm",
    matmul: (y, ldy, x, ldx, w, bias, m, k, n, keep) =>
      native.matmul(4 * y, 4 * ldy, 4 * x, 4 * ldx, 4 * w, 4 * bias, m, k, n, keep),
    scan: (h, y, delta, u, a, b, c, channels, n) =>
      n % 4
        ? plain.scan(h, y, delta, u, a, b, c, channels, n)
        : native.scan(4 * h, 4 * y, 4 * delta, 4 * u, 4 * a, 4 * b, 4 * c, channels, n),
    silu: (x, count) => {
      const vectors = count & ~3;
      native.silu(4 * x, vectors);
      if (vectors < count) plain.silu(x + vectors, count - vectors);
    },
  };
}

/** @param {Float32Array} floats */
export function javascriptKernels(floats) {
  return {
    kind: "js",

    /** y (m, n) = [y when keep] + bias (n) + x (m, k) w (k, n); rows of y and x lie ldy and ldx apart. */
    matmul(y, ldy, x, ldx, w, bias, m, k, n, keep) {
      const tiled = n & ~3;
      for (let i = 0; i < m; i++) {
        const row = x + i * ldx;
        const out = y + i * ldy;
        for (let j = 0; j < tiled; j += 4) {
          let s0 = floats[bias + j];
          let s1 = floats[bias + j + 1];
          let s2 = floats[bias + j + 2];
          let s3 = floats[bias + j + 3];
          for (let p = 0, q = w + j; p < k; p++, q += n) {
            const value = floats[row + p];
            s0 += value * floats[q];
            s1 += value * floats[q + 1];
            s2 += value * floats[q + 2];
            s3 += value * floats[q + 3];
          }
          const at = out + j;
          floats[at] = keep ? floats[at] + s0 : s0;
          floats[at + 1] = keep ? floats[at + 1] + s1 : s1;
          floats[at + 2] = keep ? floats[at + 2] + s2 : s2;
          floats[at + 3] = keep ? floats[at + 3] + s3 : s3;
        }
        for (let j = tiled; j < n; j++) {
          let sum = floats[bias + j];
          for (let p = 0, q = w + j; p < k; p++, q += n) sum += floats[row + p] * floats[q];
          floats[out + j] = keep ? floats[out + j] + sum : sum;
        }
      }
    },

    /** One step of the selective scan: h (channels, n) = 2^(delta a) h + delta u b; y = h . c, for each channel. */
    scan(h, y, delta, u, a, b, c, channels, n) {
      for (let d = 0; d < channels; d++) {
        const step = floats[delta + d] * Math.LN2; // a holds A * log2(e)
        const drive = floats[delta + d] * floats[u + d];
        const row = d * n;
        let sum = 0;
        for (let i = 0; i < n; i++) {
          const value = Math.exp(step * floats[a + row + i]) * floats[h + row + i] + drive * floats[b + i];
          floats[h + row + i] = value;
          sum += value * floats[c + i];
        }
        floats[y + d] = sum;
      }
    },

    /** x / (1 + e^-x) in place. */
    silu(x, count) {
      for (let i = x; i < x + count; i++) floats[i] /= 1 + Math.exp(-floats[i]);
    },
  };
}

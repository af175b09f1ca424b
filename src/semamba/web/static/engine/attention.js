/** Self-attention across the sub-bands of one frame (semamba/ops/frequency.py, frequency_attention). */
import { readLinear } from "./weights.js";

export class Attention {
  constructor(heap, source, name, { width, heads, subBands }) {
    this.heap = heap;
    this.size = { width, heads, subBands };
    this.qkv = readLinear(heap, source, `${name}.qkv`, 3 * width, width);
    this.out = readLinear(heap, source, `${name}.out`, width, width);
    this.projected = heap.zeros(subBands * 3 * width); // rows of query, key, value
    this.mixed = heap.zeros(subBands * width);
    this.scores = new Float64Array(subBands);
  }

  /** features (G, d) += attention of normed (G, d) */
  mix(features, normed) {
    const { width, heads, subBands } = this.size;
    const { heap, projected, mixed } = this;
    heap.linear(this.qkv, projected, normed, subBands);
    heap.floats.fill(0, mixed, mixed + subBands * width);
    for (let head = 0; head < heads; head++) {
      const shift = head * (width / heads);
      for (let g = 0; g < subBands; g++) {
        this.score(projected + g * 3 * width + shift, projected + width + shift);
        this.collect(mixed + g * width + shift, projected + 2 * width + shift);
      }
    }
    heap.linear(this.out, features, mixed, subBands, 1);
  }

  /** Softmax of the scaled products of one query with all keys. */
  score(query, key) {
    const { width, heads, subBands } = this.size;
    const { scores } = this;
    const { floats } = this.heap;
    const size = width / heads;
    const scale = 1 / Math.sqrt(size);
    let largest = -Infinity;
    for (let g = 0, at = key; g < subBands; g++, at += 3 * width) {
      let dot = 0;
      for (let i = 0; i < size; i++) dot += floats[query + i] * floats[at + i];
      scores[g] = dot * scale;
      if (scores[g] > largest) largest = scores[g];
    }
    let total = 0;
    for (let g = 0; g < subBands; g++) {
      scores[g] = Math.exp(scores[g] - largest);
      total += scores[g];
    }
    for (let g = 0; g < subBands; g++) scores[g] /= total;
  }

  /** out += values weighted by the scores */
  collect(out, value) {
    const { width, heads, subBands } = this.size;
    const { scores } = this;
    const { floats } = this.heap;
    const size = width / heads;
    for (let g = 0, at = value; g < subBands; g++, at += 3 * width) {
      for (let i = 0; i < size; i++) floats[out + i] += scores[g] * floats[at + i];
    }
  }
}

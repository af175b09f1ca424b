/**
 * A Mamba layer (semamba/models/mamba.py, ops/block.py): its weights, one step of many sequences, or one whole sequence.
 *
 * Letters: G sub-bands, d block channels, D inner channels, N state size, R rank of the step. The layer reads `normed`
 * (G, d) of its workspace and adds its result to features (G, d).
 */
import { readLinear, transpose } from "./weights.js";

const TAPS = 4;

/** Buffers that all layers of a model share; they hold nothing from one call to the next. */
export class Workspace {
  constructor(heap, { subBands, width, inner, rank, stateSize }) {
    this.stepWidth = (rank + 3) & ~3; // what follows it in a row stays aligned
    this.row = this.stepWidth + 2 * stateSize; // step, B, C of one position
    this.normed = heap.zeros(subBands * width);
    this.projected = heap.zeros(subBands * 2 * inner);
    this.u = heap.zeros(subBands * inner);
    this.z = heap.zeros(subBands * inner);
    this.y = heap.zeros(subBands * inner);
    this.delta = heap.zeros(subBands * inner);
    this.steps = heap.zeros(subBands * this.row);
    this.state = heap.zeros(inner * stateSize); // of one sequence
  }
}

export class Mamba {
  /** `remembers`: the layer runs along time and keeps the state of G sequences. */
  constructor(heap, source, name, size, workspace, remembers) {
    const { width, inner, rank, stateSize, subBands } = size;
    const { stepWidth, row } = workspace;
    this.heap = heap;
    this.size = size;
    this.at = workspace;
    const project = new Float32Array(row * inner); // rows of zeros where the rank was rounded up
    const stored = source.take(`${name}.x_proj.weight`, rank + 2 * stateSize, inner);
    project.set(stored.subarray(0, rank * inner));
    project.set(stored.subarray(rank * inner), stepWidth * inner);
    const steps = new Float32Array(stepWidth * inner);
    steps.set(transpose(source.take(`${name}.dt_proj.weight`, inner, rank), inner, rank));
    const rates = source.take(`${name}.A_log`, inner, stateSize).map((value) => -Math.exp(value) * Math.LOG2E);
    this.input = readLinear(heap, source, `${name}.in_proj`, 2 * inner, width, false);
    this.taps = heap.put(transpose(source.take(`${name}.conv1d.weight`, inner, 1, TAPS), inner, TAPS));
    this.tapsBias = heap.put(source.take(`${name}.conv1d.bias`, inner));
    this.project = { k: inner, n: row, w: heap.put(transpose(project, row, inner)), bias: heap.zeros(row) };
    this.step = {
      k: stepWidth,
      n: inner,
      w: heap.put(steps),
      bias: heap.put(source.take(`${name}.dt_proj.bias`, inner)),
    };
    this.rates = heap.put(rates);
    this.skip = heap.put(source.take(`${name}.D`, inner));
    this.output = readLinear(heap, source, `${name}.out_proj`, width, inner, false);
    this.pastSize = remembers ? (TAPS - 1) * subBands * inner : 0;
    this.stateSize = remembers ? subBands * inner * stateSize : 0;
    this.past = heap.zeros(this.pastSize); // ring of the last inputs of the short convolution, (3, G, D)
    this.state = heap.zeros(this.stateSize);
    this.oldest = 0; // row of the ring
  }

  /** Forget the past. */
  reset() {
    this.heap.floats.fill(0, this.past, this.past + this.pastSize);
    this.heap.floats.fill(0, this.state, this.state + this.stateSize);
    this.oldest = 0;
  }

  /** features += the next position of G sequences */
  advance(features) {
    const { subBands, inner, stateSize } = this.size;
    const { at } = this;
    const { scan } = this.heap.kernels;
    this.projectIn();
    this.convolveStep();
    this.prepareScan();
    for (let g = 0; g < subBands; g++) {
      const o = g * inner;
      const b = at.steps + g * at.row + at.stepWidth;
      const state = this.state + o * stateSize;
      scan(state, at.y + o, at.delta + o, at.u + o, this.rates, b, b + stateSize, inner, stateSize);
    }
    this.projectOut(features);
  }

  /** features += the G positions as one sequence, read from its end when `reverse` */
  sweep(features, reverse) {
    const { subBands, inner, stateSize } = this.size;
    const { at } = this;
    const { floats, kernels } = this.heap;
    this.projectIn();
    this.convolveSweep(reverse);
    this.prepareScan();
    floats.fill(0, at.state, at.state + inner * stateSize);
    for (let i = 0; i < subBands; i++) {
      const g = reverse ? subBands - 1 - i : i;
      const o = g * inner;
      const b = at.steps + g * at.row + at.stepWidth;
      kernels.scan(at.state, at.y + o, at.delta + o, at.u + o, this.rates, b, b + stateSize, inner, stateSize);
    }
    this.projectOut(features);
  }

  /** Short convolution of `u` (G, D) in place, each row with the three of its own past. */
  convolveStep() {
    const { subBands, inner } = this.size;
    const { at, taps, tapsBias } = this;
    const { floats } = this.heap;
    const size = subBands * inner;
    const first = this.past + this.oldest * size;
    const second = this.past + ((this.oldest + 1) % 3) * size;
    const third = this.past + ((this.oldest + 2) % 3) * size;
    for (let g = 0; g < size; g += inner) {
      for (let d = 0; d < inner; d++) {
        const now = floats[at.u + g + d];
        floats[at.u + g + d] =
          floats[tapsBias + d] +
          floats[first + g + d] * floats[taps + d] +
          floats[second + g + d] * floats[taps + inner + d] +
          floats[third + g + d] * floats[taps + 2 * inner + d] +
          now * floats[taps + 3 * inner + d];
        floats[first + g + d] = now;
      }
    }
    this.oldest = (this.oldest + 1) % 3;
  }

  /** Short convolution of `u` (G, D) in place along G. */
  convolveSweep(reverse) {
    const { subBands, inner } = this.size;
    const { at, taps, tapsBias } = this;
    const { floats } = this.heap;
    const direction = reverse ? -1 : 1;
    for (let i = 0; i < subBands; i++) {
      const g = reverse ? i : subBands - 1 - i; // what is read last comes first: the others still need its input
      for (let d = 0; d < inner; d++) {
        let sum = floats[tapsBias + d];
        for (let k = 0; k < TAPS; k++) {
          const from = g - (TAPS - 1 - k) * direction;
          if (from >= 0 && from < subBands) sum += floats[at.u + from * inner + d] * floats[taps + k * inner + d];
        }
        floats[at.u + g * inner + d] = sum;
      }
    }
  }

  /** normed (G, d) -> u, z (G, D) */
  projectIn() {
    const { subBands, inner } = this.size;
    const { at } = this;
    const { floats } = this.heap;
    this.heap.linear(this.input, at.projected, at.normed, subBands);
    for (let g = 0; g < subBands; g++) {
      const from = at.projected + 2 * g * inner;
      floats.copyWithin(at.u + g * inner, from, from + inner);
      floats.copyWithin(at.z + g * inner, from + inner, from + 2 * inner);
    }
  }

  /** u after the short convolution -> u after SiLU, steps as rows of (step, B, C), delta after softplus */
  prepareScan() {
    const { subBands, inner } = this.size;
    const { at, step } = this;
    const { floats, kernels } = this.heap;
    kernels.silu(at.u, subBands * inner);
    this.heap.linear(this.project, at.steps, at.u, subBands);
    kernels.matmul(at.delta, inner, at.steps, at.row, step.w, step.bias, subBands, step.k, inner, 0);
    for (let i = at.delta; i < at.delta + subBands * inner; i++) {
      const value = floats[i];
      floats[i] = Math.max(value, 0) + Math.log1p(Math.exp(-Math.abs(value)));
    }
  }

  /** features += output projection of (y + D u) * silu(z) */
  projectOut(features) {
    const { subBands, inner } = this.size;
    const { at, skip } = this;
    const { floats, kernels } = this.heap;
    kernels.silu(at.z, subBands * inner);
    for (let o = 0; o < subBands * inner; o += inner) {
      for (let d = 0; d < inner; d++) {
        floats[at.y + o + d] = (floats[at.y + o + d] + floats[skip + d] * floats[at.u + o + d]) * floats[at.z + o + d];
      }
    }
    this.heap.linear(this.output, features, at.y, subBands, 1);
  }
}

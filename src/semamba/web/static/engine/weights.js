/** From named tensors to matrices on the heap, each name and shape checked. */

/** Hands out tensors by name, checks their shapes, and knows which were never asked for. */
export class Source {
  /** @param {Object<string, {shape: number[], data: Float32Array}>} tensors */
  constructor(tensors) {
    this.tensors = tensors;
    this.left = new Set(Object.keys(tensors));
  }

  /** @throws {Error} when there is no such tensor, or of another shape */
  take(name, ...shape) {
    const tensor = this.tensors[name];
    if (!tensor) throw new Error(`weights: tensor ${name} is missing`);
    if (tensor.shape.join() !== shape.join()) {
      throw new Error(`weights: ${name} has shape ${tensor.shape.join(" x ")}, the model needs ${shape.join(" x ")}`);
    }
    this.left.delete(name);
    return tensor.data;
  }

  /** @throws {Error} when a tensor is left that no layer wanted */
  finish() {
    if (this.left.size) throw new Error(`weights: ${[...this.left][0]} is not part of this model`);
  }
}

/** A torch Linear (rows outputs, columns inputs) as the k x n matrix that `matmul` takes. */
export function readLinear(heap, source, name, rows, columns, bias = true) {
  return {
    k: columns,
    n: rows,
    w: heap.put(transpose(source.take(`${name}.weight`, rows, columns), rows, columns)),
    bias: bias ? heap.put(source.take(`${name}.bias`, rows)) : heap.zeros(rows),
  };
}

export function transpose(values, rows, columns) {
  const result = new Float32Array(rows * columns);
  for (let r = 0; r < rows; r++) for (let c = 0; c < columns; c++) result[c * rows + r] = values[r * columns + c];
  return result;
}

/**
 * Reads model.safetensors: 8 bytes of header length, a JSON header, then the tensors.
 * Works in pages, workers, audio worklets (which have no TextDecoder) and node.
 */

const READERS = { F32: readFloat32, F16: readFloat16, BF16: readBfloat16 };
const BYTES = { F32: 4, F16: 2, BF16: 2 };

/**
 * @param {ArrayBuffer} buffer the whole file
 * @returns {Object<string, {shape: number[], data: Float32Array}>}
 * @throws {Error} when the file is damaged or holds a type that models do not use
 */
export function parseSafetensors(buffer) {
  const view = new DataView(buffer);
  const length = buffer.byteLength >= 8 ? Number(view.getBigUint64(0, true)) : Infinity;
  if (length > buffer.byteLength - 8) throw new Error("weights: not a safetensors file, or cut short");
  const header = JSON.parse(ascii(new Uint8Array(buffer, 8, length)));
  const tensors = {};
  for (const [name, entry] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    const read = READERS[entry.dtype];
    if (!read) throw new Error(`weights: tensor ${name} has type ${entry.dtype}; F32, F16 and BF16 can be read`);
    const [start, end] = entry.data_offsets;
    const count = entry.shape.reduce((product, size) => product * size, 1);
    if (end - start !== count * BYTES[entry.dtype] || 8 + length + end > buffer.byteLength) {
      throw new Error(`weights: tensor ${name} is cut short`);
    }
    tensors[name] = { shape: entry.shape, data: read(view, 8 + length + start, count) };
  }
  return tensors;
}

function ascii(bytes) {
  let text = "";
  for (let i = 0; i < bytes.length; i += 4096) text += String.fromCharCode(...bytes.subarray(i, i + 4096));
  return text;
}

function readFloat32(view, start, count) {
  const data = new Float32Array(count);
  for (let i = 0; i < count; i++) data[i] = view.getFloat32(start + 4 * i, true);
  return data;
}

function readBfloat16(view, start, count) {
  const bits = new Uint32Array(count);
  for (let i = 0; i < count; i++) bits[i] = view.getUint16(start + 2 * i, true) << 16;
  return new Float32Array(bits.buffer);
}

/** IEEE 754 binary16: 1 sign bit, 5 bits of exponent, 10 of fraction; subnormals included. */
function readFloat16(view, start, count) {
  const data = new Float32Array(count);
  for (let i = 0; i < count; i++) {
    const half = view.getUint16(start + 2 * i, true);
    const exponent = (half >> 10) & 31;
    const fraction = half & 1023;
    let value;
    if (exponent === 0) value = fraction * 2 ** -24;
    else if (exponent === 31) value = fraction ? NaN : Infinity;
    else value = (1 + fraction / 1024) * 2 ** (exponent - 15);
    data[i] = half & 0x8000 ? -value : value;
  }
  return data;
}

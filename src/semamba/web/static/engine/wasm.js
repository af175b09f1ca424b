/**
 * Three WebAssembly SIMD kernels, assembled here from readable pieces: matmul, scan, silu.
 * `kernels.js` holds the same three in JavaScript, which say what each computes.
 *
 * Pieces of code are nested arrays of bytes, flattened at the end. Pointers and strides are in bytes.
 */

const I32 = 0x7f;
const F32 = 0x7d;
const V128 = 0x7b;
const LOG2E = Math.LOG2E;

// Instructions. `u` and `s` are LEB128 numbers without and with sign.
const u = (value) => (value < 128 ? [value] : [(value & 127) | 128, ...u(value >>> 7)]);
const s = (value) => (value >= -64 && value < 64 ? [value & 127] : [(value & 127) | 128, ...s(value >> 7)]);
const get = (local) => [0x20, u(local)];
const set = (local) => [0x21, u(local)];
const int = (value) => [0x41, s(value)];
const ADD = 0x6a;
const SUB = 0x6b;
const MUL = 0x6c;
const SHL = 0x74;
const AND = 0x71;
const LESS = 0x48; // signed
const simd = (code) => [0xfd, u(code)];
const memory = (offset) => [2, u(offset)]; // aligned to 4 bytes
const load = (offset = 0) => [simd(0x00), memory(offset)];
const splatFrom = (offset = 0) => [simd(0x09), memory(offset)];
const store = (offset = 0) => [simd(0x0b), memory(offset)];
const load1 = (offset = 0) => [0x2a, memory(offset)];
const store1 = (offset = 0) => [0x38, memory(offset)];
const VADD = simd(0xe4);
const VSUB = simd(0xe5);
const VMUL = simd(0xe6);
const VDIV = simd(0xe7);
const VMIN = simd(0xe8);
const VMAX = simd(0xe9);
const lane = (i) => [simd(0x1f), i];
const all = (value) => [simd(0x0c), new Array(4).fill(floatBytes(value))];
const zeros = all(0);

/** while (condition) body; the condition leaves an i32 */
const loopWhile = (condition, ...body) => [
  [0x02, 0x40, 0x03, 0x40],
  [condition, 0x45, 0x0d, 1],
  body,
  [0x0c, 0, 0x0b, 0x0b],
];
const when = (condition, ...body) => [condition, 0x04, 0x40, body, 0x0b];
const advance = (local, ...amount) => [get(local), amount, ADD, set(local)];

function floatBytes(value) {
  return [...new Uint8Array(new Float32Array([value]).buffer)];
}

/** 2^x of the vector on the stack, |x| <= 126: exponent bits for the whole part, Taylor series for the rest. */
function exp2(x, whole) {
  const series = [0, 1, 2, 3, 4, 5, 6].map((k) => Math.LN2 ** k / [1, 1, 2, 6, 24, 120, 720][k]).reverse();
  const horner = series.slice(1).map((c) => [get(x), VMUL, all(c), VADD]);
  return [
    [all(-126), VMAX, all(126), VMIN, set(x)],
    [get(x), simd(0x6a), set(whole)], // nearest
    [get(x), get(whole), VSUB, set(x)], // relative error of the series on [-0.5, 0.5]: 1.3e-7
    [all(series[0]), horner],
    [get(whole), simd(0xf8), int(127), simd(0x11), simd(0xae), int(23), simd(0xab), VMUL],
  ];
}

/** matmul(y, ldy, x, ldx, w, bias, m, k, n, keep); rows in fours, columns in eights, then what is left. */
function matmul() {
  const [y, ldy, x, ldx, w, bias, m, k, n, keep] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9];
  const [i, j, count, wp, ldw, yp] = [10, 11, 12, 13, 14, 15];
  const xp = [16, 17, 18, 19];
  const weight = [20, 21];
  const value = 22;
  const vector = [23, 24, 25, 26, 27, 28, 29, 30];
  const scalar = [31, 32, 33, 34];

  // Sums of `rows` rows and `width` columns (8, 4 or 1) stay in registers along k.
  const tile = (rows, width) => {
    const parts = width === 8 ? [0, 1] : [0];
    const single = width === 1;
    const sums = single ? scalar : vector;
    const sum = (r, p) => sums[r * parts.length + p];
    const each = (make) => Array.from({ length: rows }, (_, r) => parts.map((p) => make(r, p)));
    const column = [get(j), int(2), SHL];
    const [read, write, plus, times] = single ? [load1, store1, 0x92, 0x94] : [load, store, VADD, VMUL];
    return [
      [get(bias), column, ADD, set(wp)],
      each((r, p) => [get(wp), read(16 * p), set(sum(r, p))]),
      [get(w), column, ADD, set(wp)],
      Array.from({ length: rows }, (_, r) => [
        r ? [get(xp[r - 1]), get(ldx), ADD] : [get(x), get(i), get(ldx), MUL, ADD],
        set(xp[r]),
      ]),
      [get(k), set(count)],
      loopWhile(
        get(count),
        single ? [] : parts.map((p) => [get(wp), load(16 * p), set(weight[p])]),
        Array.from({ length: rows }, (_, r) =>
          single
            ? [get(sum(r, 0)), get(xp[r]), load1(), get(wp), load1(), times, plus, set(sum(r, 0))]
            : [
                [get(xp[r]), splatFrom(), set(value)],
                parts.map((p) => [get(sum(r, p)), get(value), get(weight[p]), times, plus, set(sum(r, p))]),
              ],
        ),
        Array.from({ length: rows }, (_, r) => advance(xp[r], int(4))),
        advance(wp, get(ldw)),
        [get(count), int(1), SUB, set(count)],
      ),
      [get(y), get(i), get(ldy), MUL, ADD, column, ADD, set(yp)],
      Array.from({ length: rows }, (_, r) => [
        when(
          get(keep),
          parts.map((p) => [get(yp), read(16 * p), get(sum(r, p)), plus, set(sum(r, p))]),
        ),
        parts.map((p) => [get(yp), get(sum(r, p)), write(16 * p)]),
        advance(yp, get(ldy)),
      ]),
    ];
  };
  const columns = (rows) => [
    [int(0), set(j)],
    [8, 4, 1].map((width) =>
      loopWhile([get(j), int(width - 1), ADD, get(n), LESS], tile(rows, width), advance(j, int(width))),
    ),
  ];
  return {
    parameters: 10,
    locals: [[10, I32], [11, V128], [4, F32]], // prettier-ignore
    code: [
      [get(n), int(2), SHL, set(ldw)],
      [4, 1].map((rows) =>
        loopWhile([get(i), int(rows - 1), ADD, get(m), LESS], columns(rows), advance(i, int(rows))),
      ),
    ],
  };
}

/** scan(h, y, delta, u, a, b, c, channels, n); n a multiple of 4, a = A * log2(e). */
function scan() {
  const [h, y, delta, input, a, b, c, channels, n] = [0, 1, 2, 3, 4, 5, 6, 7, 8];
  const at = 9;
  const [step, drive, sum, x, whole] = [10, 11, 12, 13, 14];
  const pointers = (...locals) => locals.map((local) => advance(local, int(16)));
  return {
    parameters: 9,
    locals: [[1, I32], [5, V128]], // prettier-ignore
    code: loopWhile(
      get(channels),
      [get(delta), splatFrom(), set(step)],
      [get(step), get(input), splatFrom(), VMUL, set(drive)],
      [zeros, set(sum), int(0), set(at)],
      loopWhile(
        [get(at), get(n), int(2), SHL, LESS],
        get(h),
        [get(step), get(a), load(), VMUL, exp2(x, whole)],
        [get(h), load(), VMUL, get(drive), get(b), get(at), ADD, load(), VMUL, VADD, store()],
        [get(sum), get(h), load(), get(c), get(at), ADD, load(), VMUL, VADD, set(sum)],
        pointers(h, a, at),
      ),
      get(y),
      [get(sum), lane(0), get(sum), lane(1), 0x92, get(sum), lane(2), get(sum), lane(3), 0x92, 0x92, store1()],
      [delta, input, y].map((local) => advance(local, int(4))),
      [get(channels), int(1), SUB, set(channels)],
    ),
  };
}

/** silu(x, count) in place; count a multiple of 4. */
function silu() {
  const [pointer, count, x, whole] = [0, 1, 2, 3];
  return {
    parameters: 2,
    locals: [[2, V128]], // prettier-ignore
    code: loopWhile(
      get(count),
      [get(pointer), get(pointer), load()],
      [get(pointer), load(), all(-LOG2E), VMUL, exp2(x, whole), all(1), VADD, VDIV, store()],
      advance(pointer, int(16)),
      [get(count), int(4), SUB, set(count)],
    ),
  };
}

/** The module's bytes; it imports its memory as `heap.memory`. */
export function assemble() {
  const functions = { matmul: matmul(), scan: scan(), silu: silu() };
  const names = Object.keys(functions);
  const text = (name) => [name.length, ...[...name].map((letter) => letter.charCodeAt(0))];
  const section = (id, ...content) => {
    const bytes = content.flat(Infinity);
    return [id, u(bytes.length), bytes];
  };
  const body = ({ locals, code }) => {
    const bytes = [locals.length, locals, code, 0x0b].flat(Infinity);
    return [u(bytes.length), bytes];
  };
  const types = names.map((name) => {
    const count = functions[name].parameters;
    return [0x60, count, new Array(count).fill(I32), 0];
  });
  return new Uint8Array(
    [
      [0, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
      section(1, names.length, types),
      section(2, 1, text("heap"), text("memory"), 2, 0, 1),
      section(3, names.length, [...names.keys()]),
      section(7, names.length, names.map((name, i) => [text(name), 0, i])),
      section(10, names.length, names.map((name) => body(functions[name]))),
    ].flat(Infinity),
  );
}

/**
 * Sample-rate conversion by the filter of semamba/audio/resample.py (`StreamResampler`): a windowed sinc, cut into
 * phases; output j lies at input j * from / to.
 */

const PASS = 0.9; // of the lower rate's Nyquist frequency: what passes
const STOP = 1.0; // and from where on nothing does
const ATTENUATION = 90; // dB
const PHASES = 2048; // more than these are interpolated from these

/** @returns {Float32Array} `length` samples at rate `to` */
export function resample(wave, from, to, length) {
  if (from === to) return wave.slice(0, length);
  const { up, down, reach, phases, taps } = design(from, to);
  const width = 2 * reach;
  const result = new Float32Array(length);
  for (let j = 0; j < length; j++) {
    const at = Math.floor((j * down) / up);
    const phase = (((j * down) % up) / up) * phases;
    const row = Math.floor(phase);
    const share = phase - row;
    const first = at + 1 - reach;
    const start = Math.max(0, -first);
    const stop = Math.min(width, wave.length - first);
    let sum = 0;
    const offset = row * width;
    if (share === 0) for (let i = start; i < stop; i++) sum += taps[offset + i] * wave[first + i];
    else {
      for (let i = start; i < stop; i++) {
        const tap = taps[offset + i] + share * (taps[offset + width + i] - taps[offset + i]);
        sum += tap * wave[first + i];
      }
    }
    result[j] = sum;
  }
  return result;
}

const designs = new Map();

function design(from, to) {
  const key = `${from}:${to}`;
  if (designs.has(key)) return designs.get(key);
  const divisor = gcd(from, to);
  const up = to / divisor;
  const low = Math.min(from, to) / 2;
  // Kaiser & Schafer 1980: length of a filter by attenuation and width of the transition.
  const half = (ATTENUATION - 8) / (2.285 * 4 * Math.PI * (STOP - PASS) * low); // seconds
  const reach = Math.ceil(half * from);
  const phases = Math.min(up, PHASES);
  const beta = 0.1102 * (ATTENUATION - 8.7);
  const taps = new Float32Array((phases + 1) * 2 * reach);
  for (let p = 0; p <= phases; p++) {
    const row = taps.subarray(2 * reach * p, 2 * reach * (p + 1));
    let total = 0;
    for (let i = 0; i < row.length; i++) {
      const offset = (i + 1 - reach - p / phases) / from; // seconds
      const inside = 1 - (offset / half) ** 2;
      row[i] = inside >= 0 ? sinc((PASS + STOP) * low * offset) * bessel(beta * Math.sqrt(inside)) : 0;
      total += row[i];
    }
    for (let i = 0; i < row.length; i++) row[i] /= total;
  }
  const made = { up, down: from / divisor, reach, phases, taps };
  designs.set(key, made);
  return made;
}

const gcd = (a, b) => (b ? gcd(b, a % b) : a);
const sinc = (x) => (x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x));

/** Modified Bessel function of order 0, by its series. */
function bessel(x) {
  let term = 1;
  let sum = 1;
  for (let k = 1; term > 1e-17 * sum; k++) {
    term *= (x / (2 * k)) ** 2;
    sum += term;
  }
  return sum;
}

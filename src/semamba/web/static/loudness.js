/**
 * How loud two signals are where somebody speaks, by the K-weighting of ITU-R BS.1770, and how alike a mix of them is.
 * All is kept as energies of blocks, so that the level of any mix is known at once.
 */

const BLOCK = 0.1; // seconds

export class Loudness {
  /** @param {Float32Array[]} dry @param {Float32Array[]} wet the same lengths @param {number} rate Hz */
  constructor(dry, wet, rate) {
    const size = Math.max(1, Math.round(BLOCK * rate));
    const blocks = Math.max(1, Math.ceil(dry[0].length / size));
    this.dry = new Float64Array(blocks);
    this.wet = new Float64Array(blocks);
    this.both = new Float64Array(blocks);
    this.peaks = [0, 0];
    dry.forEach((channel, c) => {
      const [first, second] = [weighting(rate), weighting(rate)];
      for (let i = 0; i < channel.length; i++) {
        const b = Math.floor(i / size);
        const d = first(channel[i]);
        const w = second(wet[c][i]);
        this.dry[b] += d * d;
        this.wet[b] += w * w;
        this.both[b] += d * w;
        this.peaks[0] = Math.max(this.peaks[0], Math.abs(channel[i]));
        this.peaks[1] = Math.max(this.peaks[1], Math.abs(wet[c][i]));
      }
    });
    this.frames = size;
    // Blocks with speech: those within 10 dB of the mean of what is not silent in the enhanced signal.
    const mean = this.wet.reduce((sum, e) => sum + e, 0) / blocks;
    const loud = [...this.wet.keys()].filter((b) => this.wet[b] > mean / 10);
    this.speech = loud.length ? loud : [...this.wet.keys()];
  }

  /** Energy of the mix in block b. */
  energy(b, share) {
    const dry = 1 - share;
    return dry * dry * this.dry[b] + 2 * dry * share * this.both[b] + share * share * this.wet[b];
  }

  /** LUFS-like level of the mix in the blocks with speech, dB. */
  level(share) {
    const sum = this.speech.reduce((total, b) => total + this.energy(b, share), 0);
    return -0.691 + 10 * Math.log10(sum / this.speech.length / this.frames + 1e-12);
  }

  /** How much the quietest tenth of the mix lies below that of the input, dB. */
  quieter(share) {
    const tenth = (energies) => [...energies].sort((a, b) => a - b)[Math.floor(energies.length / 10)] + 1e-9;
    const mixed = this.dry.map((_, b) => Math.max(0, this.energy(b, share)));
    return 10 * Math.log10(tenth(this.dry) / tenth(mixed));
  }

  /** Gains for before and after that make them equally loud and clip neither. */
  gains(share, match) {
    if (!match) return [1, 1];
    const gain = Math.min(8, Math.max(0.125, 10 ** ((this.level(0) - this.level(share)) / 20)));
    const peak = Math.max(this.peaks[0], gain * ((1 - share) * this.peaks[0] + share * this.peaks[1]));
    const scale = peak > 1 ? 1 / peak : 1;
    return [scale, scale * gain];
  }
}

/** The two filters of BS.1770 (a shelf, a high-pass), designed for any rate as in its annex. */
function weighting(rate) {
  const shelf = biquad(rate, 1681.974450955533, 0.7071752369554196, (k, q) => {
    const vh = 10 ** (3.999843853973347 / 20);
    const vb = vh ** 0.4996667741545416;
    return [vh + (vb * k) / q + k * k, 2 * (k * k - vh), vh - (vb * k) / q + k * k];
  });
  const high = biquad(rate, 38.13547087602444, 0.5003270373238773, (k, q) => [1, -2, 1].map((v) => v * (1 + k / q + k * k)));
  return (x) => high(shelf(x));
}

function biquad(rate, frequency, q, numerator) {
  const k = Math.tan((Math.PI * frequency) / rate);
  const norm = 1 + k / q + k * k;
  const [b0, b1, b2] = numerator(k, q).map((v) => v / norm);
  const a1 = (2 * (k * k - 1)) / norm;
  const a2 = (1 - k / q + k * k) / norm;
  let [z1, z2] = [0, 0];
  return (x) => {
    const y = b0 * x + z1;
    z1 = b1 * x - a1 * y + z2;
    z2 = b2 * x - a2 * y;
    return y;
  };
}

/**
 * Fourier transforms of real frames. Nothing is allocated after construction.
 * Powers of two take the radix-2 transform of Cooley and Tukey (1965); other sizes a table of the definition.
 */
export class RealFft {
  /** @param {number} size samples of a frame, even */
  constructor(size) {
    this.size = size;
    this.bins = size / 2 + 1;
    this.real = new Float64Array(size);
    this.imag = new Float64Array(size);
    this.cos = new Float64Array(size);
    this.sin = new Float64Array(size);
    for (let i = 0; i < size; i++) {
      this.cos[i] = Math.cos((2 * Math.PI * i) / size);
      this.sin[i] = Math.sin((2 * Math.PI * i) / size);
    }
    this.fast = (size & (size - 1)) === 0;
    if (this.fast) this.order = bitReversal(size);
    else this.scratch = new Float64Array(2 * size);
  }

  /** frame (size) -> out (2 * bins) as re, im, re, im ... */
  forward(frame, out) {
    const { size, bins, real, imag } = this;
    for (let i = 0; i < size; i++) {
      real[i] = frame[i];
      imag[i] = 0;
    }
    this.transform();
    for (let i = 0; i < bins; i++) {
      out[2 * i] = real[i];
      out[2 * i + 1] = imag[i];
    }
  }

  /** spectrum (2 * bins) -> out (size); imaginary parts at 0 Hz and at the top are ignored, as numpy does */
  inverse(spectrum, out) {
    const { size, bins, real, imag } = this;
    for (let i = 0; i < bins; i++) {
      real[i] = spectrum[2 * i];
      imag[i] = -spectrum[2 * i + 1]; // the conjugate's forward transform is the inverse one, but for the scale
    }
    imag[0] = 0;
    imag[bins - 1] = 0;
    for (let i = bins; i < size; i++) {
      real[i] = real[size - i];
      imag[i] = -imag[size - i];
    }
    this.transform();
    for (let i = 0; i < size; i++) out[i] = real[i] / size;
  }

  /** Complex transform of `real`, `imag` in place. */
  transform() {
    if (this.fast) this.radix2();
    else this.definition();
  }

  radix2() {
    const { size, real, imag, cos, sin, order } = this;
    for (let i = 0; i < size; i++) {
      const j = order[i];
      if (j > i) {
        const a = real[i];
        real[i] = real[j];
        real[j] = a;
        const b = imag[i];
        imag[i] = imag[j];
        imag[j] = b;
      }
    }
    for (let half = 1; half < size; half *= 2) {
      const stride = size / (2 * half);
      for (let start = 0; start < size; start += 2 * half) {
        for (let k = 0; k < half; k++) {
          const c = cos[k * stride];
          const s = sin[k * stride];
          const i = start + k;
          const j = i + half;
          const re = c * real[j] + s * imag[j];
          const im = c * imag[j] - s * real[j];
          real[j] = real[i] - re;
          imag[j] = imag[i] - im;
          real[i] += re;
          imag[i] += im;
        }
      }
    }
  }

  definition() {
    const { size, real, imag, cos, sin, scratch } = this;
    for (let k = 0; k < size; k++) {
      let re = 0;
      let im = 0;
      for (let i = 0, angle = 0; i < size; i++) {
        re += real[i] * cos[angle] + imag[i] * sin[angle];
        im += imag[i] * cos[angle] - real[i] * sin[angle];
        angle += k;
        if (angle >= size) angle -= size;
      }
      scratch[k] = re;
      scratch[size + k] = im;
    }
    real.set(scratch.subarray(0, size));
    imag.set(scratch.subarray(size));
  }
}

function bitReversal(size) {
  const order = new Uint32Array(size);
  for (let i = 1; i < size; i++) order[i] = (order[i >> 1] >> 1) | (i & 1 ? size / 2 : 0);
  return order;
}

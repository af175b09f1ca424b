/**
 * AudioWorklet between microphone, page and loudspeaker. Input 0 is the microphone, input 1 (if connected) the enhanced
 * signal; both go to the page in blocks. Sound that the page posts as {play} comes out, after a short wait that covers
 * uneven arrival; when too much has piled up the oldest is dropped, so that the delay does not grow.
 */

const BLOCK_SECONDS = 0.02;
const WAIT_SECONDS = 0.04;
const MOST_SECONDS = 0.25;

class Tap extends AudioWorkletProcessor {
  constructor() {
    super();
    this.size = Math.ceil((BLOCK_SECONDS * sampleRate) / 128) * 128;
    this.mic = new Float32Array(this.size);
    this.wet = new Float32Array(this.size);
    this.filled = 0;
    this.ring = new Float32Array(Math.ceil(2 * MOST_SECONDS * sampleRate));
    this.read = 0;
    this.held = 0;
    this.flowing = false;
    this.port.onmessage = ({ data }) => data.play && this.store(data.play);
  }

  store(samples) {
    for (let i = 0; i < samples.length; i++) {
      if (this.held === this.ring.length) this.drop(1);
      this.ring[(this.read + this.held++) % this.ring.length] = samples[i];
    }
    const most = Math.ceil(MOST_SECONDS * sampleRate);
    if (this.held > most) this.drop(this.held - most);
    if (this.held >= WAIT_SECONDS * sampleRate) this.flowing = true;
  }

  drop(count) {
    this.read = (this.read + count) % this.ring.length;
    this.held -= count;
  }

  process([mic, wet], [[out]]) {
    const channels = mic.length ? mic : null;
    for (let i = 0; i < 128; i++) {
      let sum = 0;
      if (channels) for (const channel of channels) sum += channel[i];
      this.mic[this.filled + i] = channels ? sum / channels.length : 0;
      if (wet.length) this.wet[this.filled + i] = wet[0][i];
    }
    this.filled += 128;
    if (this.filled === this.size) {
      this.filled = 0;
      this.port.postMessage({ mic: this.mic.slice(), ...(wet.length ? { wet: this.wet.slice() } : {}) });
    }
    if (this.held < out.length) this.flowing = false;
    if (this.flowing) {
      for (let i = 0; i < out.length; i++) out[i] = this.ring[(this.read + i) % this.ring.length];
      this.drop(out.length);
    }
    return true;
  }
}

registerProcessor("semamba-tap", Tap);

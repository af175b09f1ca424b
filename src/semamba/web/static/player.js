/** Plays two signals in step; which of them is heard changes within a few milliseconds, without a click. */

const FADE = 0.008; // seconds, time constant

export class Player {
  /** @param {() => void} onChange called when playing starts or stops */
  constructor(onChange) {
    this.onChange = onChange;
    this.playing = false;
    this.offset = 0; // seconds, where it stands while paused
    this.gains = [1, 0];
    this.looped = false;
    this.duration = 0;
  }

  /** @param {number} rate Hz @param {Float32Array[]} dry @param {Float32Array[] | null} wet */
  load(rate, dry, wet) {
    const position = this.position;
    const playing = this.playing;
    this.stopSources();
    if (this.context?.sampleRate !== rate) {
      this.context?.close();
      this.context = openContext(rate);
    }
    const buffer = (channels) => {
      const made = this.context.createBuffer(channels.length, channels[0].length, rate);
      channels.forEach((channel, c) => made.copyToChannel(channel, c));
      return made;
    };
    this.buffers = [buffer(dry), wet && buffer(wet)];
    const same = this.duration === this.buffers[0].duration;
    this.duration = this.buffers[0].duration;
    this.offset = same ? Math.min(position, this.duration) : 0;
    this.playing = false;
    if (playing && same) this.play();
  }

  unload() {
    this.pause();
    this.buffers = null;
    this.offset = this.duration = 0;
  }

  get position() {
    if (!this.playing) return this.offset;
    const passed = this.offset + Math.max(0, this.context.currentTime - this.startedAt);
    return this.looped ? passed % this.duration : Math.min(this.duration, passed);
  }

  play() {
    if (!this.buffers || this.playing) return;
    this.context.resume();
    if (this.offset >= this.duration - 0.01) this.offset = 0;
    const start = this.context.currentTime + 0.02;
    this.nodes = this.buffers.filter(Boolean).map((buffer, i) => {
      const source = new AudioBufferSourceNode(this.context, { buffer, loop: this.looped });
      const gain = new GainNode(this.context, { gain: this.gains[i] });
      source.connect(gain).connect(this.context.destination);
      source.start(start, this.offset);
      return { source, gain };
    });
    this.nodes[0].source.onended = () => {
      this.offset = 0;
      this.playing = false;
      this.onChange();
    };
    this.startedAt = start;
    this.playing = true;
    this.onChange();
  }

  pause() {
    if (!this.playing) return;
    this.offset = this.position;
    this.stopSources();
    this.playing = false;
    this.onChange();
  }

  seek(seconds) {
    const playing = this.playing;
    this.stopSources();
    this.playing = false;
    this.offset = Math.min(this.duration, Math.max(0, seconds));
    if (playing) this.play();
    else this.onChange();
  }

  setLoop(on) {
    const position = this.position;
    this.looped = on;
    if (this.playing) this.seek(position);
  }

  /** Gains of the two signals, from now on. */
  setGains(dry, wet) {
    this.gains = [dry, wet];
    if (!this.playing) return;
    this.nodes.forEach(({ gain }, i) => gain.gain.setTargetAtTime(this.gains[i], this.context.currentTime, FADE));
  }

  stopSources() {
    for (const { source, gain } of this.nodes ?? []) {
      source.onended = null;
      gain.gain.setTargetAtTime(0, this.context.currentTime, FADE / 2);
      source.stop(this.context.currentTime + 5 * FADE);
    }
    this.nodes = [];
  }
}

/** At the rate of the sound, so that the browser's good resampler is used and not that of its buffer sources. */
function openContext(rate) {
  try {
    return new AudioContext({ sampleRate: rate });
  } catch {
    return new AudioContext();
  }
}

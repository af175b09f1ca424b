/**
 * The engine as an AudioWorklet: one 128-sample quantum in, one out, a fixed delay.
 *
 *   await context.audioWorklet.addModule("engine/worklet.js");
 *   const node = new AudioWorkletNode(context, "semamba-enhancer", {
 *     numberOfInputs: 1, numberOfOutputs: 1, outputChannelCount: [1],
 *     processorOptions: { config, tensors },       // from loadModel() in enhancer.js
 *   });
 *   node.port.postMessage({ mix: 0.8 });           // share of the enhanced signal; 0 bypasses, equally late
 *
 * The context must run at 16 kHz: new AudioContext({ sampleRate: 16000 }). Its port tells, once it is ready,
 * {ready: true, latency (samples), kind ("wasm" or "js")} or {error}, and every half second
 * {load (share of real time spent), input, output (RMS), replaced}.
 */
import { Enhancer, SAMPLE_RATE } from "./enhancer.js";

const QUANTUM = 128;
const REPORT_QUANTA = Math.round(SAMPLE_RATE / QUANTUM / 2);

class EnhancerProcessor extends AudioWorkletProcessor {
  constructor({ processorOptions }) {
    super();
    this.mix = processorOptions.mix ?? 1;
    this.quanta = 0;
    this.input = 0;
    this.output = 0;
    this.spent = 0;
    this.clock = globalThis.performance ?? Date; // coarse in worklets without the former; right on average
    try {
      if (sampleRate !== SAMPLE_RATE) throw new Error(`the audio context runs at ${sampleRate} Hz, not at 16000 Hz`);
      this.enhancer = new Enhancer(processorOptions.config, processorOptions.tensors, processorOptions);
      this.enhanced = new Float32Array(QUANTUM);
      this.mono = new Float32Array(QUANTUM);
      this.late = new Float32Array(this.enhancer.latency); // ring: the input as late as the output
      this.at = 0;
      this.port.postMessage({ ready: true, latency: this.enhancer.latency, kind: this.enhancer.kind });
    } catch (error) {
      this.enhancer = null;
      this.port.postMessage({ error: error.message });
    }
    this.port.onmessage = ({ data }) => {
      if (typeof data.mix === "number") this.mix = Math.min(1, Math.max(0, data.mix));
      if (data.reset && this.enhancer) this.enhancer.reset();
      if (data.stop) this.stopped = true;
    };
  }

  process([channels], [outputs]) {
    if (this.stopped || !this.enhancer) return false;
    const { mono, enhanced, late, mix } = this;
    mono.fill(0);
    for (const channel of channels) for (let i = 0; i < mono.length; i++) mono[i] += channel[i] / channels.length;
    const before = this.clock.now();
    this.enhancer.process(mono, enhanced);
    this.spent += this.clock.now() - before;
    for (let i = 0; i < mono.length; i++) {
      const dry = late[this.at];
      late[this.at] = mono[i];
      this.at = (this.at + 1) % late.length;
      const value = mix * enhanced[i] + (1 - mix) * dry;
      this.input += mono[i] ** 2;
      this.output += value ** 2;
      for (const output of outputs) output[i] = value;
    }
    this.quanta++;
    if (this.quanta === REPORT_QUANTA) this.report();
    return true;
  }

  report() {
    const samples = REPORT_QUANTA * QUANTUM;
    this.port.postMessage({
      load: (this.spent / 1000) * (SAMPLE_RATE / samples),
      input: Math.sqrt(this.input / samples),
      output: Math.sqrt(this.output / samples),
      replaced: this.enhancer.replaced,
    });
    this.quanta = this.input = this.output = this.spent = 0;
  }
}

registerProcessor("semamba-enhancer", EnhancerProcessor);

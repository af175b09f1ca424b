// node run.mjs FOLDER COMMAND ARGUMENTS: the browser engine at work on files; JSON on standard output. See test_engine.py.
import fs from "node:fs";
import { Enhancer } from "./enhancer.js";
import { RealFft } from "./fft.js";
import { parseSafetensors } from "./safetensors.js";

const bytes = (path) => new Uint8Array(fs.readFileSync(path)).buffer;
const samples = (path) => new Float32Array(bytes(path));
const tensors = (folder) => parseSafetensors(bytes(`${folder}/model.safetensors`));
const config = (folder) => JSON.parse(fs.readFileSync(`${folder}/config.json`, "utf8"));
const enhancer = (folder, kind) => new Enhancer(config(folder), tensors(folder), { wasm: kind === "wasm" });

const commands = {
  /** A whole recording, twice: the second pass must not know the first. */
  enhance(model, kind, input, output) {
    const engine = enhancer(model, kind);
    engine.enhance(samples(input).map((value) => 3 * value));
    const start = performance.now();
    const result = engine.enhance(samples(input));
    fs.writeFileSync(output, new Uint8Array(result.buffer));
    const factor = (performance.now() - start) / 1000 / (result.length / engine.sampleRate);
    return { kind: engine.kind, latency: engine.latency, replaced: engine.replaced, factor };
  },

  /** A stream in blocks whose sizes change. */
  stream(model, kind, input, output) {
    const engine = enhancer(model, kind);
    const wave = samples(input);
    const result = new Float32Array(wave.length);
    for (let at = 0, size = 1; at < wave.length; at += size, size = (size * 7 + 3) % 700) {
      const block = engine.process(wave.subarray(at, at + size));
      result.set(block, at);
    }
    fs.writeFileSync(output, new Uint8Array(result.buffer));
    return { latency: engine.latency };
  },

  /** A stream in whose middle the model's state gets broken. */
  recover(model, input, output) {
    const engine = enhancer(model, "wasm");
    const wave = samples(input);
    const middle = engine.hop * Math.floor(wave.length / 2 / engine.hop);
    const first = engine.process(wave.subarray(0, middle));
    engine.model.level[0] = NaN;
    const second = engine.process(wave.subarray(middle));
    fs.writeFileSync(output, new Uint8Array(Float32Array.of(...first, ...second).buffer));
    return { replaced: engine.replaced, middle, hop: engine.hop, overlap: engine.overlap };
  },

  /** Growth of the heap in bytes for each hop: the least of several stretches, as the compiler leaves some of its own. */
  garbage(model, kind) {
    const engine = enhancer(model, kind);
    const block = new Float32Array(engine.hop).map(() => Math.random() - 0.5);
    const out = new Float32Array(engine.hop);
    let least = Infinity;
    for (let stretch = 0; stretch < 12; stretch++) {
      globalThis.gc();
      const before = process.memoryUsage().heapUsed;
      for (let i = 0; i < 300; i++) engine.process(block, out);
      least = Math.min(least, (process.memoryUsage().heapUsed - before) / 300);
    }
    return { bytes: least };
  },

  fft(size, input, output) {
    const fft = new RealFft(Number(size));
    const spectrum = new Float64Array(2 * fft.bins);
    const back = new Float64Array(fft.size);
    fft.forward(samples(input), spectrum);
    fft.inverse(spectrum, back);
    fs.writeFileSync(output, new Uint8Array(Float64Array.of(...spectrum, ...back).buffer));
    return {};
  },

  tensors(model) {
    const result = {};
    for (const [name, { shape, data }] of Object.entries(tensors(model))) result[name] = { shape, data: [...data] };
    return result;
  },

  /** What the engine says about a model that it cannot run. */
  refuse(model) {
    try {
      enhancer(model, "js");
      return { message: "" };
    } catch (error) {
      return { message: error.message };
    }
  },
};

const [command, ...rest] = process.argv.slice(2);
console.log(JSON.stringify(commands[command](...rest)));

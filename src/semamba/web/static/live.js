/**
 * A live session: the microphone through a model, on the server or in this browser. Both kinds give pairs of blocks,
 * before and after, that lie at the same time.
 */
import { openMicrophone } from "./microphone.js";
import { askForToken, currentToken, fetchModel } from "./server.js";

const ENGINE_RATE = 16000;
const REST_SECONDS = 2; // that the server may take for the rest of a session

/**
 * @typedef {{rate: number, latency: number, where: string, close: () => Promise<void>, behind: () => number,
 *   hear: (what: "silent" | "dry" | "wet", share: number) => void}} Session `latency` in seconds, of the model's side;
 *   `behind` is what it is now
 */

/** The input as late as the output, block by block. */
class Late {
  constructor(samples) {
    this.waiting = new Float32Array(samples);
  }

  push(block) {
    const joined = new Float32Array(this.waiting.length + block.length);
    joined.set(this.waiting);
    joined.set(block, this.waiting.length);
    this.waiting = joined;
  }

  take(count) {
    const taken = this.waiting.slice(0, count);
    this.waiting = this.waiting.slice(count);
    return taken;
  }
}

/**
 * @param {string} model @param {{onPair: (dry: Float32Array, wet: Float32Array) => void, onEnd: (error?: Error) => void}} on
 * @returns {Promise<Session>}
 */
export async function liveOnServer(model, { onPair, onEnd }) {
  let socket = null;
  let late = null;
  let what = "silent";
  let share = 1;
  let closed = false;
  let ended = () => {};
  let microphone = null;
  const close = async () => {
    const open = !closed && late && socket?.readyState === WebSocket.OPEN;
    closed = true;
    microphone?.close();
    if (open) {
      const rest = new Promise((resolve) => (ended = resolve));
      socket.send(JSON.stringify({ type: "end" }));
      await Promise.race([rest, new Promise((resolve) => setTimeout(resolve, 1000 * REST_SECONDS))]);
    }
    socket?.close();
  };
  const fail = (error) => {
    if (closed) return;
    onEnd(error);
  };
  microphone = await openMicrophone({
    onLost: fail,
    onBlock: (mic) => {
      if (!late || closed || socket.readyState !== WebSocket.OPEN) return;
      late.push(mic);
      socket.send(mic);
    },
  });
  const onSound = (data) => {
    const wet = new Float32Array(data);
    const dry = late.take(wet.length);
    if (what !== "silent") {
      const play = what === "dry" ? dry : wet.map((value, i) => share * value + (1 - share) * dry[i]);
      microphone.tap.port.postMessage({ play });
    }
    onPair(dry, wet);
  };
  try {
    const ready = await greet(model, microphone.rate, (opened) => (socket = opened));
    late = new Late(ready.latency_samples);
    socket.onmessage = ({ data }) => {
      if (data instanceof ArrayBuffer) return onSound(data);
      const told = JSON.parse(data);
      if (told.type === "end") ended();
      if (told.type === "error") fail(new Error(told.error));
    };
    socket.onclose = () => {
      ended();
      fail(new Error("The connection to the server ended."));
    };
    return {
      rate: microphone.rate,
      latency: ready.latency_samples / microphone.rate,
      where: "on the server",
      close,
      behind: () => late.waiting.length / microphone.rate,
      hear: (chosen, wet) => ([what, share] = [chosen, wet]),
    };
  } catch (error) {
    close();
    throw error;
  }
}

/** Open the socket and say hello, with a token where one is needed; resolves to what the server says. */
async function greet(model, rate, onOpen) {
  for (;;) {
    const address = new URL("v1/stream", location.href);
    address.protocol = address.protocol.replace("http", "ws");
    const socket = new WebSocket(address);
    socket.binaryType = "arraybuffer";
    onOpen(socket);
    const answer = await new Promise((resolve, reject) => {
      const hello = { rate, channels: 1, format: "float32", model, ...(currentToken() ? { token: currentToken() } : {}) };
      socket.onopen = () => socket.send(JSON.stringify(hello));
      socket.onmessage = ({ data }) => resolve(JSON.parse(data));
      socket.onclose = () => reject(new Error("The server does not answer; is it still running?"));
    });
    if (answer.type === "ready") return answer;
    socket.onclose = null;
    socket.close();
    if (!/token/.test(answer.error ?? "")) throw new Error(answer.error ?? "The server did not understand this page.");
    await askForToken();
  }
}

/** The same with the engine in an AudioWorklet; the sound never leaves the computer. */
export async function liveInBrowser(model, { onPair, onEnd }) {
  const { config, tensors } = await fetchModel(model);
  let late = null;
  const microphone = await openMicrophone({
    rate: ENGINE_RATE,
    onLost: onEnd,
    onBlock: (mic, wet) => {
      if (!late || !wet) return;
      late.push(mic);
      onPair(late.take(wet.length), wet);
    },
  });
  const { context, source, tap } = microphone;
  try {
    await context.audioWorklet.addModule(new URL("engine/worklet.js", import.meta.url));
    const engine = new AudioWorkletNode(context, "semamba-enhancer", {
      outputChannelCount: [1],
      processorOptions: { config, tensors },
    });
    const latency = await new Promise((resolve, reject) => {
      engine.port.onmessage = ({ data }) => {
        if (data.ready) resolve(data.latency);
        else if (data.error) reject(new Error(data.error));
      };
      engine.onprocessorerror = () => reject(new Error("The engine could not be started in this browser."));
    });
    engine.onprocessorerror = () => {
      onEnd(new Error("The engine stopped."));
    };
    const delayed = new DelayNode(context, { delayTime: latency / ENGINE_RATE, maxDelayTime: 1 });
    const gains = [new GainNode(context, { gain: 0 }), new GainNode(context, { gain: 0 })];
    source.connect(engine).connect(tap, 0, 1);
    source.connect(delayed).connect(gains[0]).connect(context.destination);
    engine.connect(gains[1]).connect(context.destination);
    late = new Late(latency);
    return {
      rate: ENGINE_RATE,
      latency: latency / ENGINE_RATE,
      where: "in this browser",
      close: async () => microphone.close(),
      behind: () => late.waiting.length / ENGINE_RATE,
      hear: (what, share) => {
        const levels = { silent: [0, 0], dry: [1, 0], wet: [1 - share, share] }[what];
        gains.forEach(({ gain }, i) => gain.setTargetAtTime(levels[i], context.currentTime, 0.01));
      },
    };
  } catch (error) {
    microphone.close();
    throw error;
  }
}

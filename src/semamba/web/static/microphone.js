/** The microphone as blocks of samples, untouched by the browser's own noise suppression. */

const REASONS = {
  NotAllowedError: "The browser may not use the microphone; allow it for this page and try again.",
  NotFoundError: "No microphone was found; connect one and try again.",
  NotReadableError: "Another program is using the microphone; close it and try again.",
};

/**
 * @param {{onBlock: (mic: Float32Array, wet?: Float32Array) => void, onLost: (error: Error) => void, rate?: number}} options
 *   rate: of the context, in Hz; onLost is told when the microphone ends by itself, unplugged or forbidden
 * @returns {Promise<{context: AudioContext, source: AudioNode, tap: AudioWorkletNode, rate: number, close: () => void}>}
 *   `tap` has two inputs (microphone, enhanced) and plays what is posted to it as {play: Float32Array}
 */
export async function openMicrophone({ onBlock, onLost, rate }) {
  if (!navigator.mediaDevices) {
    throw new Error("Browsers give pages the microphone only over https or on localhost; open this page there.");
  }
  const audio = { echoCancellation: false, noiseSuppression: false, autoGainControl: false, channelCount: 1 };
  const stream = await navigator.mediaDevices.getUserMedia({ audio }).catch((error) => {
    throw REASONS[error.name] ? new Error(REASONS[error.name]) : error;
  });
  for (const track of stream.getTracks()) track.onended = () => onLost(new Error("The microphone is gone; was it unplugged?"));
  const context = new AudioContext({ latencyHint: "interactive", ...(rate ? { sampleRate: rate } : {}) });
  const close = () => {
    for (const track of stream.getTracks()) track.stop();
    if (context.state !== "closed") context.close();
  };
  try {
    await context.audioWorklet.addModule(new URL("tap-worklet.js", import.meta.url));
    const source = context.createMediaStreamSource(stream);
    const tap = new AudioWorkletNode(context, "semamba-tap", { numberOfInputs: 2, outputChannelCount: [1] });
    tap.port.onmessage = ({ data }) => onBlock(data.mic, data.wet);
    source.connect(tap, 0, 0);
    tap.connect(context.destination);
    await context.resume();
    return { context, source, tap, rate: context.sampleRate, close };
  } catch (error) {
    close();
    // Firefox connects no microphone to a context of another rate.
    if (rate && error.name === "NotSupportedError") throw new Error('This browser cannot bring the microphone to the rate of the model; choose "Server".');
    throw error;
  }
}

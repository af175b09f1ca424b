/** The microphone as blocks of samples, untouched by the browser's own noise suppression. */

/**
 * @param {{onBlock: (mic: Float32Array, wet?: Float32Array) => void, rate?: number}} options rate: of the context, in Hz
 * @returns {Promise<{context: AudioContext, source: AudioNode, tap: AudioWorkletNode, rate: number, close: () => void}>}
 *   `tap` has two inputs (microphone, enhanced) and plays what is posted to it as {play: Float32Array}
 */
export async function openMicrophone({ onBlock, rate }) {
  if (!navigator.mediaDevices) {
    throw new Error("Browsers give pages the microphone only over https or on localhost; open this page there.");
  }
  const audio = { echoCancellation: false, noiseSuppression: false, autoGainControl: false, channelCount: 1 };
  const stream = await navigator.mediaDevices.getUserMedia({ audio });
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
    throw error;
  }
}

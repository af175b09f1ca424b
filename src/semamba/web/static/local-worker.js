/** Worker: a whole recording through the engine, beside the page. In: {config, tensors, channels, rate}. */
import { eachGain, gainTrack } from "./bands.js";
import { Enhancer, SAMPLE_RATE } from "./engine/enhancer.js";
import { resample } from "./resample.js";

self.onmessage = ({ data: { config, tensors, channels, rate } }) => {
  try {
    const enhancer = new Enhancer(config, tensors);
    const result = channels.map((channel, c) =>
      enhance(enhancer, channel, rate, (share) => self.postMessage({ share: (c + share) / channels.length })),
    );
    self.postMessage({ result }, result.map((channel) => channel.buffer));
  } catch (error) {
    self.postMessage({ error: error.message });
  }
};

/** One channel at any rate: to 16 kHz, through the model, back; what the model cannot hear follows its gain. */
function enhance(enhancer, wave, rate, onProgress) {
  const finite = wave.map((value) => (Number.isFinite(value) ? value : 0));
  const noisy = resample(finite, rate, SAMPLE_RATE, Math.ceil((wave.length * SAMPLE_RATE) / rate));
  const enhanced = enhancer.enhance(noisy, onProgress);
  const result = resample(enhanced, SAMPLE_RATE, rate, wave.length);
  if (rate > SAMPLE_RATE) {
    const low = resample(noisy, SAMPLE_RATE, rate, wave.length);
    eachGain(gainTrack(noisy, enhanced), rate, wave.length, (i, gain) => {
      result[i] += gain * (finite[i] - low[i]);
    });
  }
  return result;
}

/** The engine in this browser, for files: nothing leaves the computer. */
import { fetchModel } from "./server.js";

/**
 * @param {import("./decode.js").Sound} sound @param {string} model
 * @param {{signal?: AbortSignal, onProgress?: (share: number) => void}} more
 * @returns {Promise<Float32Array[]>} the enhanced channels, as long as the input
 */
export async function enhanceInBrowser(sound, model, { signal, onProgress } = {}) {
  const { config, tensors } = await fetchModel(model);
  signal?.throwIfAborted();
  const worker = new Worker(new URL("local-worker.js", import.meta.url), { type: "module" });
  try {
    return await new Promise((resolve, reject) => {
      signal?.addEventListener("abort", () => reject(signal.reason));
      worker.onerror = (event) => reject(new Error(event.message || "The engine could not be started in this browser."));
      worker.onmessage = ({ data }) => {
        if (data.error) reject(new Error(data.error));
        else if (data.result) resolve(data.result);
        else onProgress?.(data.share);
      };
      worker.postMessage({ config, tensors, channels: sound.channels, rate: sound.rate });
    });
  } finally {
    worker.terminate();
  }
}

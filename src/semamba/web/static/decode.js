/** A file that somebody dropped becomes samples: by our own reader, by the browser, or by the server. */
import { enhanceOnServer } from "./server.js";
import { encodeWav, parseWav } from "./wav.js";

/**
 * @typedef {{name: string, rate: number, channels: Float32Array[], narrow: boolean, source: Blob, sent: string}} Sound
 * `source` is what goes to the server, by the name `sent`: exactly the samples that are shown and heard as "before".
 */

/**
 * @param {File | Blob} file
 * @param {{private: boolean, signal?: AbortSignal}} options private: the server must not see it
 * @returns {Promise<Sound>}
 * @throws {Error} when nobody here can read it
 */
export async function decode(file, options) {
  const name = file.name ?? "recording.wav";
  if (!file.size) throw new Error(`${name} is empty.`);
  const buffer = await file.arrayBuffer().catch(() => {
    throw new Error(`${name} can no longer be read; choose it again.`);
  });
  const plain = parseWav(buffer);
  if (plain?.channels[0].length) return { name, source: file, sent: name, ...plain };
  const decoded = await decodeInBrowser(buffer);
  if (decoded) return soundOf(name, decoded.rate, decoded.channels);
  if (options.private) throw new Error(`This browser cannot read ${name}; choose "Server" to let the server try.`);
  const answer = await enhanceOnServer(file, name, { mix: 0, format: "wav" }, options);
  const read = parseWav(answer);
  if (!read?.channels[0].length) throw new Error(`${name} holds no sound.`);
  return { name, source: new Blob([answer]), sent: asWav(name), ...read };
}

export function soundOf(name, rate, channels) {
  return { name, rate, channels, narrow: true, source: new Blob([encodeWav(channels, rate, true)]), sent: asWav(name) };
}

const asWav = (name) => (/\.wav$/i.test(name) ? name : `${name}.wav`);

async function decodeInBrowser(buffer) {
  const rate = sniffRate(new DataView(buffer)) ?? 48000;
  try {
    const audio = await new OfflineAudioContext(1, 1, rate).decodeAudioData(buffer.slice(0));
    const channels = Array.from({ length: audio.numberOfChannels }, (_, c) => audio.getChannelData(c));
    return audio.length ? { rate: audio.sampleRate, channels } : null;
  } catch {
    return null;
  }
}

/** The rate that FLAC, Ogg and MP3 files state, so that nothing is resampled on the way in; null when unknown. */
function sniffRate(view) {
  const bytes = new Uint8Array(view.buffer, 0, Math.min(view.byteLength, 4096));
  const starts = (letters, at = 0) => [...letters].every((letter, i) => bytes[at + i] === letter.charCodeAt(0));
  let rate = null;
  if (starts("fLaC") && bytes.length > 21) rate = (bytes[18] << 12) | (bytes[19] << 4) | (bytes[20] >> 4);
  else if (starts("OggS")) {
    for (let i = 28; i + 16 < Math.min(bytes.length, 200); i++) {
      if (starts("\x01vorbis", i)) rate = view.getUint32(i + 12, true);
      if (starts("OpusHead", i)) rate = 48000;
    }
  } else {
    let at = starts("ID3") ? 10 + (bytes[6] << 21) + (bytes[7] << 14) + (bytes[8] << 7) + bytes[9] : 0;
    const head = at + 4 <= view.byteLength ? view.getUint32(at) : 0;
    if (head >>> 21 === 0x7ff && (head >> 17) & 3) { // layer 0 is AAC, which begins alike and counts otherwise
      const version = (head >> 19) & 3;
      const base = [44100, 48000, 32000][(head >> 10) & 3];
      rate = base ? base / (version === 3 ? 1 : version === 2 ? 2 : 4) : null;
    }
  }
  return rate >= 8000 && rate <= 96000 ? rate : null;
}

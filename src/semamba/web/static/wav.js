/** WAV files: read exactly as they are, written as 16-bit PCM or 32-bit floats. */

/**
 * @param {ArrayBuffer} buffer
 * @returns {{rate: number, channels: Float32Array[], narrow: boolean} | null} null for anything but plain WAV;
 *   `narrow`: 16 bits hold all of it
 */
export function parseWav(buffer) {
  const view = new DataView(buffer);
  const tag = (at) => (at + 4 <= view.byteLength ? String.fromCharCode(...new Uint8Array(buffer, at, 4)) : "");
  if (tag(0) !== "RIFF" || tag(8) !== "WAVE") return null;
  let form = null;
  for (let at = 12; at + 8 <= view.byteLength; ) {
    const size = view.getUint32(at + 4, true);
    const start = at + 8;
    if (tag(at) === "fmt " && size >= 16 && start + size <= view.byteLength) {
      const code = view.getUint16(start, true);
      form = {
        kind: code === 0xfffe && size >= 26 ? view.getUint16(start + 24, true) : code,
        count: view.getUint16(start + 2, true),
        rate: view.getUint32(start + 4, true),
        bits: view.getUint16(start + 14, true),
      };
    } else if (tag(at) === "data" && form) {
      const read = reader(form.kind, form.bits);
      if (!read || !form.count || !form.rate) return null;
      const width = form.bits / 8;
      const frames = Math.floor(Math.min(size, view.byteLength - start) / (width * form.count));
      const channels = Array.from({ length: form.count }, () => new Float32Array(frames));
      for (let i = 0, from = start; i < frames; i++) {
        for (let c = 0; c < form.count; c++, from += width) channels[c][i] = read(view, from);
      }
      return { rate: form.rate, channels, narrow: form.kind === 1 && form.bits <= 16 };
    }
    at = start + size + (size % 2);
  }
  return null;
}

function reader(kind, bits) {
  if (kind === 3 && bits === 32) return (view, at) => view.getFloat32(at, true);
  if (kind === 3 && bits === 64) return (view, at) => view.getFloat64(at, true);
  if (kind !== 1) return null;
  if (bits === 8) return (view, at) => (view.getUint8(at) - 128) / 128;
  if (bits === 16) return (view, at) => view.getInt16(at, true) / 32768;
  if (bits === 24) return (view, at) => (view.getUint16(at, true) + view.getInt8(at + 2) * 65536) / 8388608;
  if (bits === 32) return (view, at) => view.getInt32(at, true) / 2147483648;
  return null;
}

/** @returns {ArrayBuffer} a WAV file; `narrow`: 16-bit PCM, clipped at full scale */
export function encodeWav(channels, rate, narrow) {
  const width = narrow ? 2 : 4;
  const frames = channels[0].length;
  const size = frames * channels.length * width;
  const buffer = new ArrayBuffer(44 + size);
  const view = new DataView(buffer);
  const text = (at, letters) => [...letters].forEach((letter, i) => view.setUint8(at + i, letter.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, 36 + size, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, narrow ? 1 : 3, true);
  view.setUint16(22, channels.length, true);
  view.setUint32(24, rate, true);
  view.setUint32(28, rate * channels.length * width, true);
  view.setUint16(32, channels.length * width, true);
  view.setUint16(34, 8 * width, true);
  text(36, "data");
  view.setUint32(40, size, true);
  for (let i = 0, at = 44; i < frames; i++) {
    for (const channel of channels) {
      if (narrow) view.setInt16(at, Math.max(-32768, Math.min(32767, Math.round(channel[i] * 32768))), true);
      else view.setFloat32(at, channel[i], true);
      at += width;
    }
  }
  return buffer;
}

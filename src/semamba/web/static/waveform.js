/** The outline of a sound: smallest and largest sample under each pixel. */

const LOOKS = 64; // samples looked at for one pixel; more cannot be seen

/** Draw (1 - share) * dry + share * wet (`wet` may be null) in the given colour. */
export function drawWave(canvas, dry, wet, share, colour) {
  const ratio = Math.min(2, devicePixelRatio || 1);
  const width = Math.max(64, Math.round(canvas.clientWidth * ratio));
  const height = Math.max(16, Math.round(canvas.clientHeight * ratio));
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  context.fillStyle = colour;
  const middle = height / 2;
  const [a, b] = wet ? [1 - share, share] : [1, 0];
  for (let x = 0; x < width; x++) {
    const start = Math.floor((x * dry.length) / width);
    const stop = Math.max(start + 1, Math.floor(((x + 1) * dry.length) / width));
    const step = Math.max(1, Math.floor((stop - start) / LOOKS));
    let [low, high] = [1, -1];
    for (let i = start; i < stop; i += step) {
      const value = a * dry[i] + (b ? b * wet[i] : 0);
      if (value < low) low = value;
      if (value > high) high = value;
    }
    const top = middle - Math.min(1, high) * middle;
    context.fillRect(x, top, 1, Math.max(ratio, (Math.min(1, high) - Math.max(-1, low)) * middle));
  }
}

/** Mean of all channels. */
export function toMono(channels) {
  if (channels.length === 1) return channels[0];
  const mono = new Float32Array(channels[0].length);
  for (const channel of channels) for (let i = 0; i < mono.length; i++) mono[i] += channel[i] / channels.length;
  return mono;
}

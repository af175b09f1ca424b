/** Means, intervals and paired differences over files; what the Python package computes, for any choice of baseline. */

/** 97.5% point of Student's t: Cornish-Fisher expansion, exact for few degrees of freedom. */
export function t975(degrees) {
  const exact = [12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.306, 2.2622, 2.2281];
  if (degrees <= exact.length) return exact[degrees - 1];
  const z = 1.959963984540054;
  const n = degrees;
  return z + (z ** 3 + z) / (4 * n) + (5 * z ** 5 + 16 * z ** 3 + 3 * z) / (96 * n * n) + (3 * z ** 7 + 19 * z ** 5 + 17 * z ** 3 - 15 * z) / (384 * n ** 3);
}

/** {mean, half, count} of numbers; half is NaN below two. */
export function estimate(values) {
  const count = values.length;
  if (!count) return { mean: NaN, half: NaN, count };
  const mean = values.reduce((sum, v) => sum + v, 0) / count;
  if (count < 2) return { mean, half: NaN, count };
  const variance = values.reduce((sum, v) => sum + (v - mean) ** 2, 0) / (count - 1);
  return { mean, half: t975(count - 1) * Math.sqrt(variance / count), count };
}

/** One number for each file of a system: a measure, or the word error rate in per cent. */
export function valuesOf(part, metric) {
  const found = new Map();
  if (metric === "wer") {
    for (const [file, [s, d, i, length]] of Object.entries(part.words ?? {})) found.set(file, (100 * (s + d + i)) / length);
  } else {
    for (const [file, scores] of Object.entries(part.files)) if (metric in scores) found.set(file, scores[metric]);
  }
  return found;
}

/** Mean of a system, over `only` these files if given. Word errors: all errors by all words, bootstrap interval. */
export function summary(part, metric, only = null) {
  if (metric !== "wer") {
    const values = [...valuesOf(part, metric)].filter(([file]) => !only || only.has(file)).map(([, v]) => v);
    return estimate(values);
  }
  const rows = Object.entries(part.words ?? {}).filter(([file]) => !only || only.has(file)).map(([, row]) => row);
  if (!rows.length) return { mean: NaN, half: NaN, count: 0 };
  const rate = (chosen) => (100 * chosen.reduce((n, r) => n + r[0] + r[1] + r[2], 0)) / chosen.reduce((n, r) => n + r[3], 0);
  const [low, high] = resampled(rows, rate);
  return { mean: rate(rows), half: (high - low) / 2, count: rows.length };
}

/** Paired change from `base` to `part`: {mean, half, count}, over the files that both have. */
export function change(base, part, metric) {
  if (metric === "wer") {
    const rows = Object.entries(part.words ?? {}).filter(([file]) => base.words?.[file]).map(([file, row]) => [base.words[file], row]);
    if (!rows.length) return { mean: NaN, half: NaN, count: 0 };
    const rate = (chosen, side) => (100 * chosen.reduce((n, r) => n + r[side][0] + r[side][1] + r[side][2], 0)) / chosen.reduce((n, r) => n + r[side][3], 0);
    const difference = (chosen) => rate(chosen, 1) - rate(chosen, 0);
    const [low, high] = resampled(rows, difference);
    return { mean: difference(rows), half: (high - low) / 2, count: rows.length };
  }
  const before = valuesOf(base, metric);
  const differences = [...valuesOf(part, metric)].filter(([file]) => before.has(file)).map(([file, v]) => v - before.get(file));
  return estimate(differences);
}

/** 1 better, -1 worse, 0 not to be told apart; `better` is the sign of an improvement. */
export const verdict = ({ mean, half }, better) => (Number.isFinite(half) && Math.abs(mean) > half ? Math.sign(mean) * better : 0);

/** 2.5% and 97.5% points of a statistic over files drawn with replacement; the same draws at every visit. */
function resampled(rows, statistic, draws = 500) {
  let state = 1;
  const next = () => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) / 2 ** 32;
  const found = Array.from({ length: draws }, () => statistic(rows.map(() => rows[Math.floor(next() * rows.length)])));
  found.sort((a, b) => a - b);
  return rows.length < 2 ? [NaN, NaN] : [found[Math.floor(0.025 * draws)], found[Math.ceil(0.975 * draws) - 1]];
}

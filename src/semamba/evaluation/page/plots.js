/** Plots as SVG: lines with intervals, points, a scatter of files. */
import { colour, drawing, element, number } from "./dom.js";

const [WIDTH, HEIGHT] = [560, 330];
const EDGE = { left: 52, right: 14, top: 12, bottom: 42 };

/**
 * @param {{x: {label, ticks?, log?}, y: {label}, series: {name, points: {x, y, half?, title?, hollow?, text?}[], line?, index}[],
 *   diagonal?: boolean, legend?: boolean}} what
 */
export function plot(figure, what) {
  const points = what.series.flatMap((s) => s.points);
  if (!points.length) {
    figure.replaceChildren(element("p", { class: "quiet" }, "Nothing to draw for this choice."));
    return;
  }
  const xs = what.x.ticks ? what.x.ticks.map((_, i) => i) : points.map((p) => p.x);
  const ys = points.flatMap((p) => [p.y - (p.half || 0), p.y + (p.half || 0)]);
  const both = what.diagonal ? [...xs, ...ys] : null;
  const x = scale(both ?? xs, EDGE.left, WIDTH - EDGE.right, what.x.log, what.x.ticks ? 0.5 : null);
  const y = scale(both ?? ys, HEIGHT - EDGE.bottom, EDGE.top);
  const svg = drawing("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${what.y.label} over ${what.x.label}` });
  axes(svg, x, y, what);
  if (what.diagonal) svg.append(drawing("line", { class: "axis", x1: x.at(x.low), y1: y.at(x.low), x2: x.at(x.high), y2: y.at(x.high), "stroke-dasharray": "4 4" }));
  const taken = points.map((p) => box(x.at(p.x) - 5, y.at(p.y) + 5, 10, 10)); // by points and labels
  for (const series of what.series) draw(svg, series, x, y, taken);
  const legend = what.legend === false ? null : element("div", { class: "legend" }, ...what.series.map((s) => {
    const dot = element("i", {});
    dot.style.background = s.hollow ? "transparent" : colour(s.index);
    dot.style.border = `2px solid ${colour(s.index)}`;
    return element("span", {}, dot, s.name);
  }));
  figure.replaceChildren(svg, legend ?? "");
}

function draw(svg, series, x, y, taken) {
  const paint = colour(series.index);
  const shift = series.shift ?? 0;
  if (series.line) {
    const path = series.points.map((p, i) => `${i ? "L" : "M"}${x.at(p.x) + shift},${y.at(p.y)}`).join("");
    svg.append(drawing("path", { d: path, fill: "none", stroke: paint, "stroke-width": 2 }));
  }
  for (const p of series.points) {
    const [cx, cy] = [x.at(p.x) + shift, y.at(p.y)];
    if (p.half) svg.append(drawing("line", { x1: cx, x2: cx, y1: y.at(p.y - p.half), y2: y.at(p.y + p.half), stroke: paint, "stroke-width": 1.5, opacity: 0.7 }));
    const title = drawing("title");
    title.textContent = p.title ?? `${series.name}: ${number(p.y, 3)}`;
    svg.append(drawing("circle", { cx, cy, r: series.small ? 3.2 : 4.5, fill: series.hollow ? "var(--surface)" : paint, "fill-opacity": series.small ? 0.65 : 1, stroke: paint, "stroke-width": series.hollow ? 2 : 0 }, title));
    if (p.text) label(svg, p.text, cx, cy, taken);
  }
}

const box = (x, y, width, height) => ({ x, y: y - height, right: x + width, bottom: y });
const apart = (a, b) => a.right < b.x || b.right < a.x || a.bottom < b.y || b.bottom < a.y;

/** A name beside its point, where it covers no other; further away if need be. */
function label(svg, text, cx, cy, taken) {
  const width = 7.4 * text.length;
  const places = [4, -7, 16, -18, 27, -29, 38].flatMap((down) => [[cx + 8, cy + down], [cx - 8 - width, cy + down]]);
  const fits = ([left, y]) => left > EDGE.left && left + width < WIDTH && y > EDGE.top && y < HEIGHT - EDGE.bottom;
  const [left, y] = places.find((p) => fits(p) && taken.every((other) => apart(box(...p, width, 11), other))) ?? places.find(fits) ?? places[0];
  taken.push(box(left, y, width, 11));
  const made = drawing("text", { class: "name", x: left, y });
  made.textContent = text;
  svg.append(made);
}

function axes(svg, x, y, what) {
  const text = (content, attributes) => {
    const made = drawing("text", attributes);
    made.textContent = content;
    svg.append(made);
  };
  for (const tick of y.ticks) {
    svg.append(drawing("line", { class: "grid", x1: EDGE.left, x2: WIDTH - EDGE.right, y1: y.at(tick.value), y2: y.at(tick.value) }));
    text(tick.text, { x: EDGE.left - 7, y: y.at(tick.value) + 4, "text-anchor": "end" });
  }
  const ticks = what.x.ticks ? what.x.ticks.map((label, value) => ({ value, text: label })) : x.ticks;
  const every = Math.ceil(ticks.length / 14);
  ticks.forEach((tick, i) => { if (i % every === 0) text(tick.text, { x: x.at(tick.value), y: HEIGHT - EDGE.bottom + 17, "text-anchor": "middle" }); });
  svg.append(drawing("line", { class: "axis", x1: EDGE.left, x2: WIDTH - EDGE.right, y1: HEIGHT - EDGE.bottom, y2: HEIGHT - EDGE.bottom }));
  text(what.x.label, { x: (EDGE.left + WIDTH - EDGE.right) / 2, y: HEIGHT - 6, "text-anchor": "middle" });
  text(what.y.label, { x: 13, y: (EDGE.top + HEIGHT - EDGE.bottom) / 2, "text-anchor": "middle", transform: `rotate(-90 13 ${(EDGE.top + HEIGHT - EDGE.bottom) / 2})` });
}

/** {at, ticks, low, high} of an axis from pixel `from` to pixel `to`. */
function scale(values, from, to, log = false, margin = null) {
  const finite = values.filter(Number.isFinite);
  let [low, high] = [Math.min(...finite), Math.max(...finite)].map((v) => (log ? Math.log10(v) : v));
  const pad = margin ?? ((high - low) * 0.06 || Math.abs(high) * 0.05 || 0.5);
  [low, high] = [low - pad, high + pad];
  const at = (value) => from + (((log ? Math.log10(value) : value) - low) / (high - low)) * (to - from);
  const step = log ? 1 : niceStep((high - low) / 5);
  const ticks = [];
  for (let v = Math.ceil(low / step) * step; v <= high + 1e-9; v += step) {
    ticks.push(log ? { value: 10 ** v, text: short(10 ** v) } : { value: v, text: number(Math.abs(v) < 1e-9 ? 0 : v, Math.max(0, -Math.floor(Math.log10(step) + 1e-9))) });
  }
  return { at, ticks, low, high };
}

function niceStep(rough) {
  const power = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 5, 10].find((f) => f * power >= rough) * power;
}

export const short = (value) => (value >= 1e9 ? `${+(value / 1e9).toPrecision(3)} G` : value >= 1e6 ? `${+(value / 1e6).toPrecision(3)} M` : `${+value.toPrecision(3)}`);

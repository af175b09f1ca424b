/** The report: four choices above, everything below follows them. */
import { colour, element, fill, number, one, signed, sortable } from "./dom.js";
import { Listening } from "./listen.js";
import { plot, short } from "./plots.js";
import { change, summary, valuesOf, verdict } from "./stats.js";

const data = JSON.parse(one("#data").textContent);
const labels = [...new Set(data.sets.flatMap((set) => Object.keys(set.systems)))];
const indexOf = (label) => labels.indexOf(label);
const choice = { set: 0, metric: data.metrics[0]?.key, baseline: labels.includes("noisy") ? "noisy" : labels[0] };
choice.system = labels.find((label) => label !== choice.baseline && label !== "clean") ?? choice.baseline;
const listening = new Listening(data);

const set = () => data.sets[choice.set];
const metric = () => data.metrics.find((m) => m.key === choice.metric);
const mark = (sign) => (sign > 0 ? element("span", { class: "up", title: "better than the baseline" }, " ▲") : sign < 0 ? element("span", { class: "down", title: "worse than the baseline" }, " ▼") : "");
const plusMinus = (found, decimals) => [number(found.mean, decimals), Number.isFinite(found.half) ? element("small", {}, ` ± ${found.half.toFixed(decimals)}`) : ""];

function cell(part, base, m, best) {
  const found = summary(part, m.key);
  if (!found.count) return "";
  const sign = part === base || !base ? 0 : verdict(change(base, part, m.key), m.better);
  return element("span", { class: Math.abs(found.mean - best) < 1e-12 ? "best" : null }, ...plusMinus(found, m.decimals), mark(sign));
}

function leaderboard() {
  const { systems } = set();
  const names = Object.keys(systems);
  const base = systems[choice.baseline];
  const shown = data.metrics.filter((m) => names.some((name) => summary(systems[name], m.key).count));
  const best = Object.fromEntries(shown.map((m) => [m.key, Math.max(...names.filter((n) => n !== "clean").map((n) => m.better * summary(systems[n], m.key).mean).filter(Number.isFinite)) * m.better]));
  const columns = [
    { title: "system", sort: (name) => name, down: false, cell: (name) => element("span", {}, dot(name), name) },
    ...shown.map((m) => ({ title: m.label, down: m.better > 0, sort: (name) => summary(systems[name], m.key).mean, cell: (name) => cell(systems[name], base, m, best[m.key]) })),
    { title: "files", sort: (name) => Object.keys(systems[name].files).length, cell: (name) => `${Object.keys(systems[name].files).length}` },
  ];
  if (names.some((name) => systems[name].realTimeFactor)) columns.push({ title: "s of work / s", sort: (name) => systems[name].realTimeFactor ?? NaN, down: false, cell: (name) => number(systems[name].realTimeFactor ?? NaN, 4) });
  const sorted = shown.findIndex((m) => m.key === choice.metric) + 1;
  sortable(one("#board table"), columns, names, sorted ? { index: sorted, down: metric().better > 0 } : null);
}

function dot(name) {
  const made = element("i", { "aria-hidden": "true" });
  made.style.cssText = `display:inline-block;width:.7rem;height:.7rem;border-radius:50%;margin-right:.45rem;background:${colour(indexOf(name))}`;
  return made;
}

function matrix() {
  one("#matrix").hidden = data.sets.length < 2;
  const m = metric();
  const columns = [
    { title: "set", sort: (s) => data.sets.indexOf(s), down: false, cell: (s) => element("button", { type: "button", class: "link", onclick: () => { choice.set = data.sets.indexOf(s); one("#set").value = String(choice.set); update(); } }, s.name) },
    ...labels.map((name) => ({
      title: element("span", {}, dot(name), name), down: m.better > 0,
      sort: (s) => (s.systems[name] ? summary(s.systems[name], m.key).mean : NaN),
      cell: (s) => (s.systems[name] ? cell(s.systems[name], s.systems[choice.baseline], m, NaN) : ""),
    })),
  ];
  const cells = columns.map((c) => (c.cell === columns[0].cell ? { ...c, cell: (s) => element("span", {}, c.cell(s)) } : c));
  sortable(one("#matrix table"), cells, data.sets);
}

/** Values of a factor over all sets that have it: [{value, part, files}] for a system. */
function conditions(factor, name) {
  const groups = new Map();
  for (const s of data.sets) {
    if (!s.systems[name]) continue;
    for (const [file, factors] of Object.entries(s.factors)) {
      if (!(factor in factors)) continue;
      const key = factors[factor];
      if (!groups.has(key)) groups.set(key, { value: key, part: { files: {}, words: {} } });
      const into = groups.get(key).part;
      if (s.systems[name].files[file]) into.files[`${s.name}/${file}`] = s.systems[name].files[file];
      if (s.systems[name].words?.[file]) into.words[`${s.name}/${file}`] = s.systems[name].words[file];
    }
  }
  return [...groups.values()];
}

function factors() {
  const known = [...new Set(data.sets.flatMap((s) => Object.values(s.factors).flatMap((f) => Object.keys(f))))];
  const numeric = known.filter((name) => name !== "noise");
  one("#factor").hidden = !numeric.length;
  one("#noise").hidden = !known.includes("noise");
  const m = metric();
  if (numeric.length) {
    if (!numeric.includes(choice.factor)) choice.factor = numeric.includes("snr") ? "snr" : numeric[0];
    one("#factor [role=radiogroup]").hidden = numeric.length < 2;
    one("#factor [role=radiogroup]").replaceChildren(...numeric.map((name) => element("button", { type: "button", role: "radio", "aria-checked": String(name === choice.factor), onclick: () => { choice.factor = name; factors(); } }, name)));
    const values = [...new Set(labels.flatMap((name) => conditions(choice.factor, name).map((c) => c.value)))].sort((a, b) => a - b);
    const series = labels.map((name) => ({
      name, index: indexOf(name), line: true,
      points: conditions(choice.factor, name).map((c) => ({ c, found: summary(c.part, m.key) })).filter(({ found }) => found.count)
        .map(({ c, found }) => ({ x: values.indexOf(c.value), y: found.mean, half: found.half || 0, title: `${name}, ${choice.factor} ${c.value}: ${number(found.mean, m.decimals)}, ${found.count} files` })).sort((a, b) => a.x - b.x),
    })).filter((s) => s.points.length);
    plot(one("#factor figure"), { x: { label: `${choice.factor} [${UNITS[choice.factor] ?? ""}]`, ticks: values.map(String) }, y: { label: m.label }, series });
  }
  if (known.includes("noise")) {
    const kinds = [...new Set(labels.flatMap((name) => conditions("noise", name).map((c) => c.value)))].sort();
    const series = labels.map((name, i) => ({
      name, index: indexOf(name), shift: (i - (labels.length - 1) / 2) * 7,
      points: conditions("noise", name).map((c) => ({ c, found: summary(c.part, m.key) })).filter(({ found }) => found.count)
        .map(({ c, found }) => ({ x: kinds.indexOf(c.value), y: found.mean, half: found.half || 0, title: `${name}, ${c.value}: ${number(found.mean, m.decimals)}, ${found.count} files` })),
    })).filter((s) => s.points.length);
    plot(one("#noise figure"), { x: { label: "kind of noise", ticks: kinds.map((kind) => kind.replaceAll("_", " ").slice(0, 9)) }, y: { label: m.label }, series });
  }
}

const UNITS = { snr: "dB", room: "s", level: "dBFS", bandwidth: "kHz", length: "s" };

function scatter() {
  const { systems } = set();
  const base = systems[choice.baseline];
  const before = base ? valuesOf(base, choice.metric) : new Map();
  const series = Object.keys(systems).filter((name) => name !== choice.baseline && name !== "clean").map((name) => ({
    name, index: indexOf(name), small: true,
    points: [...valuesOf(systems[name], choice.metric)].filter(([file]) => before.has(file)).map(([file, y]) => ({ x: before.get(file), y, title: `${file}: ${number(before.get(file), 3)} → ${number(y, 3)} (${name})` })),
  }));
  plot(one("#scatter figure"), { x: { label: `${metric().label} of ${choice.baseline}` }, y: { label: metric().label }, series, diagonal: true });
}

function cost() {
  const priced = labels.filter((name) => data.cost[name] && set().systems[name]);
  one("#cost").hidden = !priced.length;
  if (!priced.length) return;
  const series = priced.map((name) => {
    const found = summary(set().systems[name], choice.metric);
    return { name: `${name} (measured on ${set().name})`, index: indexOf(name), points: found.count ? [{ x: data.cost[name].macs, y: found.mean, half: found.half || 0, text: name, title: `${name}: ${short(data.cost[name].macs)} MAC/s, ${number(found.mean, metric().decimals)}` }] : [] };
  });
  const published = choice.metric === "pesq" ? data.published.systems : [];
  if (published.length) series.push({ name: `published, ${data.published.set}`, index: 7, hollow: true, points: published.map((p) => ({ x: p.macs, y: p.pesq, text: p.name, title: `${p.name}: ${p.pesq} as published` })) });
  plot(one("#cost figure"), { x: { label: "multiply-accumulates for a second of sound", log: true }, y: { label: metric().label }, series });
  one("#cost p").textContent = published.length ? `Hollow points: ${data.published.note}` : "";
}

function extremes() {
  const base = set().systems[choice.baseline];
  const part = set().systems[choice.system];
  const m = metric();
  const before = base ? valuesOf(base, m.key) : new Map();
  const rows = part ? [...valuesOf(part, m.key)].filter(([file]) => before.has(file)).map(([file, after]) => ({ file, before: before.get(file), after, gain: m.better * (after - before.get(file)) })) : [];
  rows.sort((a, b) => b.gain - a.gain);
  const count = Math.min(10, Math.ceil(rows.length / 2));
  const list = (title, chosen) => {
    const table = element("table");
    sortable(table, [
      { title, wrap: true, cell: (row) => { const i = listening.find(set().name, row.file); return i < 0 ? row.file : element("button", { type: "button", class: "link", onclick: () => { listening.open(i); one("#listen").scrollIntoView(); } }, row.file); } },
      { title: choice.baseline, sort: (row) => row.before, cell: (row) => number(row.before, m.decimals) },
      { title: choice.system, sort: (row) => row.after, cell: (row) => number(row.after, m.decimals) },
      { title: "change", sort: (row) => row.after - row.before, cell: (row) => signed(row.after - row.before, m.decimals) },
    ], chosen);
    return element("div", { class: "scroll" }, table);
  };
  one("#extremes .two").replaceChildren(list("best", rows.slice(0, count)), list("worst", rows.slice(rows.length - count).reverse()));
}

function changes() {
  if (!data.changes) return;
  one("#changes").hidden = false;
  const name = Object.fromEntries(data.metrics.map((m) => [m.key, m]));
  const clear = data.changes.means.filter((row) => row.verdict !== "same");
  const worse = clear.filter((row) => row.verdict === "worse");
  const table = element("table");
  sortable(table, [
    { title: "set", sort: (r) => r.set, cell: (r) => r.set },
    { title: "system", sort: (r) => r.system, cell: (r) => r.system },
    { title: "measure", sort: (r) => r.metric, cell: (r) => name[r.metric]?.label ?? r.metric },
    { title: "before", sort: (r) => r.before, cell: (r) => number(r.before, 3) },
    { title: "after", sort: (r) => r.after, cell: (r) => number(r.after, 3) },
    { title: "change", sort: (r) => r.change, cell: (r) => element("span", {}, signed(r.change, 3), r.half_width ? element("small", {}, ` ± ${r.half_width.toFixed(3)}`) : "", mark(r.verdict === "better" ? 1 : -1)) },
  ], [...worse, ...clear.filter((row) => row.verdict === "better")]);
  const files = element("table");
  sortable(files, [
    { title: "file that lost most", wrap: true, cell: (r) => `${r.set}: ${r.file}` },
    { title: "system", sort: (r) => r.system, cell: (r) => r.system },
    { title: "measure", sort: (r) => r.metric, cell: (r) => name[r.metric]?.label ?? r.metric },
    { title: "before", sort: (r) => r.before, cell: (r) => number(r.before, 3) },
    { title: "after", sort: (r) => r.after, cell: (r) => number(r.after, 3) },
  ], data.changes.files.slice(0, 10));
  const words = `${worse.length} of ${data.changes.means.length} means got worse, ${clear.length - worse.length} better, the rest cannot be told apart.`;
  one("#changes .body").replaceChildren(
    element("p", {}, words), ...(clear.length ? [element("div", { class: "scroll" }, table)] : []),
    ...(data.changes.files.length ? [element("div", { class: "scroll" }, files)] : []),
    ...(data.changes.missing.length ? [element("p", { class: "quiet" }, `In one run only: ${data.changes.missing.join(", ")}.`)] : []),
  );
}

function about() {
  const body = one("#about .body");
  const commands = [...new Set(data.sets.map((s) => s.settings.command).filter(Boolean))];
  const versions = Object.entries(Object.assign({}, ...data.sets.map((s) => s.versions))).map(([key, value]) => `${key} ${value}`);
  const left = data.sets.flatMap((s) => Object.entries(s.systems).flatMap(([label, part]) => Object.entries(part.left_out).map(([file, why]) => `${s.name}, ${label}, ${file}: ${[...new Set(Object.values(why))].join("; ")}`)));
  body.replaceChildren(
    ...(commands.length ? [element("pre", {}, commands.join("\n"))] : []),
    element("p", { class: "quiet" }, `Versions: ${versions.join(", ")}.`),
    element("p", { class: "quiet" }, left.length ? `${left.length} results are incomplete; what is missing is in no mean.` : "Nothing was left out of a mean."),
    ...(left.length ? [element("details", {}, element("summary", {}, "What is missing, and why"), element("pre", {}, left.join("\n")))] : []),
  );
}

function update() {
  const inSet = Object.keys(set().systems);
  fill(one("#baseline"), inSet.map((name) => [name, name]), inSet.includes(choice.baseline) ? choice.baseline : (choice.baseline = inSet[0]));
  fill(one("#system"), inSet.map((name) => [name, name]), inSet.includes(choice.system) ? choice.system : (choice.system = inSet[inSet.length - 1]));
  for (const part of [leaderboard, matrix, factors, scatter, cost, extremes]) part();
}

function start() {
  const files = data.sets.reduce((sum, s) => sum + Math.max(...Object.values(s.systems).map((p) => Object.keys(p.files).length)), 0);
  const count = (n, word) => `${n} ${word}${n === 1 ? "" : "s"}`;
  one("#summary").textContent = `${count(labels.length, "system")} on ${count(data.sets.length, "set")}, ${count(files, "file")}.`;
  fill(one("#set"), data.sets.map((s, i) => [String(i), s.name]), "0");
  fill(one("#metric"), data.metrics.map((m) => [m.key, m.label]), choice.metric);
  for (const key of ["set", "metric", "baseline", "system"]) one(`#${key}`).addEventListener("change", (event) => { choice[key] = key === "set" ? Number(event.target.value) : event.target.value; update(); });
  const root = document.documentElement;
  root.dataset.theme = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  one("#theme").addEventListener("click", () => (root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark"));
  changes();
  about();
  update();
}

start();

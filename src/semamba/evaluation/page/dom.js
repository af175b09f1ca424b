/** Small helpers for elements, tables and numbers. */

export const one = (selector, root = document) => root.querySelector(selector);

/** element("td", { class: "x", onclick: f }, child, "text" ...) */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return made;
}

export function drawing(name, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

export function fill(select, options, chosen) {
  select.replaceChildren(...options.map(([value, text]) => element("option", { value, selected: value === chosen }, text)));
}

/** Eight colours that differ for most eyes (Okabe and Ito), darkened or lightened by the theme. */
const COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1", "#7f7f7f"];
export const colour = (index) => COLOURS[index % COLOURS.length];

export const signed = (value, decimals) => (value > 0 ? "+" : value < 0 ? "−" : "±") + Math.abs(value).toFixed(decimals);
export const number = (value, decimals) => (Number.isFinite(value) ? value.toFixed(decimals).replace("-", "−") : "–");

/** A table whose columns sort: columns [{title, sort?: (row) => number | string, cell: (row) => Node | string}] */
export function sortable(table, columns, rows, initial = null) {
  let order = initial; // {index, down}
  const heads = columns.map((column, index) => {
    const button = element("button", { type: "button", onclick: () => { order = { index, down: order?.index === index ? !order.down : column.down ?? true }; paint(); } }, column.title);
    return element("th", { scope: "col" }, column.sort ? button : column.title);
  });
  const body = element("tbody");
  table.replaceChildren(element("thead", {}, element("tr", {}, ...heads)), body);
  const paint = () => {
    let shown = rows;
    if (order) {
      const key = columns[order.index].sort;
      const place = (row) => { const k = key(row); return typeof k === "number" && Number.isNaN(k) ? -Infinity : k; };
      shown = [...rows].sort((a, b) => { const [x, y] = [place(a), place(b)]; return (x < y ? -1 : x > y ? 1 : 0) * (order.down ? -1 : 1); });
      heads.forEach((head, i) => (i === order.index ? head.setAttribute("aria-sort", order.down ? "descending" : "ascending") : head.removeAttribute("aria-sort")));
    }
    body.replaceChildren(...shown.map((row) => element("tr", {}, ...columns.map((column, i) => {
      const attributes = { class: column.wrap ? "wrap" : null };
      return i === 0 ? element("th", { scope: "row", ...attributes }, column.cell(row)) : element("td", attributes, column.cell(row));
    }))));
  };
  paint();
}

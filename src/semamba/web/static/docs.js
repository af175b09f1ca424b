/** Shows openapi.json in words; nothing is loaded from elsewhere. */
import { $, followTheme } from "./dom.js";

const origin = location.href.replace(/\/docs.*$/, "");

const EXAMPLES = {
  "post /v1/enhance": `curl -F file=@talk.wav -F attenuation_limit=12 -o better.wav ${origin}/v1/enhance`,
  "get /v1/models": `curl ${origin}/v1/models`,
  "get /healthz": `curl ${origin}/healthz`,
};

const SOCKET = `const socket = new WebSocket("${origin.replace("http", "ws")}/v1/stream");
socket.binaryType = "arraybuffer";
socket.onopen = () => socket.send(JSON.stringify({ rate: 16000, channels: 1, format: "float32" }));
socket.onmessage = ({ data }) => {
  if (data instanceof ArrayBuffer) play(new Float32Array(data));   // as many samples as were sent
  else console.log(JSON.parse(data));   // {type: "ready", latency_samples}, {type: "end", samples} or {type: "error", error}
};
socket.send(samples);                                // a Float32Array, once it is ready
socket.send(JSON.stringify({ type: "end" }));        // what is still due comes, then {type: "end"}`;

function element(tag, text = "", className = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  made.className = className;
  return made;
}

function table(headings, rows) {
  const made = element("table");
  const line = (cells, tag) => {
    const row = element("tr");
    row.append(...cells.map((cell) => element(tag, cell)));
    return row;
  };
  made.append(line(headings, "th"), ...rows.map((row) => line(row, "td")));
  const frame = element("div", "", "scroll");
  frame.append(made);
  return frame;
}

/** "number, 0 to 1" */
function kind({ type, format, minimum, maximum, enum: values }) {
  if (values) return values.join(", ");
  const range = minimum === undefined ? "" : maximum === undefined ? `, ${minimum} or more` : `, ${minimum} to ${maximum}`;
  return (format === "binary" ? "file" : (type ?? "")) + range;
}

function operation(path, method, content) {
  const card = element("section", "", "card operation");
  const heading = element("h2");
  heading.append(element("span", method.toUpperCase(), "method"), element("code", path));
  card.append(heading, element("p", content.summary));
  const form = content.requestBody?.content["multipart/form-data"]?.schema;
  if (form) {
    const rows = Object.entries(form.properties).map(([name, about]) => [
      name + (form.required?.includes(name) ? " (needed)" : ""),
      kind(about),
      about.description ?? "",
      about.default === undefined ? "" : String(about.default),
    ]);
    card.append(table(["Field", "Kind", "Meaning", "Default"], rows));
  }
  const answers = Object.entries(content.responses).map(([code, about]) => [code, about.description]);
  card.append(table(["Answer", "Meaning"], answers));
  const example = EXAMPLES[`${method} ${path}`];
  if (example) card.append(element("pre", example));
  return card;
}

followTheme(() => {});
$("socket-example").textContent = SOCKET;
const document_ = await (await fetch("openapi.json")).json();
$("description").textContent = document_.info.description.split(". ")[0] + ". Errors are JSON with one key, error, in words.";
for (const [path, methods] of Object.entries(document_.paths)) {
  for (const [method, content] of Object.entries(methods)) $("operations").append(operation(path, method, content));
}

/** The tab "File": from a dropped file, a recording or the example to a pair that can be compared. */
import { closeSound, dropResult, mixChanged, pausePlaying, showResult, showSound, startCompare } from "./compare.js";
import { decode, soundOf } from "./decode.js";
import { $, clearComplaint, clock, complain, inWords, say } from "./dom.js";
import { enhanceInBrowser } from "./local.js";
import { openMicrophone } from "./microphone.js";
import { enhanceOnServer } from "./server.js";
import { checkPlace, onSetting, settings } from "./settings.js";
import { parseWav } from "./wav.js";

const RECORD_SECONDS = 600;

let sound = null;
let work = null; // AbortController of what is being done
let take = null; // the recording in progress
let asked = null; // for the microphone; another value when the answer is no longer wanted

function show(part) {
  for (const id of ["empty", "recording", "result"]) $(id).hidden = id !== part;
  document.body.dataset.state = part;
}

/** Decode and enhance; a file that cannot be read leaves the page as it was. */
export async function openFile(file) {
  clearComplaint();
  work?.abort();
  const mine = (work = new AbortController());
  say(`Reading ${file.name ?? "the recording"}`);
  try {
    const read = await decode(file, { private: settings.where === "browser", signal: mine.signal });
    if (mine.signal.aborted) return;
    work = null; // done
    openSound(read);
  } catch (error) {
    if (!mine.signal.aborted) complain(inWords(error));
  }
}

/** @param {import("./decode.js").Sound} given @param {Float32Array[]} [wet] when it is enhanced already */
export function openSound(given, wet = null) {
  work?.abort();
  dropTake();
  sound = given;
  show("result");
  showSound(sound);
  $("play").focus({ preventScroll: true });
  if (!wet) return enhance();
  progress(null);
  $("retry").hidden = true;
  showResult(wet);
}

async function enhance() {
  if (!sound) return;
  work?.abort();
  const mine = (work = new AbortController());
  const given = sound;
  const options = { signal: mine.signal, onProgress: (share) => !mine.signal.aborted && progress(share) };
  clearComplaint();
  dropResult();
  $("retry").hidden = true;
  progress(0);
  say("Enhancing");
  document.body.dataset.state = "working";
  try {
    checkPlace();
    const wet = settings.where === "browser" ? await enhanceInBrowser(given, settings.model, options) : await onServer(given, options);
    if (mine.signal.aborted) return;
    showResult(wet);
    say("Done. Press space to listen, A and B to compare.");
    document.body.dataset.state = "result";
  } catch (error) {
    if (mine.signal.aborted) return;
    fail();
    complain(inWords(error));
  }
  progress(null);
}

/** Nothing came of it, and it can be tried again. */
function fail() {
  document.body.dataset.state = "failed";
  $("retry").hidden = false;
}

async function onServer(given, options) {
  const fields = { model: settings.model, pcs: settings.pcs, stream: true };
  const answer = await enhanceOnServer(given.source, given.sent, fields, options).catch((error) => {
    if (error.status !== 413 || given.sent === given.name) throw error;
    throw new Error(`${error.message} It is sent as WAV and has ${Math.ceil(given.source.size / 1e6)} MB so; "This browser" has no limit.`);
  });
  const read = parseWav(answer);
  const complete = read?.channels.length === given.channels.length && read.channels[0].length === given.channels[0].length;
  if (!complete) throw new Error("The answer of the server was cut off; try again.");
  return read.channels;
}

/** null hides it; 0 has no end in sight yet. */
function progress(share) {
  $("progress").hidden = share === null;
  if (share === null) return;
  const percent = Math.round(100 * share);
  const where = settings.where === "browser" ? "in this browser" : "on the server";
  $("progress-words").textContent = percent ? `Enhancing ${where}: ${percent} %` : `Enhancing ${where} …`;
  $("rail").classList.toggle("endless", !percent);
  $("progress-bar").style.width = percent ? `${percent}%` : "";
  if (percent) $("rail").setAttribute("aria-valuenow", percent);
  else $("rail").removeAttribute("aria-valuenow");
}

function cancel() {
  work?.abort();
  progress(null);
  fail();
  $("retry").focus({ preventScroll: true });
  say("Stopped");
}

function startAgain() {
  work?.abort();
  $("retry").hidden = true;
  closeSound();
  sound = null;
  clearComplaint();
  show("empty");
  $("choose").focus({ preventScroll: true });
}

async function startRecording() {
  if (asked || take) return;
  const mine = (asked = {});
  clearComplaint();
  try {
    const parts = [];
    let count = 0;
    const opened = await openMicrophone({
      onLost: (error) => take && (stopRecording(), complain(inWords(error))),
      onBlock: (block) => {
        if (take !== opened) return;
        parts.push(block);
        count += block.length;
        $("recording-time").textContent = clock(count / take.rate);
        $("recording-level").value = Math.min(1, 3 * Math.hypot(...block) / Math.sqrt(block.length));
        if (count > RECORD_SECONDS * take.rate) stopRecording();
      },
    });
    if (asked !== mine) return opened.close(); // something else is shown by now
    take = opened;
    take.parts = parts;
    $("recording-time").textContent = clock(0);
    show("recording");
    $("record-stop").focus();
  } catch (error) {
    complain(inWords(error));
  } finally {
    if (asked === mine) asked = null;
  }
}

function dropTake() {
  asked = null;
  take?.close();
  take = null;
}

function stopRecording(keep = true) {
  if (!take) return;
  const { rate, parts } = take;
  dropTake();
  const wave = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    wave.set(part, at);
    at += part.length;
  }
  if (keep && wave.length) openSound(soundOf("recording.wav", rate, [wave]));
  else show("empty");
}

/** Stop what sounds or records, for the other tab. */
export function leaveFileView() {
  pausePlaying();
  if (take) show("empty");
  dropTake();
}

export function startFileView() {
  startCompare();
  show("empty");
  onSetting("run", () => sound && enhance());
  onSetting("mix", mixChanged);
  $("choose").addEventListener("click", () => $("file").click());
  $("file").addEventListener("change", () => {
    if ($("file").files.length) openFile($("file").files[0]);
    $("file").value = "";
  });
  $("example").addEventListener("click", async () => {
    const answer = await fetch("static/example.wav").catch((error) => complain(inWords(error)));
    if (answer?.ok) openFile(new File([await answer.blob()], "example.wav"));
  });
  $("record").addEventListener("click", startRecording);
  $("record-stop").addEventListener("click", () => stopRecording());
  $("record-cancel").addEventListener("click", () => stopRecording(false));
  $("again").addEventListener("click", startAgain);
  $("cancel").addEventListener("click", cancel);
  $("retry").addEventListener("click", enhance);
}

/** The tab "Live": start, see, listen, stop; what was said can be compared and saved afterwards. */
import { soundOf } from "./decode.js";
import { $, clearComplaint, clock, complain, inWords, radioGroup, say } from "./dom.js";
import { openSound } from "./file-view.js";
import { liveInBrowser, liveOnServer } from "./live.js";
import { checkPlace, chosenModel, lockSettings, onSetting, settings } from "./settings.js";
import { Scroller } from "./spectrogram.js";

const KEPT_SECONDS = 300; // of the recording; a longer session goes on without being kept
const STALL_SECONDS = 0.2; // blocks under way make a few hundredths

let session = null;
let kept = null; // {dry: Float32Array[], wet: Float32Array[], count}
let pictures = null;
let what = "silent";
let leave = () => {};

async function start() {
  if (session || $("live-toggle").disabled) return; // one is opening: keys get past a button that is disabled
  clearComplaint();
  const model = chosenModel();
  if (!model?.live) return complain(`${model?.name ?? "This model"} needs the whole recording; choose another one for live use.`);
  $("live-toggle").disabled = true;
  lockSettings(true);
  try {
    checkPlace();
    kept = { dry: [], wet: [], count: 0 };
    const open = settings.where === "browser" ? liveInBrowser : liveOnServer;
    const opened = await open(model.name, { onPair, onEnd: (error) => stop(error) });
    pictures = [new Scroller($("live-before"), opened.rate), new Scroller($("live-after"), opened.rate)];
    session = opened;
    session.hear(what, settings.wet);
    document.body.dataset.state = "live";
    say("Live");
    $("live-toggle").textContent = "Stop";
    $("live-toggle").classList.add("danger");
  } catch (error) {
    lockSettings(false);
    complain(inWords(error));
  }
  $("live-toggle").disabled = false;
}

function onPair(dry, wet) {
  if (!session) return;
  pictures[0].push(dry);
  pictures[1].push(wet);
  $("live-in").value = loudness(dry);
  $("live-out").value = loudness(wet);
  if (kept.count < KEPT_SECONDS * session.rate) {
    kept.dry.push(dry);
    kept.wet.push(wet);
  }
  kept.count += dry.length;
  const behind = session.behind() > session.latency + STALL_SECONDS ? session.behind() : session.latency;
  const delay = `${Math.round(1000 * behind)} ms behind, ${session.rate / 1000} kHz, ${session.where}`;
  const full = kept.count > KEPT_SECONDS * session.rate ? ` · only the first ${KEPT_SECONDS / 60} minutes are kept` : "";
  $("live-facts").textContent = `${clock(kept.count / session.rate)} · ${delay}${full}`;
}

/** -60 to 0 dBFS as 0 to 1. */
function loudness(block) {
  let sum = 0;
  for (const value of block) sum += value * value;
  return Math.min(1, Math.max(0, 1 + (10 * Math.log10(sum / block.length + 1e-9)) / 60));
}

async function stop(error = null) {
  if (!session || $("live-toggle").disabled) return;
  const { rate } = session;
  $("live-toggle").disabled = true;
  await session.close(); // what is still on its way comes in
  session = null;
  $("live-toggle").disabled = false;
  lockSettings(false);
  $("live-toggle").textContent = "Start";
  $("live-toggle").classList.remove("danger");
  $("live-in").value = $("live-out").value = 0;
  document.body.dataset.state = "stopped";
  if (error) complain(inWords(error));
  const [dry, wet] = [join(kept.dry), join(kept.wet)];
  if (dry.length < rate / 2) return;
  leave();
  openSound(soundOf("live.wav", rate, [dry]), [wet]);
}

function join(blocks) {
  const joined = new Float32Array(blocks.reduce((sum, block) => sum + block.length, 0));
  let at = 0;
  for (const block of blocks) {
    joined.set(block, at);
    at += block.length;
  }
  return joined;
}

export const toggleLive = () => (session ? stop() : start());

/** @param {() => void} showFileView where the recording is shown when a session ends */
export function startLiveView(showFileView) {
  leave = showFileView;
  $("live-toggle").addEventListener("click", toggleLive);
  radioGroup([$("live-silent"), $("live-dry"), $("live-wet")], (button) => {
    what = button.id.replace("live-", "");
    session?.hear(what, settings.wet);
  });
  onSetting("mix", () => session?.hear(what, settings.wet));
}

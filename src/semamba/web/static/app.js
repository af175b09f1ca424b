/** The page: its tabs, its keys, and what can be dropped on it. */
import { download, hear, redraw, skip, switchHeard, toggleLoop, togglePlaying } from "./compare.js";
import { $, clearComplaint, complain, followTheme, inWords, radioGroup } from "./dom.js";
import { leaveFileView, openFile, startFileView } from "./file-view.js";
import { startLiveView, toggleLive } from "./live-view.js";
import { call } from "./server.js";
import { showModels, startSettings } from "./settings.js";

let chooseTab;

function showTab(button) {
  const live = button.id === "tab-live";
  $("view-live").hidden = !live;
  $("view-file").hidden = live;
  if (live) leaveFileView();
  else redraw();
}

/** Keys act everywhere but where somebody types or a button has the focus that they would press. */
function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input:not([type=range]):not([type=checkbox]), select, dialog")) return;
  const onControl = event.target.closest("button, a, input");
  if (!$("view-live").hidden) {
    if (event.key === " " && !onControl) act(toggleLive);
    return;
  }
  if ($("result").hidden) return;
  const slider = event.target.closest("input[type=range]");
  const actions = {
    a: () => hear("before"),
    b: () => hear("after"),
    x: switchHeard,
    l: toggleLoop,
    d: download,
    ...(onControl && onControl.id !== "play" && !slider ? {} : { " ": togglePlaying }),
    ...(slider || event.target.closest("[role=radio], [role=tab]") ? {} : { ArrowLeft: () => skip(-2), ArrowRight: () => skip(2) }),
  };
  const action = actions[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (action) act(action);

  function act(action) {
    event.preventDefault();
    if (event.key.startsWith("Arrow") || !event.repeat) action(); // held, Space would start and stop many times a second
  }
}

function acceptDrops() {
  let depth = 0;
  const mark = (change) => {
    depth = Math.max(0, depth + change);
    document.body.classList.toggle("dragging", depth > 0);
  };
  addEventListener("dragenter", () => mark(1));
  addEventListener("dragleave", () => mark(-1));
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    mark(-depth);
    const files = event.dataTransfer.files;
    if (!files.length) return;
    chooseTab($("tab-file"));
    openFile(files[0]);
  });
}

async function start() {
  startSettings();
  startFileView();
  startLiveView(() => chooseTab($("tab-file")));
  chooseTab = radioGroup([$("tab-file"), $("tab-live")], showTab, "aria-selected");
  followTheme(redraw);
  acceptDrops();
  addEventListener("keydown", onKey);
  $("message-close").addEventListener("click", clearComplaint);
  try {
    showModels(await (await call("v1/models")).json());
  } catch (error) {
    complain(inWords(error));
  }
  document.body.dataset.ready = "yes";
}

start();

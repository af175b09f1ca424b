/** Small helpers for the document, and what the page says in words. */

export const $ = (id) => document.getElementById(id);

/** 75.3 -> "1:15" */
export function clock(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

/** An error or a hint that stays until it is closed, or until the next thing succeeds. */
export function complain(words) {
  $("message").querySelector("p").textContent = words;
  $("message").hidden = false;
}

export function clearComplaint() {
  $("message").hidden = true;
}

/** Said by screen readers, not shown. */
export function say(words) {
  $("status").textContent = words;
}

/** What went wrong, for people. */
export function inWords(error) {
  if (error instanceof TypeError && /fetch|network/i.test(error.message)) {
    return "The server does not answer; is it still running?";
  }
  return error?.message || String(error);
}

/** Exactly one of a group of buttons is checked; arrow keys move between them, as in every radio group. */
export function radioGroup(buttons, onChange, attribute = "aria-checked") {
  const choose = (chosen, tell = true) => {
    for (const button of buttons) {
      button.setAttribute(attribute, String(button === chosen));
      button.tabIndex = button === chosen ? 0 : -1;
    }
    if (tell) onChange(chosen);
  };
  buttons.forEach((button, i) => {
    button.addEventListener("click", () => choose(button));
    button.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      event.stopPropagation();
      const next = buttons[(i + step + buttons.length) % buttons.length];
      if (next.disabled) return;
      next.focus();
      choose(next);
    });
  });
  choose(buttons.find((button) => button.getAttribute(attribute) === "true") ?? buttons[0], false);
  return choose;
}

/** Show a slider's share as a filled track. */
export function fill(slider) {
  const share = (slider.value - slider.min) / (slider.max - slider.min || 1);
  slider.style.setProperty("--done", `${100 * share}%`);
}

/** Colours follow the system until somebody chooses. */
export function followTheme(onChange) {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const apply = () => {
    document.documentElement.dataset.theme = localStorage.getItem("theme") ?? (system.matches ? "dark" : "light");
    onChange();
  };
  system.addEventListener("change", apply);
  $("theme").addEventListener("click", () => {
    localStorage.setItem("theme", document.documentElement.dataset.theme === "dark" ? "light" : "dark");
    apply();
  });
  apply();
}

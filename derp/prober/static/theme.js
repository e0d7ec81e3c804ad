// Dark, light, or as the system says; chosen here, and remembered by this browser alone.

import { say } from "./dom.js";

const ORDER = ["auto", "dark", "light"];
const SHOWN = { auto: "◐ Auto", dark: "● Dark", light: "○ Light" };

export function themeButton(button) {
  const root = document.documentElement;

  function show() {
    const theme = root.dataset.theme || "auto";
    say(button, SHOWN[theme]);
    button.setAttribute("aria-label", `Theme: ${theme}`);
    button.title = "Change between dark, light and the system's theme";
  }

  button.addEventListener("click", () => {
    const next = ORDER[(ORDER.indexOf(root.dataset.theme || "auto") + 1) % ORDER.length];
    if (next === "auto") delete root.dataset.theme;
    else root.dataset.theme = next;
    try {
      if (next === "auto") localStorage.removeItem("theme");
      else localStorage.setItem("theme", next);
    } catch (_) {
      // Storage is forbidden: it lasts until the page is left.
    }
    show();
  });
  show();
}

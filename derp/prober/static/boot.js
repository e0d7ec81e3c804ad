// Before anything is painted: there are scripts, and which theme was chosen here.
"use strict";
(function () {
  var root = document.documentElement;
  root.classList.add("js");
  try {
    var theme = localStorage.getItem("theme");
    if (theme === "dark" || theme === "light") root.dataset.theme = theme;
  } catch (_) {
    // Storage is forbidden here: the system's theme, then.
  }
})();

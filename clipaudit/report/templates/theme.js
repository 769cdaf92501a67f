// Before the first paint: the reader's earlier choice of theme, where the report leaves it to the reader.
(function () {
  "use strict";
  var root = document.documentElement;
  try {
    var chosen = localStorage.getItem("clipaudit-theme");
    if (root.dataset.theme === "auto" && (chosen === "light" || chosen === "dark")) root.dataset.theme = chosen;
  } catch (error) {
    // Some browsers give files no storage: the system's theme serves.
  }
})();

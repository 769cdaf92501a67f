// ---- Theme.

function isDark() {
  const theme = document.documentElement.dataset.theme;
  return theme === "dark" || (theme === "auto" && matchMedia("(prefers-color-scheme: dark)").matches);
}

function showTheme() {
  byId("theme").setAttribute("aria-pressed", String(isDark()));
}

function toggleTheme() {
  const theme = isDark() ? "light" : "dark";
  document.documentElement.dataset.theme = theme;
  showTheme();
  try {
    localStorage.setItem("clipaudit-theme", theme);
  } catch (error) {
    // The choice then lasts as long as the page.
  }
}

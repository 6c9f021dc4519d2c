// Before the first paint: the theme and the language that were chosen, so that nothing flashes.
(() => {
  const root = document.documentElement;
  let chosen = {};
  try {
    chosen = JSON.parse(localStorage.getItem("beray.preferences") ?? "{}") ?? {};
  } catch {
    // Storage is off, or holds what is not ours: the system's theme it is.
  }
  const isDark = matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = chosen.theme === "light" || chosen.theme === "dark" ? chosen.theme : isDark ? "dark" : "light";
  const language = chosen.language ?? (navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en");
  root.lang = language === "zh" ? "zh-CN" : "en";
})();

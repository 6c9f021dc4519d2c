/** What a person has chosen on this device: theme, language, notifications, shortcuts, the rail. Kept in local storage; `theme.js` reads it first. */

import { speak } from "../api/client";
import type { Language } from "../i18n/dictionary";

export type Theme = "system" | "light" | "dark";

const KEY = "beray.preferences";

type Stored = { theme?: Theme; language?: Language; notifies?: boolean; hasShortcuts?: boolean; isRailNarrow?: boolean; isGuideAside?: boolean };

class Preferences {
  theme = $state<Theme>("system");
  language = $state<Language>("en");
  notifies = $state(false);
  hasShortcuts = $state(true);
  isRailNarrow = $state(false);
  /** The guide to a first model was put aside. */
  isGuideAside = $state(false);
  #systemIsDark = $state(false);

  constructor() {
    const stored = read();
    this.theme = stored.theme === "light" || stored.theme === "dark" ? stored.theme : "system";
    this.language = stored.language === "zh" || stored.language === "en" ? stored.language : spoken();
    this.notifies = stored.notifies === true;
    this.hasShortcuts = stored.hasShortcuts !== false;
    this.isRailNarrow = stored.isRailNarrow === true;
    this.isGuideAside = stored.isGuideAside === true;
    const dark = matchMedia("(prefers-color-scheme: dark)");
    this.#systemIsDark = dark.matches;
    dark.addEventListener("change", (event) => {
      this.#systemIsDark = event.matches;
      this.#apply();
    });
    speak(this.language);
  }

  get isDark(): boolean {
    return this.theme === "dark" || (this.theme === "system" && this.#systemIsDark);
  }

  choose(changes: Stored): void {
    Object.assign(this, changes);
    const { theme, language, notifies, hasShortcuts, isRailNarrow, isGuideAside } = this;
    try {
      localStorage.setItem(KEY, JSON.stringify({ theme, language, notifies, hasShortcuts, isRailNarrow, isGuideAside }));
    } catch {
      // Storage is off or full: the choice holds for this page.
    }
    speak(language);
    this.#apply();
  }

  #apply(): void {
    document.documentElement.dataset["theme"] = this.isDark ? "dark" : "light";
    document.documentElement.lang = this.language === "zh" ? "zh-CN" : "en";
  }
}

function read(): Stored {
  try {
    const value: unknown = JSON.parse(localStorage.getItem(KEY) ?? "{}");
    return typeof value === "object" && value !== null ? (value as Stored) : {};
  } catch {
    return {};
  }
}

function spoken(): Language {
  return navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en";
}

export const preferences = new Preferences();

/** Where we are: path, query and fragment of the address as state, and how to go elsewhere without loading the page anew. */

class Router {
  #url = $state.raw(new URL(location.href));

  constructor() {
    addEventListener("popstate", () => this.#look());
    addEventListener("hashchange", () => this.#look());
    document.addEventListener("click", (event) => this.#follow(event));
  }

  get path(): string {
    return this.#url.pathname.replace(/(?<=.)\/+$/, "");
  }

  get query(): URLSearchParams {
    return this.#url.searchParams;
  }

  /** Of `#file=a.txt`: `file` is `a.txt`. */
  get fragment(): URLSearchParams {
    return new URLSearchParams(this.#url.hash.slice(1));
  }

  /** Path, query and fragment, to come back to. */
  get here(): string {
    return this.#url.pathname + this.#url.search + this.#url.hash;
  }

  go(to: string, { replace = false }: { replace?: boolean } = {}): void {
    const target = new URL(to, location.href);
    if (target.origin !== location.origin) return;
    const isOtherPage = target.pathname !== location.pathname;
    history[replace ? "replaceState" : "pushState"](null, "", target);
    this.#look();
    if (isOtherPage) scrollTo(0, 0);
  }

  #look(): void {
    this.#url = new URL(location.href);
  }

  /** A plain click on a link of ours. */
  #follow(event: MouseEvent): void {
    if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    const link = (event.target as Element | null)?.closest("a");
    if (!link?.href || link.target || link.hasAttribute("download") || link.origin !== location.origin) return;
    if (/^\/(api|docs|openapi\.json)(\/|$)/.test(link.pathname)) return;
    event.preventDefault();
    this.go(link.href);
  }
}

export const router = new Router();

/** A path of ours to go on to after the login; anything else is the start. */
export function safeNext(next: string | null): string {
  return next !== null && /^\/(?![/\\])/.test(next) && !/^\/(login|register|reset)\b/.test(next) ? next : "/";
}

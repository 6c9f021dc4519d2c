/** Short messages at the edge of the screen. Those about an error stay until they are closed. */

export type Toast = {
  readonly id: number;
  readonly kind: "info" | "good" | "bad";
  readonly text: string;
  readonly detail?: string | undefined;
  readonly action?: { readonly label: string; readonly run: () => void } | undefined;
};

const MOST = 4;
const SHOWN_MS = 6000;

class Toasts {
  #next = 1;
  list = $state.raw<readonly Toast[]>([]);

  show(toast: Omit<Toast, "id">): number {
    const id = this.#next++;
    const others = this.list.filter((one) => one.text !== toast.text || one.detail !== toast.detail);
    this.list = [...others, { ...toast, id }].slice(-MOST);
    if (toast.kind !== "bad") setTimeout(() => this.close(id), toast.action ? SHOWN_MS * 1.5 : SHOWN_MS);
    return id;
  }

  close(id: number): void {
    this.list = this.list.filter((toast) => toast.id !== id);
  }
}

export const toasts = new Toasts();

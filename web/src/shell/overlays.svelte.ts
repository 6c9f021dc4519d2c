/** What lies over the pages: the command palette, the list of shortcuts. Loaded apart from the first page. */

type Overlay = "palette" | "keys";

class Overlays {
  open = $state<Overlay | null>(null);

  show(overlay: Overlay): void {
    this.open = overlay;
  }

  close(): void {
    this.open = null;
  }
}

export const overlays = new Overlays();

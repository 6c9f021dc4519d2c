import { untrack } from "svelte";

/** Look again and again while somebody looks: not while the tab is hidden, and at once when it is shown again. */
export function poll(look: () => Promise<void>, everyMs: number): () => void {
  let timer: ReturnType<typeof setTimeout> | undefined;
  let isOver = false;
  let isLooking = false;

  const again = async () => {
    clearTimeout(timer);
    if (isOver || isLooking || document.hidden) return;
    isLooking = true;
    await look().catch(() => undefined); // whoever looks keeps what failed
    isLooking = false;
    if (!isOver) timer = setTimeout(() => void again(), everyMs);
  };
  const shown = () => void again();

  document.addEventListener("visibilitychange", shown);
  untrack(() => void again());
  return () => {
    isOver = true;
    clearTimeout(timer);
    document.removeEventListener("visibilitychange", shown);
  };
}

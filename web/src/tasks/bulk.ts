/** The same for many tasks, a few at a time: some may fail, the others are done. */

const AT_A_TIME = 4;

export type Outcome = { readonly done: number; readonly failures: readonly unknown[] };

export async function each(ids: readonly number[], act: (id: number) => Promise<unknown>, onprogress: (count: number) => void): Promise<Outcome> {
  const rest = [...ids];
  const failures: unknown[] = [];
  let count = 0;
  const work = async () => {
    for (let id = rest.shift(); id !== undefined; id = rest.shift()) {
      await act(id).catch((error: unknown) => failures.push(error));
      onprogress(++count);
    }
  };
  await Promise.all(Array.from({ length: AT_A_TIME }, work));
  return { done: ids.length - failures.length, failures };
}

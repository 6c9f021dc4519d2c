/** A work_dir's tree as the pane shows it: pure functions on the nodes that the server sends. */

import type { FileNode } from "../api/types";

/** The paths of everything in it. */
export function pathsOf(nodes: readonly FileNode[]): Set<string> {
  const paths = new Set<string>();
  const add = (node: FileNode): void => {
    paths.add(node.path);
    node.children?.forEach(add);
  };
  nodes.forEach(add);
  return paths;
}

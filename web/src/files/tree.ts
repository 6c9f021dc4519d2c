/** A work_dir's tree as the pane shows it: pure functions on the nodes that the server sends. */

import type { FileNode } from "../api/types";

export const ROOT = ".";

/** What is known of a folder; `isCut`: the server knows more than it told. */
export type Listing = { readonly nodes: readonly FileNode[]; readonly isCut: boolean };

export type Listings = ReadonlyMap<string, Listing>;

/** A line of the tree: an entry, or what stands in a folder in place of entries. */
export type Row =
  | {
      readonly kind: "node";
      readonly key: string;
      readonly node: FileNode;
      readonly level: number;
      readonly position: number;
      readonly count: number;
      readonly isOpen: boolean;
    }
  | { readonly kind: "more" | "loading" | "empty"; readonly key: string; readonly folder: string; readonly level: number };

/** The folders that an answer of the server tells of, by path. One whose entries it left out is not among them: it is read when it is opened. */
export function listingsOf(path: string, nodes: readonly FileNode[], isCut: boolean): Map<string, Listing> {
  const listings = new Map<string, Listing>([[path, { nodes, isCut }]]);
  const visit = (node: FileNode): void => {
    if (node.type !== "directory") return;
    const children = node.children ?? [];
    const isTruncated = node.truncated === true;
    if (isTruncated && children.length === 0) return;
    listings.set(node.path, { nodes: children, isCut: isTruncated });
    children.forEach(visit);
  };
  nodes.forEach(visit);
  return listings;
}

/** The lines that are to be seen, from top to bottom. */
export function rowsOf(listings: Listings, open: ReadonlySet<string>): Row[] {
  const rows: Row[] = [];
  const visit = (folder: string, level: number): void => {
    const listing = listings.get(folder);
    if (!listing) {
      rows.push({ kind: "loading", key: `loading ${folder}`, folder, level });
      return;
    }
    const count = listing.nodes.length;
    listing.nodes.forEach((node, at) => {
      const isOpen = node.type === "directory" && open.has(node.path);
      rows.push({ kind: "node", key: node.path, node, level, position: at + 1, count, isOpen });
      if (isOpen) visit(node.path, level + 1);
    });
    if (listing.isCut) rows.push({ kind: "more", key: `more ${folder}`, folder, level });
    else if (count === 0 && folder !== ROOT) rows.push({ kind: "empty", key: `empty ${folder}`, folder, level });
  };
  visit(ROOT, 1);
  return rows;
}

/** The files that are known, folder by folder as they stand in the tree. */
export function filesOf(listings: Listings): FileNode[] {
  const files: FileNode[] = [];
  const visit = (folder: string): void => {
    for (const node of listings.get(folder)?.nodes ?? []) {
      if (node.type === "directory") visit(node.path);
      else files.push(node);
    }
  };
  visit(ROOT);
  return files;
}

/** What is known of a path: the entry; null: there is none; undefined: nobody has looked. */
export function findNode(listings: Listings, path: string): FileNode | null | undefined {
  const listing = listings.get(parentOf(path));
  const node = listing?.nodes.find((one) => one.path === path);
  if (node) return node;
  return listing && !listing.isCut ? null : undefined;
}

/** `.` for what lies at the top. */
export function parentOf(path: string): string {
  const cut = path.lastIndexOf("/");
  return cut === -1 ? ROOT : path.slice(0, cut);
}

export function nameOf(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1);
}

/** The folders that a path leads through, outermost first. */
export function ancestorsOf(path: string): string[] {
  const names = path.split("/");
  return names.slice(0, -1).map((_, at) => names.slice(0, at + 1).join("/"));
}

/** How many levels of folders are open, one inside another. */
export function depthOf(open: ReadonlySet<string>): number {
  return Math.max(0, ...Array.from(open, (path) => path.split("/").length));
}

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

// Control characters, marks that turn the direction of writing or take no room, and the stand-ins for bytes that are no UTF-8:
// `exe.txt` written backwards must not look like a text, nor one name like another.
const UNSEEN = /[\u0000-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\uef80-\uefff]/g;

/** A name as it may be shown. */
export function visible(name: string): string {
  return name.replace(UNSEEN, "\ufffd");
}

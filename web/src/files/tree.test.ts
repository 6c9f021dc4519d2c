import { describe, expect, it } from "vitest";
import type { FileNode } from "../api/types";
import { ancestorsOf, depthOf, filesOf, findNode, listingsOf, parentOf, pathsOf, ROOT, rowsOf, visible } from "./tree";

function file(path: string): FileNode {
  return { name: path.split("/").at(-1) ?? "", path, type: "file", size: 1, modified_at: "2026-01-01T00:00:00.000Z" };
}

function folder(path: string, children: FileNode[], truncated = false): FileNode {
  return { ...file(path), type: "directory", size: 0, children, ...(truncated && { truncated }) };
}

const TREE = [folder("docs", [folder("docs/deep", [], true), file("docs/a.md")]), folder("empty", []), file("b.py")];

describe("listingsOf", () => {
  it("leaves out folders whose entries were not told", () => {
    const listings = listingsOf(ROOT, TREE, false);

    expect([...listings.keys()]).toEqual([ROOT, "docs", "empty"]);
    expect(listings.get("empty")).toEqual({ nodes: [], isCut: false });
  });

  it("keeps what is told of a folder that was cut", () => {
    const listings = listingsOf(ROOT, [folder("many", [file("many/1")], true)], true);

    expect(listings.get("many")).toMatchObject({ isCut: true });
    expect(listings.get(ROOT)).toMatchObject({ isCut: true });
  });
});

describe("rowsOf", () => {
  const kinds = (open: string[], isCut = false) =>
    rowsOf(listingsOf(ROOT, TREE, isCut), new Set(open)).map((row) => (row.kind === "node" ? `${row.level} ${row.node.path}` : `${row.level} ${row.kind}`));

  it("shows closed folders as one line each", () => {
    expect(kinds([])).toEqual(["1 docs", "1 empty", "1 b.py"]);
  });

  it("shows what is in open ones, and says of those that are being read or are empty", () => {
    expect(kinds(["docs", "docs/deep", "empty"])).toEqual(["1 docs", "2 docs/deep", "3 loading", "2 docs/a.md", "1 empty", "2 empty", "1 b.py"]);
  });

  it("says where the server knows more", () => {
    expect(kinds([], true).at(-1)).toBe("1 more");
  });

  it("counts an entry among its siblings", () => {
    const row = rowsOf(listingsOf(ROOT, TREE, false), new Set(["docs"]))[2];

    expect(row).toMatchObject({ position: 2, count: 2 });
  });
});

describe("findNode", () => {
  const listings = listingsOf(ROOT, TREE, false);

  it("tells what is there, what is not, and what nobody has looked at", () => {
    expect(findNode(listings, "docs/a.md")?.name).toBe("a.md");
    expect(findNode(listings, "docs/gone.md")).toBeNull();
    expect(findNode(listings, "docs/deep/x")).toBeUndefined();
    expect(findNode(listingsOf(ROOT, TREE, true), "other")).toBeUndefined();
  });
});

describe("paths", () => {
  it("lead through their folders", () => {
    expect(parentOf("a")).toBe(ROOT);
    expect(parentOf("a/b/c")).toBe("a/b");
    expect(ancestorsOf("a/b/c")).toEqual(["a", "a/b"]);
    expect(depthOf(new Set(["a", "a/b"]))).toBe(2);
    expect(depthOf(new Set())).toBe(0);
  });

  it("are listed in the tree's order", () => {
    expect(filesOf(listingsOf(ROOT, TREE, false)).map((node) => node.path)).toEqual(["docs/a.md", "b.py"]);
    expect(pathsOf(TREE)).toEqual(new Set(["docs", "docs/deep", "docs/a.md", "empty", "b.py"]));
  });

  it("show no character that deceives", () => {
    expect(visible("gpj\u202eexe.txt")).toBe("gpj\ufffdexe.txt");
    expect(visible("报告 1.txt")).toBe("报告 1.txt");
    expect(visible("raw\uef80")).toBe("raw\ufffd");
  });
});

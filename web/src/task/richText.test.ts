import { describe, expect, it } from "vitest";
import { GrowingMarkdown, type Token } from "./richText";

const TEXT = `# Title

A paragraph with **bold** and a [link](x.py).

- one
- two

  more of two
- three

1. first
   \`\`\`bash
   ls

   \`\`\`
2. second

\`\`\`python
def f():

    return 1
\`\`\`

| a | b |
|---|---|
| 1 | 2 |

> quote
> goes on

The end.
`;

function raw(tokens: readonly Token[]): string {
  return tokens.map((token) => token.raw).join("");
}

function kinds(tokens: readonly Token[]): string[] {
  return tokens.filter((token) => token.type !== "space").map((token) => token.type);
}

describe("Markdown that grows", () => {
  it.each([1, 3, 17, 1000])("by %i characters comes to the same blocks as all of it at once", (size) => {
    const growing = new GrowingMarkdown();
    for (let end = size; end < TEXT.length; end += size) growing.tokens(TEXT.slice(0, end));
    const grown = growing.tokens(TEXT);

    expect(kinds(grown)).toEqual(kinds(new GrowingMarkdown().tokens(TEXT)));
    expect(raw(grown)).toBe(raw(new GrowingMarkdown().tokens(TEXT)));
    expect(kinds(grown)).toEqual(["heading", "paragraph", "list", "list", "code", "table", "blockquote", "paragraph"]);
  });

  it("keeps the blocks that can't change", () => {
    const growing = new GrowingMarkdown();
    const before = growing.tokens("One.\n\nTwo.\n\nThr");
    const after = growing.tokens("One.\n\nTwo.\n\nThree.");
    expect(after[0]).toBe(before[0]);
    expect(after[2]).toBe(before[2]);
    expect(after[4]).not.toBe(before[4]);
  });

  it("begins anew when the text is another", () => {
    const growing = new GrowingMarkdown();
    growing.tokens("One.\n\nTwo.\n\nThree.");
    expect(raw(growing.tokens("Other."))).toBe("Other.");
  });
});

import { svelte } from "@sveltejs/vite-plugin-svelte";
import { loadEnv } from "vite";
import { defineConfig } from "vitest/config";

// `npm run dev` beside a running server: BERAY_URL names it.
const server = loadEnv("", ".", "BERAY_")["BERAY_URL"] ?? "http://127.0.0.1:8000";

export default defineConfig({
  plugins: [svelte()],
  build: {
    outDir: "../beray/server/console",
    emptyOutDir: true,
    target: "es2022",
    modulePreload: { polyfill: false },
    assetsInlineLimit: 0, // `data:` scripts and styles would not pass the Content-Security-Policy
    rollupOptions: {
      output: {
        // Names without a hash: the files are committed, and told apart by their ETag.
        entryFileNames: "console.js",
        chunkFileNames: "chunks/[name].js",
        assetFileNames: (asset) => (asset.names[0] === "index.css" ? "console.css" : "chunks/[name][extname]"),
      },
    },
  },
  server: {
    proxy: {
      "^/(api|health|ready|docs|openapi.json)": { target: server, changeOrigin: false },
    },
  },
  test: {
    include: ["src/**/*.test.ts"],
    environment: "node",
  },
});

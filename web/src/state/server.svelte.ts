/** What the server says of itself (`/api/v1/info`): model, sandbox, tools, limits. */

import { call } from "../api/client";
import type { Info } from "../api/types";

class Server {
  info = $state.raw<Info | null>(null);

  async load(): Promise<void> {
    this.info = await call<Info>("GET", "/info");
  }
}

export const server = new Server();

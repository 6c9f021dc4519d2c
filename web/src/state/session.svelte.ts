/** Who is logged in. The session itself is a cookie that no script can read. */

import { call, whenUnauthenticated } from "../api/client";
import type { User } from "../api/types";
import { router } from "./router.svelte";

class Session {
  /** `undefined` until the server has been asked. */
  user = $state.raw<User | null | undefined>(undefined);

  constructor() {
    whenUnauthenticated(() => this.end());
  }

  async find(): Promise<void> {
    this.user = (await call<{ user: User | null }>("GET", "/auth/session")).user;
  }

  begin(user: User): void {
    this.user = user;
  }

  end(): void {
    this.user = null;
  }

  async logOut(): Promise<void> {
    await call("POST", "/auth/logout");
    this.leave();
  }

  /** The session is over, and that was wanted: nobody is told that it is. */
  leave(): void {
    this.end();
    router.go("/login");
  }
}

export const session = new Session();

import { call } from "../api/client";
import type { Message, User } from "../api/types";

const BY_COOKIE = { headers: { "X-BeRay-Console": "1" } }; // the session becomes a cookie, and no token is told to scripts

export type Purpose = "register" | "reset";

export async function logIn(email: string, password: string): Promise<User> {
  return (await call<{ user: User }>("POST", "/auth/login", { ...BY_COOKIE, body: { email, password } })).user;
}

export function requestCode(email: string, purpose: Purpose): Promise<Message> {
  return call("POST", "/auth/request-verification-code", { body: { email, purpose } });
}

export async function register(email: string, code: string, password: string): Promise<User> {
  const body = { email, verification_code: code, password };
  return (await call<{ user: User }>("POST", "/auth/register", { ...BY_COOKIE, body })).user;
}

export function resetPassword(email: string, code: string, password: string): Promise<Message> {
  return call("POST", "/auth/reset-password", { body: { email, verification_code: code, password } });
}
